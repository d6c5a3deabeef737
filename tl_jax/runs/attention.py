"""DELTA's attention, learned when a run begins from its training images and the network that it starts from.

N: images; C: channels of a map; D: features before the head.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import console, models, objectives, reporting
from tl_jax.augment import preprocessing
from tl_jax.data import order
from tl_jax.runs.setup import Setup
from tl_jax.training import filter_attention, logistic
from tl_jax.training.loops import Stopped

# Images on which channels are removed, at most: 4 batches of 64 in the authors' `channel_eval.py`.
MOST_IMAGES = 256
# Images of the linear probe, at most; the authors' sees all, for 10 epochs.
MOST_OF_PROBE = 10_000
# Of the probe's kernel, in the mean loss: the weight decay of the authors' classifier.
_WEIGHT_DECAY = 1e-4


def attended(
    phases: Sequence[Setup], stop_requested: Callable[[], bool] = lambda: False
) -> tuple[Setup, ...]:
    """Returns the phases of a run, with what `objective.delta_attention` asks for; others as they are.

    A run that goes on learns it again: images and network are the same.

    Args:
        phases: of the run.
        stop_requested: whether to stop; asked between batches.

    Raises:
        loops.Stopped: when asked to.
    """
    asking = [setup for setup in phases if setup.config.objective.delta_attention]
    if not asking:
        return tuple(phases)
    compared = [name for setup in asking for name in _compared(setup.minimised.objective)]
    attention, counts = learn(phases[0], list(dict.fromkeys(compared)), stop_requested)
    console.say(
        f"DELTA: attention of {console.count(sum(map(len, attention.values())), 'channel')}, learned from "
        f"{console.count(counts['images'], 'training image')}"
    )
    return tuple(_with(setup, attention, counts) for setup in phases)


def facts(phases: Sequence[Setup]) -> dict[str, Any]:
    """Returns {"delta_attention": what was learned, from how many images}, {} where nothing was."""
    learned = [setup.minimised.attention for setup in phases if setup.minimised.attention]
    return {"delta_attention": learned[-1]} if learned else {}


def learn(
    setup: Setup, boundaries: Sequence[str], stop_requested: Callable[[], bool] = lambda: False
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Returns {boundary: attention, float32 [C]}, and of how many images it is.

    A linear probe is fitted to the features before the head by L-BFGS; then each channel of the map at each
    boundary is set to 0 in turn, and the increase of the probe's loss makes its attention, see `filter_attention`.
    The network is the one that the run starts from, in evaluation; images are as they are evaluated. It is computed
    on one device.

    Two things differ from the code of the authors. They set the filters of a stage's last convolution to 0, before
    its BatchNorm and the addition of the shortcut; here it is the channel of the map that DELTA compares. And they
    train the probe by SGD on augmented images.

    Args:
        setup: of a phase; all begin with the same network and data.
        boundaries: whose maps DELTA compares.
        stop_requested: whether to stop; asked between batches.

    Raises:
        loops.Stopped: when asked to.

    Source: Li et al. 2019 (arXiv:1901.09229), section 3.3; https://github.com/lixingjian/DELTA, `channel_eval.py`.
    """
    split, last = setup.splits["train"], models.before_head(setup.model)[-1]
    shuffled = order.Order(0, len(split), len(split)).examples(0)
    of_probe, seen = shuffled[:MOST_OF_PROBE], shuffled[:MOST_IMAGES]
    labels = np.asarray(split.labels)
    features = _features(setup, last, of_probe, stop_requested).reshape(len(of_probe), -1)
    probe = logistic.fit(
        features,
        labels[of_probe],
        len(split.class_names),
        [_WEIGHT_DECAY * len(of_probe)],
        compilation=setup.compilation,
    )
    head = probe.kernel[0], probe.bias[0]
    shapes = models.boundary_shapes(setup.model, setup.preprocessing.image_size)
    attention, done = {}, 0
    whole = sum(shapes[name][-1] for name in boundaries)
    with reporting.Progress(whole, batch_size=len(seen), unit="filter") as bar:
        for name in boundaries:
            maps = _features(setup, name, seen, stop_requested)
            found = []
            for increases in _increases(setup, name, head, maps, labels[seen]):
                if stop_requested():
                    raise Stopped(setup.first_step)
                found.append(increases)
                done += len(increases)
                bar.update(done)
            increases = np.concatenate(found)
            attention[name] = filter_attention.attention_of(increases).astype(np.float32)
    return attention, {"images": len(seen), "probe_images": len(of_probe)}


def _with(setup: Setup, attention: Mapping[str, np.ndarray], counts: Mapping[str, int]) -> Setup:
    if not setup.config.objective.delta_attention:
        return setup
    objective = _attended(setup.minimised.objective, attention)
    rows = {
        name: {
            "channels": len(attention[name]),
            "channel": int(attention[name].argmax()),
            "most": float(attention[name].max()),
            "least": float(attention[name].min()),
        }
        for name in _compared(objective)
    }
    minimised = dataclasses.replace(
        setup.minimised, objective=objective, attention={**counts, "boundaries": rows}
    )
    return dataclasses.replace(setup, minimised=minimised)


def _compared(objective: Any) -> tuple[str, ...]:
    """Returns the boundaries whose maps DELTA compares in an objective."""
    if isinstance(objective, objectives.Sum):
        return tuple(name for _, term in objective.terms for name in _compared(term))
    return objective.boundaries if isinstance(objective, objectives.Delta) else ()


def _attended(objective: Any, attention: Mapping[str, np.ndarray]) -> Any:
    """Returns an objective whose DELTA has attention."""
    if isinstance(objective, objectives.Sum):
        terms = ((weight, _attended(term, attention)) for weight, term in objective.terms)
        return objectives.Sum(tuple(terms))
    if isinstance(objective, objectives.Delta):
        given = {name: jnp.asarray(attention[name]) for name in objective.boundaries}
        return dataclasses.replace(objective, attention=given)
    return objective


def _features(
    setup: Setup, boundary: str, examples: np.ndarray, stop_requested: Callable[[], bool]
) -> np.ndarray:
    """Returns what the network makes of training images at a boundary, float32 [N, ...]."""
    forward = models.make_forward(setup.model, stop=boundary)
    transform = preprocessing.make_eval_transform(setup.preprocessing)
    program = setup.compilation.jit(
        lambda variables, images: forward(
            variables["params"], variables["batch_stats"], transform(images), train=False
        )[0]
    )
    size = min(len(examples), setup.config.data.batch_size)
    made = []
    for start in range(0, len(examples), size):
        if stop_requested():
            raise Stopped(setup.first_step)
        chosen = examples[start : start + size]
        # The last batch is filled up: one program for all.
        rows = np.resize(chosen, size)
        images = setup.splits["train"].gather(rows)
        made.append(np.asarray(program(setup.initial.variables, images))[: len(chosen)])
    return np.concatenate(made)


def _increases(
    setup: Setup,
    boundary: str,
    head: tuple[np.ndarray, np.ndarray],
    maps: np.ndarray,
    labels: np.ndarray,
) -> Iterator[np.ndarray]:
    """Yields by how much the loss grows without each channel, float32, C in all."""
    program = setup.compilation.jit(filter_attention.make_increases(_suffix(setup, boundary)))
    count = maps.shape[-1]
    # As many rows at once as an evaluation has, one filter at least.
    size = min(count, max(1, setup.config.data.eval_batch_size // len(maps)))
    params, batch_stats = (setup.initial.variables[name] for name in ("params", "batch_stats"))
    for start in range(0, count, size):
        # The last ones are filled up: one program for all.
        filters = np.arange(start, start + size, dtype=np.int32) % count
        found = program(params, batch_stats, head, maps, labels, filters)
        yield np.asarray(found)[: count - start]


def _suffix(setup: Setup, boundary: str) -> Callable[[Any, Any, jax.Array], jax.Array]:
    """Returns the network from a map to the features before its head."""
    last = models.before_head(setup.model)[-1]
    forward = models.make_forward(setup.model, start=boundary, stop=last)

    def suffix(params: Any, batch_stats: Any, maps: jax.Array) -> jax.Array:
        return maps if boundary == last else forward(params, batch_stats, maps, train=False)[0]

    return suffix
