"""What is cheap to know of a data set and of weights: features of training images, judged; statistics; time.

Neither validation nor test is looked at.
"""

import copy
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from tl_jax import console, models, reporting, trees
from tl_jax.advice import judging
from tl_jax.augment import preprocessing
from tl_jax.data.selection import at_most
from tl_jax.errors import InputError
from tl_jax.features.pooling import as_vectors
from tl_jax.runs import fitted, image_features, target_statistics
from tl_jax.runs.lengths import total_steps
from tl_jax.runs.setup import Setup, prepare
from tl_jax.training import loops

_BATCH = 64
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Judged:
    """The features after a boundary, maps averaged over their positions.

    Attributes:
        boundary: its name.
        features: F, how many there are.
        neighbors: bool [N], whether five nearest neighbours are right.
        logistic: bool [N], whether logistic regression is right.
    """

    boundary: str
    features: int
    neighbors: np.ndarray
    logistic: np.ndarray


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was found.

    Attributes:
        data: the name of the data set.
        network: the name of the network.
        weights: what `init.weights` says.
        train_images: of the run.
        labels_per_class: the median over classes.
        least_labels: of the smallest class.
        classes: K.
        images: N, how many were looked at.
        pretrained: of each boundary but the head, from input to head.
        random: the same of random weights, whose BatchNorm has the statistics of these images.
        shift: how far the statistics of BatchNorm on these images, each layer's with those before it normalised by
            theirs, are from those of the weights: the root mean square over channels of the Fréchet distance of two
            normal distributions, in standard deviations of the weights' one; None without BatchNorm.
        images_per_second: through the network, once, one direction.
        updates: of the run.
        batch_size: of an update.
    """

    data: str
    network: str
    weights: str
    train_images: int
    labels_per_class: int
    least_labels: int
    classes: int
    images: int
    pretrained: tuple[Judged, ...]
    random: tuple[Judged, ...]
    shift: float | None
    images_per_second: float
    updates: int
    batch_size: int


def gather(
    config: ml_collections.ConfigDict, stop_requested: Callable[[], bool] = lambda: False
) -> Evidence:
    """Returns what is known of the training images and the weights of a config.

    Args:
        config: of a run; the section `advise` says how many images are looked at.
        stop_requested: whether to stop; asked between batches.

    Raises:
        InputError: if there are no pretrained weights, a class has one image, or config, data or weights do not fit.
        loops.Stopped: when asked to.
    """
    if not config.init.weights:
        raise InputError(
            "init.weights='': advice is about pretrained weights; expected weights, such as "
            f"{(models.list_pretrained(f'{config.model.name}.*') or models.list_pretrained())[0]}"
        )
    length = _length(config)
    setup = prepare(_plain(config))
    split = setup.splits["train"]
    labels = np.asarray(split.labels)
    counts = np.bincount(labels, minlength=len(split.class_names))
    if counts.min() < 2:
        name = split.class_names[int(counts.argmin())]
        raise InputError(
            f"class {name!r} has {counts.min()} training images; expected two or more of each class, so that one is "
            "judged by the other"
        )
    places = _chosen(labels, config.advise.examples, config.seed)
    chosen = labels[places]
    splits = judging.folds(chosen, config.advise.folds, config.seed)
    boundaries = models.before_head(setup.model)
    pretrained = setup.initial.variables
    random = _random(setup, config.seed)
    console.say(
        f"looking at {console.count(len(places), 'training image')} of {len(labels):,}, "
        f"{len(splits)} folds, {len(boundaries)} boundaries"
    )
    found: dict[str, tuple[Judged, ...]] = {}
    seconds = 0.0
    for name, variables in (("pretrained", pretrained), ("random", random)):
        features, seconds = _features(setup, variables, places, stop_requested)
        found[name] = _judged(features, chosen, len(split.class_names), splits, stop_requested)
    return Evidence(
        data=config.data.name,
        network=config.model.name,
        weights=config.init.weights,
        train_images=len(labels),
        labels_per_class=int(np.median(counts)),
        least_labels=int(counts.min()),
        classes=len(split.class_names),
        images=len(places),
        pretrained=found["pretrained"],
        random=found["random"],
        shift=_shift(setup, pretrained),
        images_per_second=len(places) / seconds,
        updates=length(len(labels)),
        batch_size=config.data.batch_size,
    )


def _chosen(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Returns the places of at most so many images, in proportion to the classes, but two of each at least."""
    places = at_most(labels, most, seed)
    others = np.setdiff1d(np.arange(len(labels)), places)
    for label in np.unique(labels):
        lacking = max(0, 2 - int((labels[places] == label).sum()))
        places = np.concatenate([places, others[labels[others] == label][:lacking]])
    return np.sort(places)


def _plain(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of a run that only computes features."""
    plain = image_features.without_training(config)
    plain.phases = ()
    plain.cache.boundary = ""
    return plain


def _length(config: ml_collections.ConfigDict) -> Callable[[int], int]:
    """Returns the function from the number of training images to the updates of the run."""

    def updates(images: int) -> int:
        whole = copy.deepcopy(config)
        if whole.train.fit_to_data:
            whole = fitted.fitted(whole, images)
        return total_steps(whole, images)

    return updates


def _random(setup: Setup, seed: int) -> dict[str, Any]:
    """Returns random weights, whose running statistics are those of the training images."""
    side = setup.preprocessing.image_size
    made = models.init_variables(setup.model, jax.random.key(seed), (1, side, side, 3))
    variables = {"params": made["params"], "batch_stats": made.get("batch_stats", {})}
    if jax.tree.leaves(variables["batch_stats"]):
        variables["batch_stats"] = target_statistics.estimated(setup, variables)
    return variables


def _features(
    setup: Setup,
    variables: dict[str, Any],
    places: np.ndarray,
    stop_requested: Callable[[], bool],
) -> tuple[dict[str, np.ndarray], float]:
    """Returns the features of images at each boundary, float32 [N, F], and the seconds that the network took."""
    boundaries = models.before_head(setup.model)
    forward = models.make_tapped_forward(
        models.without_remat(setup.model), boundaries, stop=boundaries[-1]
    )
    transform = preprocessing.make_eval_transform(setup.preprocessing)

    @setup.compilation.jit
    def program(variables, images):
        found, _ = forward(
            variables["params"], variables["batch_stats"], transform(images), train=False
        )
        return {
            name: maps.mean(tuple(range(1, maps.ndim - 1))) if maps.ndim > 2 else maps
            for name, maps in found.items()
        }

    parts: dict[str, list[np.ndarray]] = {name: [] for name in boundaries}
    size, seconds, timed = min(_BATCH, len(places)), 0.0, 0
    with reporting.Progress(len(places), batch_size=1, unit="image") as bar:
        for start in range(0, len(places), size):
            if stop_requested():
                raise loops.Stopped(0)
            chosen = places[start : start + size]
            # The last batch is filled up: one program for all.
            images = setup.splits["train"].gather(np.resize(chosen, size))
            began = time.perf_counter()
            made = jax.device_get(program(variables, images))
            if start:  # The first one is compiled, too.
                seconds, timed = seconds + time.perf_counter() - began, timed + size
            for name, of in made.items():
                parts[name].append(as_vectors(of)[: len(chosen)])
            bar.update(min(start + size, len(places)))
    if not timed:
        began = time.perf_counter()
        jax.device_get(program(variables, images))
        seconds, timed = time.perf_counter() - began, size
    features = {name: np.concatenate(of) for name, of in parts.items()}
    return features, seconds * len(places) / timed


def _judged(
    features: dict[str, np.ndarray],
    labels: np.ndarray,
    num_classes: int,
    splits: list[tuple[np.ndarray, np.ndarray]],
    stop_requested: Callable[[], bool],
) -> tuple[Judged, ...]:
    """Returns each boundary judged; of those with the same features, such as a last stage and its pool, the last."""
    names = list(features)
    rows = []
    for name, following in zip(names, [*names[1:], None], strict=True):
        if stop_requested():
            raise loops.Stopped(0)
        of = features[name]
        if following is not None and _same(of, features[following]):
            continue
        rows.append(
            Judged(
                name,
                of.shape[1],
                judging.nearest_neighbors(of, labels, splits),
                judging.logistic_regression(of, labels, num_classes, splits),
            )
        )
    return tuple(rows)


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=1e-4, atol=1e-5))


def _shift(setup: Setup, variables: dict[str, Any]) -> float | None:
    """Returns how far the statistics of the images are from those of the weights; see `Evidence.shift`."""
    old = trees.flatten(variables["batch_stats"])
    means = [name for name in old if name.endswith("/mean")]
    if not means:
        return None
    new = trees.flatten(target_statistics.estimated(setup, variables))
    return float(
        np.sqrt(np.concatenate([_squared_distances(old, new, name) for name in means]).mean())
    )


def _squared_distances(old: dict[str, Any], new: dict[str, Any], mean: str) -> np.ndarray:
    """Returns the squared distance of the normal distributions of each channel, in variances of the old ones."""
    var = mean.removesuffix("mean") + "var"
    spreads = [np.sqrt(np.asarray(of[var], np.float64) + _EPSILON) for of in (old, new)]
    difference = np.asarray(new[mean], np.float64) - np.asarray(old[mean], np.float64)
    return (np.square(difference) + np.square(spreads[1] - spreads[0])) / np.square(spreads[0])
