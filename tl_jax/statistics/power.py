"""How many seeds it takes to see a difference of a given size, from the spread that was measured."""

import math

from tl_jax.statistics.intervals import LEVEL

_MOST_SEEDS = 10_000


def power_of_pairs(seeds: int, difference: float, sample_std: float) -> float:
    """Returns the chance that the paired t-test sees a difference: that the 95% interval leaves out 0.

    Args:
        seeds: pairs of runs, at least 2.
        difference: the true mean of the differences of pairs.
        sample_std: of these differences, above 0.

    Source: of the noncentral t-distribution, Cohen 1988, "Statistical Power Analysis for the Behavioral
        Sciences", chapter 2.
    """
    import scipy.special  # late: it holds up the start of every command

    least = scipy.special.stdtrit(seeds - 1, (1 + LEVEL) / 2)
    shift = abs(difference) / sample_std * math.sqrt(seeds)
    below, above = (scipy.special.nctdtr(seeds - 1, shift, bound) for bound in (-least, least))
    return float(1 - above + below)


def seeds_needed(difference: float, sample_std: float, power: float = 0.8) -> int | None:
    """Returns the fewest seeds with which a difference is seen with this chance.

    The spread of a few pairs is itself uncertain, and so is the answer: from 3 seeds, by a factor of several.

    Args:
        difference: the true mean of the differences of pairs, not 0.
        sample_std: of these differences, as measured.
        power: the chance, in (0, 1).

    Returns:
        2 at least; None if more than 10,000 are needed, or the difference is 0.

    Example:
        >>> seeds_needed(0.01, 0.01), seeds_needed(0.01, 0.02)
        (10, 34)
    """
    if not difference:
        return None
    if not sample_std:
        return 2
    low, high = 1, 2
    while power_of_pairs(high, difference, sample_std) < power:
        low, high = high, 2 * high
        if low >= _MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if power_of_pairs(middle, difference, sample_std) < power:
            low = middle
        else:
            high = middle
    return high if high <= _MOST_SEEDS else None
