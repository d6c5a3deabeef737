"""The averaged weights of a run, ready to be evaluated."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from tl_jax import models, objectives
from tl_jax.augment import preprocessing
from tl_jax.data import stream
from tl_jax.parallel import sharding
from tl_jax.runs.setup import Setup
from tl_jax.training import averaging, norm_statistics
from tl_jax.training.busy_time import BusyTime
from tl_jax.training.state import TrainState

# Batches from which running statistics are estimated, at most.
_MOST_BATCHES = 100


def make_candidate(
    setup: Setup, busy: BusyTime | None = None
) -> Callable[[TrainState], dict[str, Any] | None]:
    """Returns `candidate(state)`: the averaged variables of a run's state, ready to be evaluated.

    Its params are all of the state: the network's and, averaged likewise, those that objectives own.

    It is None where the run has no average, or its first sample is still to come. Where running statistics
    have to be estimated again, the batches of the first updates are passed through, their images as they
    are evaluated: at most 100 batches, at most an epoch.

    Args:
        setup: of the run; on activations, once it has them.
        busy: counts what the devices do for it; None: nothing counts it.
    """
    averages = setup.averaging

    @functools.cache
    def step(moving: frozenset[str]):
        start = setup.boundary if setup.cache is not None else None
        forward = models.make_forward(
            models.without_stoch_norm(setup.model),
            frozen_norms=setup.optimisation.frozen_norms,
            norm_policy=setup.config.freeze.batch_norm,
            start=start,
        )
        transform = (
            preprocessing.make_eval_transform(setup.preprocessing)
            if start is None
            else lambda stored: stored.astype(jnp.float32)
        )
        compiled = sharding.compile_eval_step(
            norm_statistics.make_statistics_step(forward, transform, moving),
            setup.mesh,
            setup.compilation,
        )
        return compiled if busy is None else busy.watch(compiled)

    def batches():
        size = setup.order.batch_size
        split = setup.inputs["train"]
        count = min(_MOST_BATCHES, max(1, len(split) // size))
        rows = sharding.local_rows(setup.mesh, size)
        return stream.batches(split, setup.order, 0, count, rows, setup.config.data.workers)

    def candidate(state: TrainState) -> dict[str, Any] | None:
        if averages is None or not averaging.has_average(state):
            return None
        variables = averages.variables(state)
        if averages.needs_statistics:
            params = objectives.of_network(variables["params"])
            batch_stats = norm_statistics.estimate(
                step(averages.statistics), params, variables["batch_stats"], batches()
            )
            variables["batch_stats"] = sharding.replicate(setup.mesh, batch_stats)
        return variables

    return candidate
