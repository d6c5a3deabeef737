"""Soups: the mean of the weights of several networks that began alike.

Source: Wortsman et al. 2022, "Model soups" (arXiv:2203.05482), section 2.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from tl_jax import trees

SOUPS = ("uniform", "greedy")


def mean(ingredients: Sequence[trees.Tree]) -> trees.Tree:
    """Returns the mean of trees of arrays, in the type of the first; what is the same in all stays as it is.

    Args:
        ingredients: nested dicts of arrays of the same names and shapes, one or more.

    Example:
        >>> mean([{"a": np.float32([0.0])}, {"a": np.float32([1.0])}])
        {'a': array([0.5], dtype=float32)}
    """

    def of(*leaves: Any) -> np.ndarray:
        whole = sum(np.asarray(leaf, np.float64) for leaf in leaves)
        return np.asarray(whole / len(leaves), np.asarray(leaves[0]).dtype)

    return jax.tree.map(of, *ingredients)


def greedy(
    values: Sequence[float], measure: Callable[[tuple[int, ...]], float], sign: int = 1
) -> tuple[int, ...]:
    """Returns the members of a greedy soup, in the order in which they were added.

    From the best member to the worst, each is added if the soup is no worse with it; of equals the first comes first,
    and members whose value is not finite are left out.

    Args:
        values: of each member by itself.
        measure: the value of the soup of these members.
        sign: 1 where more is better, -1 where less is.

    Source: algorithm 1 of the paper.

    Example:
        >>> greedy([0.5, 0.7, 0.6], lambda members: {(1, 2): 0.6, (1, 0): 0.8}[members])
        (1, 0)
    """
    finite = [place for place, value in enumerate(values) if math.isfinite(value)]
    order = sorted(finite, key=lambda place: -sign * values[place])
    chosen, best = tuple(order[:1]), values[order[0]] if order else math.nan
    for place in order[1:]:
        value = measure((*chosen, place))
        if sign * value >= sign * best:
            chosen, best = (*chosen, place), value
    return chosen
