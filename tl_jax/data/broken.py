"""Images that cannot be read: all of them are found before one error names them."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from tl_jax.errors import InputError

_SHOWN = 20

T = TypeVar("T")


class BrokenImages(InputError):
    """Some images cannot be read.

    Args:
        problems: what is wrong, an image each; the message shows the first twenty.
        leave_out: what leaves them out, as the message advises; "" where nothing does.

    Attributes:
        problems: the same, sorted, without repetitions.
    """

    def __init__(self, problems: Iterable[str], leave_out: str = "--config.data.unreadable=skip"):
        self.problems = tuple(sorted(set(problems)))
        self._leave_out = leave_out
        count = len(self.problems)
        lines = [
            f"{count} image{'s' if count != 1 else ''} cannot be used:",
            *self.problems[:_SHOWN],
        ]
        if count > _SHOWN:
            lines.append(f"and {count - _SHOWN} more")
        super().__init__(
            "\n  ".join(lines)
            + "\nRemove them, replace them or make them readable, then start again"
            + f"; or leave them out: {leave_out}" * bool(leave_out)
        )

    def __reduce__(self):
        """Pickles by the problems, as the message does not contain all of them."""
        return BrokenImages, (self.problems, self._leave_out)


def gather(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Returns what each of `calls` returns.

    Raises:
        BrokenImages: after all calls, with the problems of all that raised it.
    """
    returned: list[T] = []
    problems: list[str] = []
    for call in calls:
        try:
            returned.append(call())
        except BrokenImages as error:
            problems += error.problems
    if problems:
        raise BrokenImages(problems)
    return returned
