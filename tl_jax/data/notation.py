"""The split notation of tfds: `train`, `train[:80%]`, `train[5000:]`, `train[:50%]+test`.

Source: https://www.tensorflow.org/datasets/splits; percentages are rounded to the nearest example.
"""

import dataclasses
import re
from collections.abc import Sequence

from tl_jax.errors import InputError

# Names that splits have in the wild, in lower case, and the part that such a split plays.
_ROLES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_PART = re.compile(r"(?P<name>[\w.-]+)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


@dataclasses.dataclass(frozen=True)
class Part:
    """One term of the notation.

    Attributes:
        name: the split it reads from.
        start: first boundary such as `10%` or `-500`; None for the beginning.
        stop: last boundary; None for the end.
    """

    name: str
    start: str | None
    stop: str | None

    def __str__(self) -> str:
        if self.start is None and self.stop is None:
            return self.name
        return f"{self.name}[{self.start or ''}:{self.stop or ''}]"

    def bounds(self, num_examples: int) -> tuple[int, int]:
        """Returns the first index and the one after the last, of a split of `num_examples`.

        Raises:
            InputError: if a boundary is outside the split or nothing is left between them.
        """
        if not num_examples:
            raise InputError(f"split {self.name!r} has no examples")
        start = 0 if self.start is None else _boundary(self.start, num_examples)
        stop = num_examples if self.stop is None else _boundary(self.stop, num_examples)
        if not 0 <= start < stop <= num_examples:
            raise InputError(
                f"{self} selects examples {start} to "
                f"{stop} of the {num_examples} in split {self.name!r}; expected one or more"
            )
        return start, stop


def parse(notation: str) -> list[Part]:
    """Returns the terms of a split in tfds notation.

    Raises:
        InputError: if it does not follow the notation.

    Example:
        >>> parse("train[:80%]+test")
        [Part(name='train', start=None, stop='80%'), Part(name='test', start=None, stop=None)]
    """
    parts = []
    for term in notation.split("+"):
        found = _PART.fullmatch(term.strip())
        if not found:
            raise InputError(
                f"split {notation!r} is not in tfds notation; expected a form like 'train', "
                "'train[:80%]', 'train[5000:]' or 'train+test'"
            )
        parts.append(Part(found["name"], found["start"], found["stop"]))
    return parts


def role(name: str) -> str:
    """Returns the part that a split of this name plays: `train`, `val`, `test` or "" for none of them.

    Example:
        >>> role("Training"), role("valid"), role("photos")
        ('train', 'val', '')
    """
    return _ROLES.get(name.lower(), "")


def find(name: str, split_names: Sequence[str]) -> str | None:
    """Returns the one of `split_names` that `name` means: itself, or the only one of the same role."""
    if name in split_names:
        return name
    alike = [choice for choice in split_names if role(name) and role(choice) == role(name)]
    return alike[0] if len(alike) == 1 else None


def _boundary(text: str, num_examples: int) -> int:
    if text.endswith("%"):
        percent = int(text[:-1])
        place = round(percent * num_examples / 100)
    else:
        place = int(text)
    return place + num_examples if text.startswith("-") else place
