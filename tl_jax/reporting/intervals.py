"""Means, differences and single accuracies as text, with their 95% intervals."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from tl_jax import console, statistics
from tl_jax.statistics import Mean, PairedDifference

NONE = "-"
_Estimate = TypeVar("_Estimate", bound=Mean)


def of_fields(fields: Mapping[str, Any], kind: type[_Estimate]) -> _Estimate:
    """Returns a `Mean` or a `PairedDifference` from what its `to_json` returned; further fields are ignored."""
    return kind(**{field.name: fields[field.name] for field in dataclasses.fields(kind)})


def mean(estimate: Mean, *, percent: bool = True) -> str:
    """Returns "65.32% (60.64 to 70.00)"; without an interval the reason stands in its place.

    Args:
        estimate: of fractions where `percent`.
        percent: whether to print percent, or else the number as it is.

    Example:
        >>> mean(statistics.mean_over_seeds([0.9, 0.92, 0.94]))
        '92.00% (87.03 to 96.97)'
    """
    if estimate.mean is None:
        return NONE
    if not math.isfinite(estimate.mean):
        return "not finite"
    text = f"{100 * estimate.mean:.2f}%" if percent else f"{estimate.mean:.4g}"
    return f"{text} ({_bounds(estimate, percent, signed=False)})"


def difference(estimate: PairedDifference, *, percent: bool = True) -> str:
    """Returns "+12.24 points (+4.17 to +20.31), n=5"; points are percentage points.

    Example:
        >>> difference(statistics.paired_difference({0: 0.5, 1: 0.7}, {0: 0.4, 1: 0.6}))
        '+10.00 points (+10.00 to +10.00), n=2'
    """
    if estimate.mean is None:
        return "no common seed"
    if not math.isfinite(estimate.mean):
        return "not finite"
    text = f"{100 * estimate.mean:+.2f} points" if percent else f"{estimate.mean:+.4g}"
    return f"{text} ({_bounds(estimate, percent, signed=True)}), n={estimate.n}"


def half_width(estimate: Mean, *, percent: bool = True, signed: bool = False) -> str:
    """Returns "65.3 ± 4.7", for narrow tables; the mean alone where there is no interval.

    Args:
        estimate: of fractions where `percent`, and then as percent without its sign.
        percent: whether to print percent, or else the number as it is.
        signed: whether a positive mean has a sign.

    Example:
        >>> half_width(statistics.mean_over_seeds([0.9, 0.92, 0.94]))
        '92.0 ± 5.0'
    """
    if estimate.mean is None:
        return NONE
    if not math.isfinite(estimate.mean):
        return "not finite"
    sign = "+" if signed else ""
    form, scale = (".1f", 100) if percent else (".3g", 1)
    text = f"{scale * estimate.mean:{sign}{form}}"
    if estimate.interval is None:
        return text
    return f"{text} ± {scale * (estimate.interval[1] - estimate.mean):{form}}"


def single_run(split: Mapping[str, Any]) -> str:
    """Returns "65.20% (61.0 to 69.2), 500 images" for the metrics of a split.

    Args:
        split: with `top1_accuracy` in [0, 1] and `examples`.
    """
    accuracy, examples = split["top1_accuracy"], split["examples"]
    if not math.isfinite(accuracy):
        return f"not finite, {console.count(examples, 'image')}"
    lower, upper = of_accuracy(accuracy, examples)
    return f"{100 * accuracy:.2f}% ({100 * lower:.1f} to {100 * upper:.1f}), {console.count(examples, 'image')}"


def of_accuracy(accuracy: float, examples: int) -> tuple[float, float]:
    """Returns Wilson's interval of an accuracy in [0, 1] measured on `examples` images."""
    return statistics.wilson_interval(round(accuracy * examples), examples)


def _bounds(estimate: Mean, percent: bool, *, signed: bool) -> str:
    if estimate.interval is None:
        return "one seed, no interval"
    sign = "+" if signed else ""
    if percent:
        return " to ".join(f"{100 * bound:{sign}.2f}" for bound in estimate.interval)
    return " to ".join(f"{bound:{sign}.4g}" for bound in estimate.interval)
