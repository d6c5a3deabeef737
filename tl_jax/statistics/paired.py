"""Tests of paired differences: whether what is seen over seeds could be chance.

Shapes: n differences, one for each seed that both methods have.
"""

import math
from collections.abc import Sequence

import numpy as np

from tl_jax.statistics.intervals import mean_over_seeds

# Beyond so many pairs, signs are drawn instead of enumerated.
_MOST_ENUMERATED = 16
_DRAWS = 100_000


def paired_t_test(differences: Sequence[float]) -> float | None:
    """Returns the two-sided p-value of Student's test that the mean difference is 0.

    It is below 0.05 exactly where the 95% interval of `intervals.paired_difference` leaves out 0 and has a width.

    Args:
        differences: n of them.

    Returns:
        None with fewer than two, or if one is not finite. Where all are the same: 1 if that is 0, else None, for
        without a spread there is nothing to hold the mean against.

    Example:
        >>> round(paired_t_test([0.02, 0.01, 0.03]), 4)
        0.0742
    """
    found = mean_over_seeds(differences)
    if found.mean is None or found.interval is None:
        return None
    if not found.sample_std:
        return None if found.mean else 1.0
    import scipy.special  # late: it holds up the start of every command

    t = abs(found.mean) / found.sample_std * math.sqrt(found.n)
    return float(2 * scipy.special.stdtr(found.n - 1, -t))


def sign_flip_test(differences: Sequence[float], seed: int = 0) -> float | None:
    """Returns the two-sided p-value of the permutation test of pairs.

    If two methods are alike, either of a pair could have had the other's value: a difference could as well have the
    other sign. The p-value is the share of all choices of signs whose mean is at least as far from 0. It assumes
    no distribution, and cannot be small with few pairs: the least is 2 / 2**n, which is 0.25 for 3 seeds and
    0.0625 for 5.

    Args:
        differences: n of them; up to 16, all 2**n choices are enumerated, beyond 100,000 are drawn.
        seed: of what is drawn.

    Returns:
        None without any, or if one is not finite.

    Source: Fisher 1935, "The Design of Experiments", section 21; of drawn permutations: Phipson and Smyth 2010,
        "Permutation p-values should never be zero".

    Example:
        >>> sign_flip_test([0.02, 0.01, 0.03])
        0.25
    """
    n = len(differences)
    if not n or not all(map(math.isfinite, differences)):
        return None
    values = np.asarray(differences, np.float64)
    if n <= _MOST_ENUMERATED:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(_as_far(1 - 2 * bits, values)))
    signs = np.random.default_rng(seed).choice((-1, 1), (_DRAWS, n))
    return float((1 + np.sum(_as_far(signs, values))) / (1 + _DRAWS))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values that are corrected for being several, in their order.

    If those below a level count as differences, the chance that there is a false one among them is at most that
    level.

    Args:
        p_values: of tests that are looked at together.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def _as_far(signs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns, for each row of signs, whether its mean is at least as far from 0 as that of the values."""
    seen = abs(values.sum())
    # But for rounding: sums of the same values in another order.
    return np.abs(signs @ values) >= seen - 1e-12 * np.abs(values).sum()
