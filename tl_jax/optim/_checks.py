"""Range checks of hyper-parameters, gathered into one message."""

import itertools
import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax

from tl_jax.errors import InputError


class Problems:
    """Collects what is wrong with a set of arguments and raises it all at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def need(self, good: bool, name: str, value: object, expected: str) -> None:
        """Notes that `name` has a bad `value`, unless `good`."""
        if not good:
            self.lines.append(f"{name} is {value!r}, expected {expected}")

    def raise_any(self) -> None:
        """Raises InputError with every noted line, if there is one."""
        if self.lines:
            raise InputError("\n".join(self.lines))


def is_number(value: Any) -> bool:
    """Whether `value` is a finite real number (and no bool)."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def is_data(value: Any) -> bool:
    """Whether `value` is an array: data of the compiled program, whose range nobody knows before it runs."""
    return isinstance(value, jax.Array)


def is_at_least_0(value: Any) -> bool:
    """Whether `value` is a number of at least 0, or an array (which is not looked into)."""
    return is_data(value) or (is_number(value) and value >= 0)


def is_count(value: Any) -> bool:
    """Whether `value` is of a whole-number type (no bool), and 0 or more."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value >= 0


def increasing(values: Sequence[int]) -> bool:
    """Whether each value is larger than the one before it."""
    return all(low < high for low, high in itertools.pairwise(values))
