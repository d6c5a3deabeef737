"""What a row of a stage is, as data."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Side:
    """One of those that a row compares.

    Attributes:
        child: the process that measures it: "jax", "torch_eager" or "torch_compile".
        settings: arguments of its command "prepare", beyond those of the row.
    """

    child: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Timed:
    """Steps of several sides, in rounds that take turns; `timed.run` measures it.

    Attributes:
        name: of the row.
        seconds: that it takes, about; not begun with less.
        sides: by label, the first the one that others are compared with.
        settings: arguments of the command "prepare", of all sides.
        rounds: turns of each side; 0: outputs are compared and nothing is timed.
        turn_seconds: of a turn, about.
        tolerance: of outputs, as a share of the largest; beyond it the sides count as disagreeing.
    """

    name: str
    seconds: float
    sides: Mapping[str, Side]
    settings: Mapping[str, Any]
    rounds: int
    turn_seconds: float
    tolerance: float


@dataclasses.dataclass(frozen=True)
class Ask:
    """One command to one process, and its answer.

    Attributes:
        child: as in `Side`.
        command: that it knows.
        arguments: of the command.
        fresh: whether a new process is started for it, and timed from its start.
    """

    child: str
    command: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fresh: bool = False


@dataclasses.dataclass(frozen=True)
class Asked:
    """Commands in their order, whose answers are recorded as they are.

    Attributes:
        name: of the row.
        seconds: as in `Timed`.
        asks: by the name under which the answer is recorded.
    """

    name: str
    seconds: float
    asks: Mapping[str, Ask]


Row = Timed | Asked
