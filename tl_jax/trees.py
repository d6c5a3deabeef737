"""Leaf names, pattern matching and tree comparison.

A tree is a nested dict of arrays; the name of a leaf is its path joined by "/", such as
`stage2/block0/conv1/kernel`: the same string in patterns, logs, errors and checkpoints.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tl_jax.errors import InputError, nearest

Tree = Mapping[str, Any]


def flatten(tree: Tree, separator: str = "/") -> dict[str, Any]:
    """Returns {leaf name: leaf} of a nested dict, in the order of the tree.

    Args:
        tree: of which an empty dict has no leaves.
        separator: between the parts of a name; the one of parameters by default.
    """
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            below = flatten(value, separator)
            flat.update({f"{key}{separator}{name}": leaf for name, leaf in below.items()})
        else:
            flat[key] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict whose leaves are named by the keys of `flat`; undoes `flatten`."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *path, last = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def match(patterns: Iterable[str], names: Iterable[str]) -> dict[str, list[str]]:
    """Returns, for each pattern, the names that it matches in full (`re.fullmatch`).

    Raises:
        InputError: if a pattern is no regular expression or matches nothing; all such patterns are
            listed in one message, each with the nearest names.
    """
    names = list(names)
    matches, problems = {}, []
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            problems.append(f"{pattern!r} is not a regular expression ({error})")
            continue
        matches[pattern] = [name for name in names if expression.fullmatch(name)]
        if not matches[pattern]:
            stems = sorted({prefix for name in names for prefix in _prefixes(name)})
            near = nearest(re.sub(r"[/.*+()\[\]\\^$?]+$", "", pattern), stems)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            problems.append(f"pattern {pattern!r} matches no leaf{hint}")
    if problems:
        example = f" named like {names[0]!r}" if names else ""
        raise InputError("\n".join([*problems, f"there are {len(names)} leaves{example}"]))
    return matches


def numbers(
    texts: Iterable[str], names: Iterable[str], what: str, hint: str = ""
) -> dict[str, float]:
    """Returns {leaf name: number} of texts such as `stage[12]/.*=0.1`; in order, the first match of a leaf wins.

    Args:
        texts: each a regular expression matched in full, and a number above 0 after the last `=`.
        names: of all leaves; those without a match are not in what is returned.
        what: how messages call a text.
        hint: what to do instead of a number that is not above 0.

    Raises:
        InputError: listing every text that is malformed, matches nothing, or comes too late to have an effect.
    """
    names = list(names)
    parsed, problems = [], []
    for text in texts:
        pattern, equals, number = text.rpartition("=")
        value = _positive(number)
        if equals and pattern and value is not None:
            parsed.append((pattern, value))
        else:
            problems.append(
                f"{what} {text!r}: expected PATTERN=NUMBER with a number above 0"
                + (f" ({hint})" if hint else "")
            )
    if problems:
        raise InputError("\n".join(problems))
    matches = match([pattern for pattern, _ in parsed], names)
    found: dict[str, float] = {}
    for pattern, value in parsed:
        fresh = [name for name in matches[pattern] if name not in found]
        if not fresh:
            problems.append(f"{what} {pattern!r} has no effect: earlier ones match first")
        found.update(dict.fromkeys(fresh, value))
    if problems:
        raise InputError("\n".join(problems))
    return found


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _prefixes(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def differences(given: Tree, expected: Tree) -> list[str]:
    """Returns one sorted line for every leaf that is missing, extra, misshapen or wrongly typed."""
    given, expected = flatten(given), flatten(expected)
    lines = [f"{name}: missing" for name in expected.keys() - given.keys()]
    lines += [f"{name}: not expected" for name in given.keys() - expected.keys()]
    for name in given.keys() & expected.keys():
        found, wanted = given[name], expected[name]
        if np.shape(found) != np.shape(wanted):
            lines.append(f"{name}: shape {np.shape(found)}, expected {np.shape(wanted)}")
        elif found.dtype != wanted.dtype:
            lines.append(f"{name}: dtype {found.dtype}, expected {wanted.dtype}")
    return sorted(lines)


def count(tree: Tree) -> int:
    """Returns the number of scalars in all leaves."""
    return sum(int(np.prod(np.shape(leaf))) for leaf in flatten(tree).values())


def num_bytes(tree: Tree) -> int:
    """Returns the bytes that all leaves take."""
    return sum(
        int(np.prod(np.shape(leaf))) * leaf.dtype.itemsize for leaf in flatten(tree).values()
    )
