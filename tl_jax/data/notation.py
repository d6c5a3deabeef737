"""The split notation of tfds: `train`, `train[:80%]`, `train[5000:]`, `train[:50%]+test`.

Source: https://www.tensorflow.org/datasets/splits; percentages are rounded to the nearest example.
"""

import dataclasses
import re

from tl_jax.errors import InputError

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

    def bounds(self, num_examples: int) -> tuple[int, int]:
        """Returns the first index and the one after the last, of a split of `num_examples`.

        Raises:
            InputError: if a boundary lies outside the split or nothing is left between them.
        """
        start = 0 if self.start is None else _boundary(self.start, num_examples)
        stop = num_examples if self.stop is None else _boundary(self.stop, num_examples)
        if not 0 <= start < stop <= num_examples:
            raise InputError(
                f"{self.name}[{self.start or ''}:{self.stop or ''}] selects examples {start} to "
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


def _boundary(text: str, num_examples: int) -> int:
    if text.endswith("%"):
        percent = int(text[:-1])
        place = round(percent * num_examples / 100)
    else:
        place = int(text)
    return place + num_examples if text.startswith("-") else place
