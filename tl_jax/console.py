"""What a run prints while somebody waits for it: lines by default, tables on request.

The verbosity belongs to the process: a command sets it once, `tl_jax.finetune` for the duration of its run.
"""

import contextlib
import sys
from collections.abc import Iterator

LEVELS = ("silent", "normal", "verbose")


class _Process:
    """The verbosity of this process; threads that decode images share it."""

    level = "normal"


@contextlib.contextmanager
def verbosity(level: str) -> Iterator[None]:
    """Sets the verbosity inside: one of `LEVELS`."""
    if level not in LEVELS:
        raise ValueError(f"level {level!r}: expected one of {', '.join(LEVELS)}")
    before, _Process.level = _Process.level, level
    try:
        yield
    finally:
        _Process.level = before


def shows(level: str = "normal") -> bool:
    """Returns whether output of a level is printed now."""
    return LEVELS.index(_Process.level) >= LEVELS.index(level)


def say(line: str) -> None:
    """Prints a line to standard output, unless the process is silent."""
    if shows():
        print(line, flush=True)


def note(line: str) -> None:
    """Prints a line about the data or the machine to standard error, unless the process is silent."""
    if shows():
        print(line, file=sys.stderr, flush=True)


def count(number: int, noun: str) -> str:
    """Returns a number of things as a message says it.

    Args:
        number: of them.
        noun: what one is called, such as "image" or "class".

    Example:
        >>> count(1, "class"), count(2, "class"), count(1200, "image")
        ('1 class', '2 classes', '1,200 images')
    """
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"
