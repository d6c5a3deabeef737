"""The state that a training step turns into the next one."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that changes from update to update; a pytree.

    Attributes:
        step: int32 scalar, the number of completed updates.
        seed: int32 scalar, of the randomness of every update; constant. It is data, not a constant
            of the program, so that runs over several seeds share one compiled step.
        params: nested dict of float32 arrays.
        batch_stats: nested dict of float32 arrays, the running statistics of BatchNorm.
        opt_state: the state of the gradient transformation, for trainable leaves only.
        average: averaged weights, {leaf name: float32 array}; see `averaging.Averaging`. Empty without.
        references: variables of the frozen networks that objectives look at, {"source": {"params",
            "batch_stats"}, "teacher": ...}; constant, data of the program, in no checkpoint. Empty without.
    """

    step: jax.Array
    seed: jax.Array
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: Any
    average: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    references: dict[str, Any] = dataclasses.field(default_factory=dict)

    def replace(self, **changes) -> "TrainState":
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def without_references(self) -> "TrainState":
        """Returns what a checkpoint holds: all that changes."""
        return self.replace(references={})
