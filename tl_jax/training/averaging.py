"""Averages of the weights along a run, evaluated beside the live ones.

An average holds what training changes: trainable leaves, and running statistics of BatchNorm that are not
frozen. It is a flat dict {leaf name: array}, such as "params/head/kernel", with "count", the weights in it.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tl_jax import trees
from tl_jax.errors import InputError, unknown
from tl_jax.training.state import TrainState

AVERAGES = ("ema", "swa", "wise_ft")
_COUNT = "count"


@dataclasses.dataclass(frozen=True)
class Averaging:
    """How weights are averaged.

    - `ema`: after each update, a <- d a + (1 - d) w with d = min(decay, (1 + n) / (10 + n)), n the
      updates before: the average forgets its start in short runs too. Running statistics are averaged likewise.
    - `swa`: the mean of the weights after updates `first`, `first + every`, ...; running statistics of
      BatchNorm do not fit averaged weights and are estimated again on training images before use.
    - `wise_ft`: (1 - alpha) times the weights at the start and alpha times those now; statistics as of `swa`.

    Attributes:
        name: of `AVERAGES`.
        leaves: names of the leaves that are averaged; see `averaged_leaves`.
        decay: of `ema`, in [0, 1).
        first: of `swa`, the completed updates at the first sample, at least 1.
        every: of `swa`, updates between samples, at least 1.
        alpha: of `wise_ft`, in [0, 1].

    Raises:
        InputError: for an unknown name or a number out of range.

    Source: EMA, Polyak and Juditsky 1992, with the warm-up of `tf.train.ExponentialMovingAverage`
    (`num_updates`); SWA, Izmailov et al. 2018 (arXiv:1803.05407), algorithm 1; WiSE-FT, Wortsman et al. 2022
    (arXiv:2109.01903), section 3, whose start is a zero-shot network.
    """

    name: str
    leaves: tuple[str, ...]
    decay: float = 0.999
    first: int = 1
    every: int = 1
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in AVERAGES:
            raise unknown("average", self.name, AVERAGES)
        problems = []
        if not 0 <= self.decay < 1:
            problems.append(f"decay is {self.decay}, expected a number in [0, 1)")
        if not 0 <= self.alpha <= 1:
            problems.append(f"alpha is {self.alpha}, expected a number in [0, 1]")
        problems += [
            f"{name} is {value}, expected a whole number of at least 1"
            for name, value in (("first", self.first), ("every", self.every))
            if value < 1
        ]
        if problems:
            raise InputError("\n".join(problems))

    @property
    def label(self) -> str:
        """What it is called, such as "EMA"."""
        return {"wise_ft": "WiSE-FT"}.get(self.name, self.name.upper())

    def init(self, params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the average before the first update: the weights as they are, none counted."""
        values = _leaves(params, batch_stats)
        # Copied: the training step donates its state, and no buffer can be donated twice.
        return {name: jnp.copy(values[name]) for name in self.leaves} | {_COUNT: jnp.int32(0)}

    def update(self, state: TrainState) -> dict[str, Any]:
        """Returns the average with the weights of a state after its update, where they are due."""
        count = state.average[_COUNT]
        if self.name == "wise_ft":  # The start stays; `variables` takes the mean.
            return state.average | {_COUNT: count + 1}
        leaves = _leaves(state.params, state.batch_stats)
        n = count.astype(jnp.float32)
        if self.name == "ema":
            kept = jnp.minimum(self.decay, (1 + n) / (10 + n))
            due = jnp.bool_(True)
        else:
            kept = n / (n + 1)
            due = (state.step >= self.first) & ((state.step - self.first) % self.every == 0)
        kept = jnp.where(due, kept, 1.0)

        def averaged(name: str) -> jax.Array:
            old, new = state.average[name], leaves[name]
            return jnp.where(due, kept * old + (1 - kept) * new, old)

        return {name: averaged(name) for name in self.leaves} | {
            _COUNT: count + due.astype(jnp.int32)
        }

    def averaged(self, step: Callable[..., tuple[TrainState, Any]]) -> Callable[..., Any]:
        """Returns a training step that also keeps the average, in `state.average`."""

        def averaged_step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
            new, metrics = step(state, batch)
            return new.replace(average=self.update(new)), metrics

        return averaged_step

    def variables(self, state: TrainState) -> dict[str, Any]:
        """Returns {"params", "batch_stats"} with the averaged leaves in the place of the live ones."""
        leaves = _leaves(state.params, state.batch_stats)
        for name in self.leaves:
            kept = state.average[name]
            if self.name == "wise_ft":
                kept = (1 - self.alpha) * kept + self.alpha * leaves[name]
            leaves[name] = kept
        tree = trees.unflatten(leaves)
        return {"params": tree["params"], "batch_stats": tree.get("batch_stats", {})}

    @property
    def statistics(self) -> frozenset[str]:
        """The names of the running statistics among the leaves, without "batch_stats/"."""
        found = (name.partition("/") for name in self.leaves)
        return frozenset(name for collection, _, name in found if collection == "batch_stats")

    @property
    def needs_statistics(self) -> bool:
        """Whether running statistics of BatchNorm must be estimated again before the average is used."""
        return self.name in ("swa", "wise_ft") and bool(self.statistics)


def averaged_leaves(
    frozen_mask: Mapping[str, Any],
    batch_stats: Mapping[str, Any],
    frozen_norms: Collection[str],
    norm_policy: str,
) -> tuple[str, ...]:
    """Returns the names of the leaves that training changes: the others are not averaged, bit for bit.

    Args:
        frozen_mask: tree of bools like params, True where frozen.
        batch_stats: running statistics.
        frozen_norms: BatchNorm modules to which the policy applies.
        norm_policy: see `models.make_forward`.
    """
    trained = [
        f"params/{name}" for name, frozen in trees.flatten(frozen_mask).items() if not frozen
    ]
    kept = frozenset() if norm_policy == "update" else frozenset(frozen_norms)
    moving = [
        f"batch_stats/{name}"
        for name in trees.flatten(batch_stats)
        if name.rpartition("/")[0] not in kept
    ]
    return (*trained, *moving)


def has_average(state: TrainState) -> bool:
    """Returns whether a state holds an average of at least one state of weights."""
    return bool(state.average) and int(state.average[_COUNT]) > 0


def _leaves(params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, Any]:
    return trees.flatten({"params": params, "batch_stats": batch_stats})
