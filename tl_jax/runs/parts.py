"""What a run is given as Python objects instead of by the names in its config."""

import dataclasses
from typing import Any

from tl_jax import augment, data

# In a config, `own:NAME` stands for an object that is not registered and must be given again to resume the run.
OWN = "own:"


@dataclasses.dataclass(frozen=True)
class Parts:
    """Objects of a run; the config decides where one is not given.

    Attributes:
        source: of the data; None: what `data.name` says.
        objective: the main loss, see `objectives.Objective`.
        optimizer: from a schedule (completed updates -> learning rate) to an optax transformation, such
            as `optax.lion`; takes the place of `optim.name` and its numbers.
        operations: those that `augment.operations` calls `own:NAME=STRENGTH`.
        mixings: those that `augment.mixing` calls so.
    """

    source: data.Source | None = None
    objective: Any = None
    optimizer: Any = None
    operations: tuple[augment.Operation, ...] = ()
    mixings: tuple[augment.Mixing, ...] = ()


NOTHING_GIVEN = Parts()


def own_name(given: Any) -> str:
    """Returns what a config calls an object that is given: `own:` and its name, that of its class if it has none."""
    name = getattr(given, "name", None) or getattr(given, "__name__", None)
    return OWN + (name if isinstance(name, str) else type(given).__name__)
