"""Weights of the classes in cross-entropy, from how many training examples each class has.

K: classes.
"""

from collections.abc import Sequence

import numpy as np

from tl_jax.errors import InputError, unknown

BALANCED, EFFECTIVE = "balanced", "effective"
WEIGHTINGS = (BALANCED, EFFECTIVE)


def balanced(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns N / (K n_c) for each class c of n_c examples, N in all: float64 [K].

    The mean weight of an example is 1. A class without examples has the weight 0 and is not among the K.

    Args:
        counts: examples of each class, [K].

    Source: scikit-learn, `compute_class_weight("balanced")`, after King and Zeng 2001, "Logistic regression in
    rare events data".

    Example:
        >>> balanced([30, 10]).round(4).tolist()
        [0.6667, 2.0]
    """
    counts = _checked(counts)
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 0.0)


def effective(counts: Sequence[int] | np.ndarray, beta: float) -> np.ndarray:
    """Returns weights proportional to (1 - beta) / (1 - beta^n_c), whose sum is K: float64 [K].

    The divisor is (1 - beta) times the effective number of the n_c examples of class c; with beta=0 all
    weights are 1, and towards 1 they come to be inverse to the numbers. A class without examples has the
    weight 0 and is not among the K.

    Args:
        counts: examples of each class, [K].
        beta: in [0, 1).

    Raises:
        InputError: if beta is outside [0, 1).

    Source: Cui et al. 2019 (arXiv:1901.05555), section 4.1; the sum as in section 4.2.

    Example:
        >>> effective([30, 10], 0.9).round(4).tolist()
        [0.8093, 1.1907]
    """
    counts = _checked(counts)
    if not 0 <= beta < 1:
        raise InputError(f"beta is {beta!r}, expected a number in [0, 1)")
    present = counts > 0
    weights = np.where(present, (1 - beta) / (1 - beta ** np.maximum(counts, 1)), 0.0)
    return weights * present.sum() / weights.sum()


def from_counts(
    weighting: str, counts: Sequence[int] | np.ndarray, beta: float = 0.999
) -> np.ndarray:
    """Returns the weights of one of `WEIGHTINGS`: float64 [K].

    Raises:
        InputError: if there is no such weighting.
    """
    if weighting not in WEIGHTINGS:
        raise unknown("weighting of classes", weighting, WEIGHTINGS)
    return balanced(counts) if weighting == BALANCED else effective(counts, beta)


def _checked(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    found = np.asarray(counts, np.float64)
    if found.ndim != 1 or (found < 0).any() or not found.sum():
        raise InputError(
            f"counts of classes {found.tolist()}: expected one number from 0 for each class, not all of them 0"
        )
    return found
