"""Means over seeds, paired differences and single runs, against values computed by hand."""

import math

import numpy as np
import pytest

from tl_jax import statistics

# t(1), t(2), t(3) at 97.5%, from printed tables.
T1, T2, T3 = 12.7062, 4.30265, 3.18245


def test_three_seeds_by_hand():
    # Squared deviations 4, 0, 4 over 2: standard deviation 2.
    found = statistics.mean_over_seeds([90.0, 92.0, 94.0])
    assert (found.n, found.mean, found.sample_std) == (3, 92.0, 2.0)
    half = T2 * 2.0 / math.sqrt(3)
    assert found.interval == pytest.approx((92.0 - half, 92.0 + half), abs=1e-4)


def test_two_seeds_have_a_wide_interval():
    found = statistics.mean_over_seeds([0.4, 0.6])
    # Half the distance times t(1): the standard error of two values is half their distance.
    assert found.interval == pytest.approx((0.5 - 0.1 * T1, 0.5 + 0.1 * T1), abs=1e-5)


def test_one_seed_has_no_interval():
    found = statistics.mean_over_seeds([0.8])
    assert found == statistics.Mean(1, 0.8, None, None)


def test_no_seed_has_no_mean():
    assert statistics.mean_over_seeds([]) == statistics.Mean(0, None, None, None)


def test_equal_values_have_an_interval_of_width_zero():
    assert statistics.mean_over_seeds([0.5, 0.5, 0.5]).interval == (0.5, 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_run_is_not_left_out(value):
    found = statistics.mean_over_seeds([0.5, value, 0.6])
    assert found.n == 3 and found.interval is None
    assert math.isnan(found.mean) and math.isnan(found.sample_std)
    alone = statistics.mean_over_seeds([value])
    assert math.isnan(alone.mean) and alone.sample_std is None and alone.interval is None


def test_the_difference_is_that_of_pairs():
    """The values rise with the seed far more than the methods differ: unpaired, nothing would be seen."""
    baseline = {0: 0.10, 1: 0.40, 2: 0.70}
    values = {2: 0.73, 0: 0.12, 1: 0.41}
    found = statistics.paired_difference(values, baseline)
    assert found.values == pytest.approx({0: 0.02, 1: 0.01, 2: 0.03})
    assert found.mean == pytest.approx(0.02) and found.sample_std == pytest.approx(0.01)
    half = T2 * 0.01 / math.sqrt(3)
    assert found.interval == pytest.approx((0.02 - half, 0.02 + half), abs=1e-6)
    assert found.n == 3 and found.unpaired == ()


def test_only_common_seeds_are_paired():
    found = statistics.paired_difference({0: 1.0, 3: 4.0, 5: 9.0}, {5: 5.0, 0: 2.0, 7: 100.0})
    assert found.values == {0: -1.0, 5: 4.0}
    assert (found.n, found.mean, found.unpaired) == (2, 1.5, (3, 7))
    half = T1 * 2.5
    assert found.interval == pytest.approx((1.5 - half, 1.5 + half), abs=1e-3)


def test_methods_without_a_common_seed_have_no_difference():
    found = statistics.paired_difference({0: 1.0}, {1: 1.0})
    assert (found.n, found.mean, found.interval, found.unpaired) == (0, None, None, (0, 1))


def test_a_diverged_run_makes_its_difference_not_finite():
    found = statistics.paired_difference({0: math.nan, 1: 0.5}, {0: 0.5, 1: 0.5})
    assert math.isnan(found.mean) and found.interval is None and found.n == 2


def test_intervals_cover_the_mean_as_often_as_they_say():
    """20,000 samples of four normal values: 95% of the intervals hold the true mean."""
    samples = np.random.default_rng(0).normal(3.0, 2.0, (20_000, 4))
    half = T3 * samples.std(1, ddof=1) / 2
    first = statistics.mean_over_seeds(samples[0].tolist())
    assert first.interval == pytest.approx(
        (samples[0].mean() - half[0], samples[0].mean() + half[0]), abs=1e-4
    )
    covered = np.mean([
        lower <= 3.0 <= upper
        for lower, upper in (statistics.mean_over_seeds(row.tolist()).interval for row in samples)
    ])  # fmt: skip
    assert covered == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize(
    ("correct", "examples", "interval"),
    [
        (50, 100, (0.4038, 0.5962)),
        (10, 10, (0.7225, 1.0)),
        (0, 10, (0.0, 0.2775)),
        (326, 500, (0.6092, 0.6924)),
    ],
)
def test_wilson_interval(correct, examples, interval):
    found = statistics.wilson_interval(correct, examples)
    assert found == pytest.approx(interval, abs=5e-5)
    assert found[0] <= correct / examples <= found[1]


@pytest.mark.parametrize(("correct", "examples"), [(0, 0), (3, 2), (-1, 2), (math.nan, 2)])
def test_wilson_of_what_is_no_accuracy(correct, examples):
    with pytest.raises(ValueError, match="correct: expected 0 to"):
        statistics.wilson_interval(correct, examples)
