"""What a run tells the person who waits for it: lines for everyone, tables for those who ask for them.

How much is told belongs to the process: a command sets it once, `tl_jax.finetune` for the time of its run.
"""

import contextlib
import sys
from collections.abc import Iterator

LEVELS = ("silent", "normal", "verbose")


class _Told:
    """How much this process tells; threads that decode images share it."""

    level = "normal"


@contextlib.contextmanager
def telling(level: str) -> Iterator[None]:
    """Sets how much is told inside: one of `LEVELS`."""
    if level not in LEVELS:
        raise ValueError(f"level {level!r}: expected one of {', '.join(LEVELS)}")
    before, _Told.level = _Told.level, level
    try:
        yield
    finally:
        _Told.level = before


def tells(level: str = "normal") -> bool:
    """Returns whether what belongs to a level is told now."""
    return LEVELS.index(_Told.level) >= LEVELS.index(level)


def say(line: str) -> None:
    """Prints a line, unless nothing is to be told."""
    if tells():
        print(line, flush=True)


def note(line: str) -> None:
    """Prints a line about the data or the machine to standard error, unless nothing is to be told."""
    if tells():
        print(line, file=sys.stderr, flush=True)
