"""One run compared with another on the same images: whether other images would say the same.

Shapes: N images, each classified correctly or not by both runs.
"""

import numpy as np

from tl_jax.errors import InputError
from tl_jax.statistics.intervals import LEVEL

_DRAWS = 10_000


def bootstrap_difference(
    correct: np.ndarray, other: np.ndarray, draws: int = _DRAWS, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Returns the accuracy of the one minus that of the other, and its interval over the choice of images.

    Images are drawn N times with replacement, both runs on the same ones, and the interval is between percentiles of
    the differences that come out. It does not cover the choice of the seeds of the two runs.

    Args:
        correct: bool [N], whether the one is right.
        other: bool [N], whether the other is.
        draws: of N images.
        seed: of the draws.

    Raises:
        InputError: without images, or if there are not as many of both.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    first, second, both = discordant(correct, other)
    total = first + second + both
    # N draws from the images are N draws from the three kinds that there are.
    shares = np.array([first, second, both]) / total
    drawn = np.random.default_rng(seed).multinomial(total, shares, size=draws)
    differences = (drawn[:, 0] - drawn[:, 1]) / total
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return (first - second) / total, (float(low), float(high))


def mcnemar(correct: np.ndarray, other: np.ndarray) -> float:
    """Returns the two-sided p-value of the exact test that two runs are right equally often.

    Only images that one of them alone has right count; if the runs are alike, each is that one in half of them.

    Args:
        correct: bool [N], whether the one is right.
        other: bool [N], whether the other is.

    Raises:
        InputError: as `bootstrap_difference`.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions".

    Example:
        >>> mcnemar(np.arange(10) < 6, np.zeros(10, bool))
        0.03125
    """
    import scipy.special  # late: it holds up the start of every command

    first, second, _ = discordant(correct, other)
    if not first + second:
        return 1.0
    tail = scipy.special.bdtr(min(first, second), first + second, 0.5)
    return float(min(1.0, 2 * tail))


def discordant(correct: np.ndarray, other: np.ndarray) -> tuple[int, int, int]:
    """Returns how many images only the one has right, only the other, and both or none.

    Args:
        correct: bool [N], whether the one is right.
        other: bool [N], whether the other is.

    Raises:
        InputError: as `bootstrap_difference`.

    Example:
        >>> discordant(np.array([True, True, False]), np.array([False, False, True]))
        (2, 1, 0)
    """
    correct, other = (np.asarray(given, bool) for given in (correct, other))
    if correct.ndim != 1 or correct.shape != other.shape or not len(correct):
        raise InputError(
            f"two runs on images {list(correct.shape)} and {list(other.shape)}: expected the same images, at "
            "least one"
        )
    first, second = int((correct & ~other).sum()), int((other & ~correct).sum())
    return first, second, len(correct) - first - second
