"""AdaBN: statistics of BatchNorm that are estimated on the training images before anything is trained."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

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
    variables = first.initial.variables
    found = estimated(first, variables)
    console.say(f"BatchNorm: statistics of {console.count(_images(first), 'training image')}")
    initial = dataclasses.replace(first.initial, variables={**variables, "batch_stats": found})
    return tuple(dataclasses.replace(setup, initial=initial) for setup in phases)


def estimated(setup: Setup, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the running statistics of a network on the training images of a run, as trees of float32 arrays.

    Args:
        setup: of the run, on images.
        variables: {"params", "batch_stats"} of the network.
    """
    split = setup.splits["train"]
    rows, count = _batches(setup)
    order = Order(setup.config.seed, rows, len(split))
    step = sharding.compile_eval_step(
        norm_statistics.make_statistics_step(
            models.make_forward(models.without_stoch_norm(setup.model)),
            preprocessing.make_eval_transform(setup.preprocessing),
            frozenset(trees.flatten(variables["batch_stats"])),
        ),
        setup.mesh,
        setup.compilation,
    )
    local, workers = sharding.local_rows(setup.mesh, rows), setup.config.data.workers
    batches = stream.batches(split, order, 0, count, local, workers)
    return norm_statistics.estimate(step, variables["params"], variables["batch_stats"], batches)


def facts(phases: Sequence[Setup]) -> dict[str, int]:
    """Returns {"target_statistics": training images that statistics were estimated on}, {} where none were."""
    first = phases[0]
    if first.config.init.batch_stats != "target":
        return {}
    return {"target_statistics": _images(first)}


def _images(setup: Setup) -> int:
    rows, count = _batches(setup)
    return rows * count


def _batches(setup: Setup) -> tuple[int, int]:
    """Returns the rows of a batch, a multiple of the devices, and how many batches there are."""
    examples, devices = len(setup.splits["train"]), setup.mesh.size
    most = min(setup.evaluator.rows(setup.splits["train"]), examples)
    rows = max(1, most // devices) * devices
    return rows, min(_MOST_BATCHES, max(1, examples // rows))
