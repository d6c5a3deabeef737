"""Tests of pairs, against values enumerated by hand and by SciPy, and over simulated runs."""

import math

import numpy as np
import pytest
import scipy.stats

from tl_jax import statistics
from tl_jax.statistics import paired


def test_the_t_test_is_that_of_scipy():
    random = np.random.default_rng(0)
    for n in (2, 3, 5, 20):
        values = random.normal(0.3, 1.0, n)
        expected = scipy.stats.ttest_1samp(values, 0.0).pvalue
        assert statistics.paired_t_test(values) == pytest.approx(expected, rel=1e-9)


def test_the_t_test_and_the_interval_say_the_same():
    random = np.random.default_rng(1)
    seen = set()
    for _ in range(200):
        values = random.normal(1.0, 1.0, 4)
        low, high = statistics.mean_over_seeds(values).interval
        leaves_out = not low <= 0 <= high
        assert (statistics.paired_t_test(values) < 0.05) is leaves_out
        seen.add(leaves_out)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([0.1], None),
        ([0.1, math.nan], None),
        ([0.0, 0.0], 1.0),
        ([0.5, 0.5], None),
        ([0.3, 0.1 + 0.2], None),
    ],
)
def test_the_t_test_of_few_or_equal_values(values, expected):
    assert statistics.paired_t_test(values) == expected


def test_all_signs_by_hand():
    # Of the 8 choices of signs of 1, 2 and -4 (sum -1), sums are 7, 5, 3, 1 and their negatives: all as far as 1.
    assert statistics.sign_flip_test([1.0, 2.0, -4.0]) == 1.0
    # Of 1, 2 and 4 only the sum of all is as far as 7.
    assert statistics.sign_flip_test([1.0, 2.0, 4.0]) == 2 / 8
    # 1 + 1 - 1 is reached in 3 of 8 ways, -1 too, 3 and -3 once each.
    assert statistics.sign_flip_test([1.0, 1.0, -1.0]) == 1.0
    assert statistics.sign_flip_test([0.1] * 6) == 2 / 64


def test_equal_sums_count_whatever_the_rounding():
    """Sums of these, in the order of a product of matrices and in that of NumPy's sum, differ in the last bit."""
    assert statistics.sign_flip_test([0.02, 0.02, 0.03, 0.02]) == 2 / 16
    # All that sum up to 0 but for rounding.
    assert statistics.sign_flip_test([0.1, 0.2, -0.3]) == 1.0


def test_drawn_signs_are_about_all_signs(monkeypatch):
    values = np.random.default_rng(2).normal(0.3, 1.0, 12)
    exact = statistics.sign_flip_test(values)
    monkeypatch.setattr(paired, "_MOST_ENUMERATED", 4)
    drawn = statistics.sign_flip_test(values)
    assert drawn == statistics.sign_flip_test(values) != exact
    assert drawn == pytest.approx(exact, abs=0.01)
    assert statistics.sign_flip_test(np.full(30, 0.5)) == pytest.approx(1 / 100_001)


@pytest.mark.parametrize(("values", "expected"), [([], None), ([math.inf], None), ([0.1], 1.0)])
def test_signs_of_few_values(values, expected):
    assert statistics.sign_flip_test(values) == expected


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.9 times 4, 3, 2, 1; never less than the one before, never above 1.
    assert statistics.holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert statistics.holm([0.7, 0.6]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_false_differences_are_as_rare_as_they_say():
    """Of four variants that are alike some specs show a difference by intervals; corrected, at most one in twenty.

    Bounds are four standard errors of the share of 2,000 specs (0.005 at 0.05).
    """
    random = np.random.default_rng(3)
    specs, plain, corrected = 2000, 0, 0
    for _ in range(specs):
        baseline = random.normal(size=5)
        tests = [statistics.paired_t_test(random.normal(size=5) - baseline) for _ in range(4)]
        plain += min(tests) < 0.05
        corrected += min(statistics.holm(tests)) < 0.05
    assert 0.1 < plain / specs < 0.2
    assert 0.02 < corrected / specs < 0.07
