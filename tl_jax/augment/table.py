"""Tables of augmentations: a name, a function and the range of its strength; `NAME=STRENGTH` in a config."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from tl_jax import errors
from tl_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Named:
    """A function with its strength.

    Attributes:
        name: without "=", such as "rotation".
        function: what is called, the strength its last argument.
        strength: how much of it.
    """

    name: str
    function: Callable[..., Any]
    strength: float

    def __call__(self, *arguments: Any) -> Any:
        """Returns what the function makes of `arguments` and the strength."""
        return self.function(*arguments, self.strength)

    def __str__(self) -> str:
        """Returns what stands for it in a config, such as "rotation=15"."""
        return f"{self.name}={repr(float(self.strength)).removesuffix('.0')}"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A function of a table.

    Attributes:
        function: see `Named`.
        strength: what its strength means, in one line.
        within: the interval of the strength, such as "(0, 1]".
    """

    function: Callable[..., Any]
    strength: str
    within: str


N = TypeVar("N", bound=Named)


class Table(Generic[N]):
    """The functions of one kind that a config can name.

    Attributes:
        entries: {name: entry}; users add theirs with `register`.
    """

    def __init__(self, kind: type[N], entries: dict[str, Entry]):
        """Begins with our entries, whose names cannot be taken."""
        self._kind, self._ours = kind, frozenset(entries)
        self.entries = dict(entries)

    def register(
        self,
        name: str,
        function: Callable[..., Any],
        strength: str = "",
        within: str = "[0, inf)",
        *,
        replace: bool = False,
    ) -> None:
        """Makes `NAME=STRENGTH` a name of `function` in configs.

        Args:
            name: without "=" and ":", and none of ours.
            function: takes the strength as its last argument.
            strength: what the strength means, in one line.
            within: the interval of the strength.
            replace: whether it takes the place of another one of that name, registered before.

        Raises:
            InputError: if the name is taken or cannot be written in a config.
        """
        if not name or set(name) & set("=: ,") or name in self._ours:
            raise InputError(
                f"register_{self._word}({name!r}): expected a name without '=', ':', ',' and spaces that is "
                f"none of {', '.join(sorted(self._ours))}"
            )
        if name in self.entries and self.entries[name].function != function and not replace:
            raise errors.taken(self._word, name)
        self.entries[name] = Entry(function, strength, within)

    def read(self, text: str) -> N:
        """Returns what `NAME=STRENGTH` stands for.

        Raises:
            InputError: if there is no such name, or the strength is no number of its range.
        """
        name, equals, number = text.partition("=")
        if name not in self.entries:
            raise errors.unknown(self._word, name, self.entries)
        entry = self.entries[name]
        try:
            strength = float(number) if equals else math.nan
        except ValueError:
            strength = math.nan
        if not errors.is_inside(strength, entry.within):
            meaning = f" ({entry.strength})" if entry.strength else ""
            raise InputError(f"{text!r}: expected {name}=NUMBER in {entry.within}{meaning}")
        return self._kind(name, entry.function, strength)

    @property
    def _word(self) -> str:
        return self._kind.__name__.lower()
