"""Time to an accuracy, from what a run reached at the end of each epoch.

A curve is a list of {"epoch", "accuracy", "seconds_from_start", "seconds_of_training"}, epochs in order: seconds
since its process was started, and seconds without imports, data and compilation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Point = Mapping[str, float]


def reached(curve: Sequence[Point], accuracy: float) -> Point | None:
    """Returns the first point of at least this accuracy, None where there is none."""
    return next((point for point in curve if point["accuracy"] >= accuracy), None)


def compared(curves: Mapping[str, Sequence[Point]], target: float = 0.0) -> dict[str, Any]:
    """Returns when each curve reaches an accuracy.

    Args:
        curves: by name; none is empty.
        target: the accuracy; 0: the highest that all of them reach.
    """
    if not curves:
        return {}
    accuracy = target or min(max(point["accuracy"] for point in of) for of in curves.values())
    return {
        "accuracy": accuracy,
        "reached": {name: reached(curve, accuracy) for name, curve in curves.items()},
    }
