"""How means, differences and single runs are printed."""

import math

import pytest

from tl_jax.reporting import intervals
from tl_jax.statistics import mean_over_seeds, paired_difference, wilson_interval


@pytest.mark.parametrize(
    ("values", "percent", "text"),
    [
        ([0.90, 0.92, 0.94], True, "92.00% (87.03 to 96.97)"),
        ([0.8], True, "80.00% (one seed, no interval)"),
        ([0.5, 0.5], True, "50.00% (50.00 to 50.00)"),
        ([0.5, math.nan], True, "not finite"),
        ([], True, "-"),
        ([1.0, 3.0], False, "2 (-10.71 to 14.71)"),
    ],
)
def test_means(values, percent, text):
    assert intervals.mean(mean_over_seeds(values), percent=percent) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({0: 0.95, 1: 0.96, 2: 0.97}, "+4.00 points (+1.52 to +6.48), n=3"),
        ({2: 0.90}, "-4.00 points (one seed, no interval), n=1"),
        ({7: 0.90}, "no common seed"),
        ({0: math.nan}, "not finite"),
    ],
)
def test_differences(values, text):
    baseline = {0: 0.90, 1: 0.92, 2: 0.94}
    assert intervals.difference(paired_difference(values, baseline)) == text


def test_the_interval_is_that_of_the_number_of_right_answers():
    """Divided and multiplied again, a count may come out just below itself."""
    for examples in (100, 500):
        for count in range(examples + 1):
            expected = wilson_interval(count, examples)
            assert intervals.of_accuracy(count / examples, examples) == expected, count


def test_a_single_run():
    split = {"top1_accuracy": 0.652, "examples": 500}
    assert intervals.single_run(split) == "65.20% (60.9 to 69.2), 500 images"
    split["top1_accuracy"] = math.nan
    assert intervals.single_run(split) == "not finite, 500 images"
