"""The head of a network whose classes are those of the data, in another order.

K: classes. F: features that the head takes.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_jax.errors import InputError
from tl_jax.porting.report import PortReport

MATCHED_RULE = "in the data's order of classes, matched by name"
_SHOWN = 20


def are_named(class_names: Sequence[str]) -> bool:
    """Returns whether classes have names of their own, rather than the numbers 0 to K - 1."""
    return list(class_names) != [str(number) for number in range(len(class_names))]


def list_names(names: Sequence[str]) -> str:
    """Returns names of classes for a message, the first 20 and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    # Names such as "goldfish, Carassius auratus" hold commas.
    return "; ".join(names[:_SHOWN]) + more


def class_order(source: Sequence[str], target: Sequence[str]) -> list[int] | None:
    """Returns which class of `source` each class of `target` is; None where the order is the same.

    Args:
        source: names of the classes of a head, one for each column of its kernel.
        target: names of the classes of the data.

    Raises:
        InputError: if the names are not the same; lists those that only one of them has.

    Example:
        >>> class_order(["cat", "dog", "owl"], ["owl", "cat", "dog"])
        [2, 0, 1]
    """
    if list(source) == list(target):
        return None
    lines = [
        f"only in the {place}: {list_names(sorted(names))}"
        for place, names in (
            ("weights", set(source) - set(target)),
            ("data", set(target) - set(source)),
        )
        if names
    ]
    for place, names in (("weights", source), ("data", target)):
        twice = [name for name, count in collections.Counter(names).items() if count > 1]
        if twice:
            lines.append(f"more than once in the {place}: {list_names(sorted(twice))}")
    if lines:
        raise InputError(
            "\n".join(
                [
                    f"the head has {len(source)} classes, the data {len(target)}, and their names differ:",
                    *lines,
                ]
            )
        )
    places = {name: place for place, name in enumerate(source)}
    return [places[name] for name in target]


def reorder_head(variables: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """Returns the variables with the head's classes in another order.

    Args:
        variables: {"params": {"head": {"kernel": [F, K], "bias": [K]}, ...}, ...}; not changed.
        order: the present place of each class, as `class_order` returns it.
    """
    params = variables["params"]
    places = np.asarray(order)
    head = {name: leaf[..., places] for name, leaf in params["head"].items()}
    return {**variables, "params": {**params, "head": head}}


def with_matched_head(report: PortReport) -> PortReport:
    """Returns the account of a port after which the head's classes were put in the data's order."""
    entries = tuple(
        dataclasses.replace(row, rule="; ".join(filter(None, [row.rule, MATCHED_RULE])))
        if row.target.startswith("params/head/")
        else row
        for row in report.entries
    )
    return dataclasses.replace(report, entries=entries)
