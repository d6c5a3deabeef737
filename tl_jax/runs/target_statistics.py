"""AdaBN: statistics of BatchNorm that are estimated on the training images before anything is trained."""

import dataclasses
from collections.abc import Sequence

from tl_jax import console, models, trees
from tl_jax.augment import preprocessing
from tl_jax.data import stream
from tl_jax.data.order import Order
from tl_jax.parallel import sharding
from tl_jax.runs.setup import Setup
from tl_jax.training import norm_statistics

# Batches from which statistics are estimated, at most.
_MOST_BATCHES = 100


def adapted(phases: tuple[Setup, ...]) -> tuple[Setup, ...]:
    """Returns the phases of a run, starting from the statistics that `init.batch_stats` asks for.

    With "target", every BatchNorm normalises by the batch in one pass over training images, as they are evaluated, in
    batches of evaluation: all images where one batch holds them, whole batches alone where there are more, and 100
    batches at most. The statistics are the mean over these batches, variances unbiased. Frozen networks that
    objectives compare with have them, too.

    Source: Li et al. 2016 (arXiv:1603.04779), section 3.2, which estimates each layer's on the target's images.
    """
    first = phases[0]
    if first.config.init.batch_stats != "target":
        return phases
    split, variables = first.splits["train"], first.initial.variables
    rows, count = _batches(first)
    order = Order(first.config.seed, rows, len(split))
    statistics = frozenset(trees.flatten(variables["batch_stats"]))
    step = sharding.compile_eval_step(
        norm_statistics.make_statistics_step(
            models.make_forward(models.without_stoch_norm(first.model)),
            preprocessing.make_eval_transform(first.preprocessing),
            statistics,
        ),
        first.mesh,
        first.compilation,
    )
    batches = stream.batches(
        split,
        order,
        0,
        count,
        sharding.local_rows(first.mesh, rows),
        first.config.data.workers,
    )
    estimated = norm_statistics.estimate(
        step, variables["params"], variables["batch_stats"], batches
    )
    console.say(f"BatchNorm: statistics of {console.count(count * rows, 'training image')}")
    initial = dataclasses.replace(first.initial, variables={**variables, "batch_stats": estimated})
    return tuple(dataclasses.replace(setup, initial=initial) for setup in phases)


def facts(phases: Sequence[Setup]) -> dict[str, int]:
    """Returns {"target_statistics": training images that statistics were estimated on}, {} where none were."""
    first = phases[0]
    if first.config.init.batch_stats != "target":
        return {}
    rows, count = _batches(first)
    return {"target_statistics": rows * count}


def _batches(setup: Setup) -> tuple[int, int]:
    """Returns the rows of a batch, a multiple of the devices, and how many batches there are."""
    examples, devices = len(setup.splits["train"]), setup.mesh.size
    most = min(setup.evaluator.rows(setup.splits["train"]), examples)
    rows = max(1, most // devices) * devices
    return rows, min(_MOST_BATCHES, max(1, examples // rows))
