"""Two runs on the same images, against counts by hand, SciPy and simulated images."""

import numpy as np
import pytest
import scipy.stats

from tl_jax import statistics
from tl_jax.errors import InputError


def runs(only_first, only_second, both, none=0):
    counts = (only_first, only_second, both, none)
    first = np.repeat([True, False, True, False], counts)
    second = np.repeat([False, True, True, False], counts)
    return first, second


def test_only_images_that_one_alone_has_right_count():
    assert statistics.mcnemar(*runs(6, 0, 4)) == 2 / 64
    assert statistics.mcnemar(*runs(0, 6, 100, 100)) == 2 / 64
    assert statistics.mcnemar(*runs(3, 3, 0)) == 1.0
    assert statistics.mcnemar(*runs(0, 0, 5)) == 1.0
    expected = scipy.stats.binomtest(9, 30, 0.5).pvalue
    assert statistics.mcnemar(*runs(9, 21, 500)) == pytest.approx(expected, rel=1e-9)


def test_the_bootstrap_draws_images():
    first, second = runs(30, 10, 900, 60)
    difference, (low, high) = statistics.bootstrap_difference(first, second)
    assert difference == pytest.approx(0.02)
    # Of a mean of N values in {-1, 0, 1} with 30 and 10 that are not 0.
    deviation = np.sqrt((40 / 1000 - 0.02**2) / 1000)
    assert low == pytest.approx(0.02 - 1.96 * deviation, abs=0.001)
    assert high == pytest.approx(0.02 + 1.96 * deviation, abs=0.001)
    drawn = np.random.default_rng(7).integers(0, 1000, (4000, 1000))
    by_image = (first[drawn].mean(1) - second[drawn].mean(1)).std()
    again = statistics.bootstrap_difference(first, second, seed=1)
    assert (again[1][1] - again[1][0]) / (2 * 1.96) == pytest.approx(by_image, rel=0.06)
    assert statistics.bootstrap_difference(first, second)[1] == (low, high)
    assert statistics.bootstrap_difference(second, first)[0] == -difference


def test_the_bootstrap_draws_pairs():
    """Where one alone is right on most images, the other is wrong on the same ones."""
    _, (low, high) = statistics.bootstrap_difference(*runs(500, 400, 50, 50))
    deviation = np.sqrt((0.9 - 0.1**2) / 1000)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.05)


def test_the_bootstrap_covers_the_difference_as_often_as_it_says():
    random = np.random.default_rng(4)
    repeats, images, covered = 600, 1000, 0
    for repeat in range(repeats):
        kinds = random.choice(4, images, p=[0.06, 0.04, 0.8, 0.1])
        first, second = np.isin(kinds, (0, 2)), np.isin(kinds, (1, 2))
        _, (low, high) = statistics.bootstrap_difference(first, second, 1000, repeat)
        covered += low <= 0.02 <= high
    assert 0.93 < covered / repeats < 0.97


def test_other_images_are_refused():
    for function in (statistics.mcnemar, statistics.bootstrap_difference):
        with pytest.raises(InputError, match=r"\[3\] and \[2\]: expected the same images"):
            function(np.ones(3, bool), np.ones(2, bool))
        with pytest.raises(InputError, match="at least one"):
            function(np.ones(0, bool), np.ones(0, bool))
