"""Intervals of accuracies: means over seeds, paired differences of two methods, and single runs.

All intervals are two-sided 95% intervals. Shapes: n values, one for each seed.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

LEVEL = 0.95
# Of the mean: a spread that is smaller is one of rounding alone.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean of n values with its spread and its interval.

    Attributes:
        n: number of values, those that are not finite included.
        mean: NaN if a value is not finite, None without values.
        sample_std: with divisor n - 1; None with fewer than two values, NaN if one is not finite.
        interval: lower and upper bound; None with fewer than two values or if one is not finite.
    """

    n: int
    mean: float | None
    sample_std: float | None
    interval: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes by name."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class PairedDifference(Mean):
    """The mean of the differences between runs of the same seed; n is the number of pairs.

    Attributes:
        values: {seed: difference}, in the order of the first method's seeds.
        unpaired: seeds that only one of the two methods has, sorted.
    """

    values: dict[int, float]
    unpaired: tuple[int, ...]


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """Returns the mean with its t-interval: mean ± t(n - 1) * sample_std / sqrt(n).

    The interval covers the choice of the seed, under the assumption that the values are about normally
    distributed; with the same examples evaluated for each seed it does not cover the choice of these.
    Values that are equal but for rounding have an interval of width zero. An interval of accuracies may reach beyond
    0 and 1.

    Args:
        values: one for each seed.

    Source: Student 1908, "The probable error of a mean".

    Example:
        >>> mean = mean_over_seeds([0.90, 0.92, 0.94])
        >>> round(mean.mean, 4), [round(bound, 4) for bound in mean.interval]
        (0.92, [0.8703, 0.9697])
    """
    n = len(values)
    if not n:
        return Mean(0, None, None, None)
    if not all(map(math.isfinite, values)):
        return Mean(n, math.nan, math.nan if n > 1 else None, None)
    mean = statistics.fmean(values)
    if n == 1:
        return Mean(1, mean, None, None)
    deviation = statistics.stdev(values)
    if deviation <= _ROUNDING * abs(mean):
        deviation = 0.0
    half = _t_quantile(n - 1) * deviation / math.sqrt(n)
    return Mean(n, mean, deviation, (mean - half, mean + half))


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float]
) -> PairedDifference:
    """Returns the mean of `values - baseline` over the seeds that both have, with its t-interval.

    Runs of one seed share their examples and their order, so that the difference of a pair varies less
    than the runs do; seeds that only one of the two has do not count.

    Args:
        values: {seed: value} of a method.
        baseline: {seed: value} of the method that it is compared with.

    Example:
        >>> difference = paired_difference({0: 0.75, 1: 0.5, 2: 0.5}, {1: 0.25, 0: 0.25})
        >>> difference.mean, difference.n, difference.unpaired
        (0.375, 2, (2,))
    """
    pairs = {seed: values[seed] - baseline[seed] for seed in values if seed in baseline}
    mean = mean_over_seeds(list(pairs.values()))
    return PairedDifference(
        mean.n,
        mean.mean,
        mean.sample_std,
        mean.interval,
        pairs,
        tuple(sorted(values.keys() ^ baseline.keys())),
    )


def wilson_interval(correct: float, examples: int) -> tuple[float, float]:
    """Returns the interval of an accuracy from one pass over a split.

    It covers the choice of the examples, not that of the seed.

    Args:
        correct: examples classified correctly, from 0 to `examples`.
        examples: at least 1.

    Raises:
        ValueError: if the numbers are out of range.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(50, 100)]
        [0.4038, 0.5962]
    """
    if examples < 1 or not 0 <= correct <= examples:
        raise ValueError(f"{correct} of {examples} correct: expected 0 to {examples} of 1 or more")
    z = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)
    fraction = correct / examples
    denominator = 1 + z**2 / examples
    centre = (fraction + z**2 / (2 * examples)) / denominator
    variance = fraction * (1 - fraction) / examples + z**2 / (4 * examples**2)
    half = z * math.sqrt(variance) / denominator
    # At 0 and 1 the bound is the fraction itself, which rounding may miss.
    lower = 0.0 if correct == 0 else max(0.0, centre - half)
    upper = 1.0 if correct == examples else min(1.0, centre + half)
    return lower, upper


def _t_quantile(degrees_of_freedom: int) -> float:
    # Imported here: SciPy would hold up the start of every command, and few of them need it.
    import scipy.special

    return float(scipy.special.stdtrit(degrees_of_freedom, (1 + LEVEL) / 2))
