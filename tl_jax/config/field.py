"""One field of a config: its default, what it may hold, and what it is for."""

import ast
import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

from tl_jax.errors import is_inside, unknown

LARGEST = 2**31 - 1  # of integers, which are int32 where they reach a device

_KINDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    tuple: "a tuple",
    dict: "a section",
}
_PLURALS = {int: "integers", float: "numbers", str: "texts", tuple: "tuples of assignments"}
_EXAMPLES = {
    int: "(1, 2)",
    float: "(0.1, 0.2)",
    str: '("text",)',
    tuple: '(("optim.learning_rate=0.1",), ("train.steps=10",)) with all of its commas',
}
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
        name: dotted, such as "optim.learning_rate".
        default: its type is the field's.
        help: what it is, in one line.
        within: the interval of a number, or of every number of a tuple, such as "[0, 1)"; "" for any.
        choices: returns the texts that are allowed, or that every text of a tuple may be; None for any.
        element: the type of a tuple's elements, `tuple` for tuples of texts; None for any.
        own: whether `own:NAME` is allowed too, for an object that is given in Python.
        changes_numbers: whether it can change a number of the result. Of the others, which say where or how
            fast it is computed, what is written and when, two values are the same run.
    """

    name: str
    default: Any
    help: str
    within: str = ""
    choices: Callable[[], Iterable[str]] | None = None
    element: type | None = None
    own: bool = False
    changes_numbers: bool = True

    @property
    def kind(self) -> type:
        """The type of its values."""
        return type(self.default)

    @property
    def section(self) -> str:
        """The part of the name before the first dot; "" for a field outside of all sections."""
        return self.name.partition(".")[0] if "." in self.name else ""

    @property
    def expected(self) -> str:
        """What type of value it takes, in words."""
        if self.kind is tuple and self.element:
            return f"a tuple of {_PLURALS[self.element]}, such as {_EXAMPLES[self.element]}"
        return _KINDS[self.kind]

    @property
    def allowed(self) -> str:
        """Which values it takes, in words; "" where its type says all."""
        if self.choices is not None:
            each = "each " if self.kind is tuple else ""
            return f"{each}one of " + ", ".join(repr(choice) for choice in self.choices())
        if not self.within:
            return ""
        plural = self.kind is tuple
        if int in (self.kind, self.element):
            least, most = self.within[1:-1].split(", ")
            return f"{'integers' if plural else 'an integer'} from {least} to {most}"
        return f"{'numbers' if plural else 'a number'} in {self.within}"

    def type_problem(self, value: object) -> str | None:
        """Returns what is wrong with the type of a value, or None; a number may be given as an integer."""
        if self.kind is tuple and isinstance(value, tuple | list):
            wrong = self.element and any(not _has_type(held, self.element) for held in value)
            return f"{self.name}={tuple(value)!r}: expected {self.expected}" if wrong else None
        if self.kind is dict and hasattr(value, "items"):
            return None
        return (
            None
            if _has_type(value, self.kind)
            else f"{self.name}={value!r}: expected {self.expected}"
        )

    def value_problem(self, value: Any) -> str | None:
        """Returns why a value of the right type is not allowed, or None."""
        if self.own and isinstance(value, str) and value.startswith("own:"):
            return None
        if self.choices is not None:
            known = list(self.choices())
            others = [
                one for one in (value if self.kind is tuple else (value,)) if one not in known
            ]
            return str(unknown(self.name, others[0], known)) if others else None
        if not self.within:
            return None
        numbers = value if self.kind is tuple else (value,)
        if all(is_inside(number, self.within) for number in numbers):
            return None
        shown = tuple(value) if self.kind is tuple else value
        return f"{self.name}={shown}: expected {self.allowed}"

    def parse(self, text: str) -> object:
        """Returns the value that a text on the command line stands for.

        Raises:
            ValueError: if it is no value of the field's type.
        """
        try:
            value = _parsed(text, self.kind)
        except SyntaxError as error:
            raise ValueError(text) from error
        if self.type_problem(value):
            raise ValueError(text)
        return value


def integer(name: str, default: int, least: int, most: int, help: str, **more: Any) -> Field:
    """Returns a field that holds an integer in an interval."""
    return Field(name, default, help, within=f"[{least}, {most}]", **more)


def numbers(name: str, within: str, help: str) -> Field:
    """Returns a field that holds any number of numbers in an interval; none by default."""
    return Field(name, (), help, within=within, element=float)


def choice(name: str, default: str, choices: Any, help: str, **more: Any) -> Field:
    """Returns a field that holds one of some texts; `choices` is these, or returns them."""
    listed = choices if callable(choices) else lambda: choices
    return Field(name, default, help, choices=listed, **more)


def _has_type(value: object, kind: type) -> bool:
    if kind is float and type(value) in (int, float):
        return math.isfinite(value)  # type: ignore[arg-type]
    if kind is tuple:  # of texts; a config read back from its JSON holds lists
        return isinstance(value, tuple | list) and all(isinstance(text, str) for text in value)
    return type(value) is kind


def _parsed(text: str, kind: type) -> object:
    if kind is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ValueError(text)
        return text.lower() in _TRUE
    if kind is int:
        return int(text, 0) if text.lower().lstrip("+-").startswith(("0x", "0o")) else int(text)
    if kind is float:
        return float(text)
    if kind is tuple:
        return _tuple(text)
    return text


def _tuple(text: str) -> tuple:
    """Returns what a text stands for: a literal, one text that needs no quotes, names with commas, or nothing."""
    if not text.strip():
        return ()
    try:
        value = ast.literal_eval(text)
    except ValueError:
        names = [part.strip() for part in text.split(",")]
        value = names if all(name.isidentifier() for name in names) else text
    except SyntaxError:
        if "," in text or " " in text:
            raise
        value = text
    return tuple(value) if isinstance(value, tuple | list | set) else (value,)
