"""The state that a training step turns into the next one."""

import dataclasses
from typing import Any

import jax

from tl_jax import objectives


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that changes from update to update; a pytree.

    Attributes:
        step: int32 scalar, the number of completed updates.
        seed: int32 scalar, of the randomness of every update; constant. It is data, not a constant
            of the program, so that runs over several seeds share one compiled step.
        params: nested dict of float32 arrays: of the network, by its boundaries, and under "objective" those that
            objectives own.
        batch_stats: nested dict of float32 arrays, the running statistics of BatchNorm.
        opt_state: the state of the gradient transformation, for trainable leaves only.
        average: averaged weights, {leaf name: float32 array}; see `averaging.Averaging`. Empty without.
        references: what is constant and objectives look at, {"source": {"params", "batch_stats", "head",
            "relationship"}, "teacher": {"params", "batch_stats"}}, each where it is asked for: variables of frozen
            networks, and what is known of their classes; data of the program, in no checkpoint. Empty without.
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

    @property
    def network(self) -> dict[str, Any]:
        """{"params", "batch_stats"} of the network alone: what is applied, evaluated and exported."""
        return {"params": objectives.of_network(self.params), "batch_stats": self.batch_stats}

    def without_references(self) -> "TrainState":
        """Returns what a checkpoint holds: all that changes."""
        return self.replace(references={})
