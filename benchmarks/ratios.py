"""How much faster one case is than another, from rounds in which both were timed."""

import math
from collections.abc import Sequence

from tl_jax.statistics import mean_over_seeds


def speed(
    times: Sequence[float], others: Sequence[float]
) -> tuple[float, tuple[float, float] | None]:
    """Returns the speed relative to the others: the geometric mean over rounds and its 95% t-interval.

    Args:
        times: of a round each.
        others: of the same rounds.

    Returns:
        The mean of `others / times`, and its interval; None with fewer than two rounds.

    Example:
        >>> mean, (low, high) = speed([50.0, 110.0, 95.0], [100.0, 200.0, 200.0])
        >>> round(mean, 2), round(low, 2), round(high, 2)
        (1.97, 1.64, 2.37)
    """
    logs = [math.log(other / own) for own, other in zip(times, others, strict=True)]
    mean = mean_over_seeds(logs)
    assert mean.mean is not None
    if mean.interval is None:
        return math.exp(mean.mean), None
    low, high = map(math.exp, mean.interval)
    return math.exp(mean.mean), (low, high)
