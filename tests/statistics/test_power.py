"""Seeds that a difference takes, against printed tables and simulated runs."""

import numpy as np
import pytest

from tl_jax import statistics


@pytest.mark.parametrize(
    ("of_std", "power", "expected"),
    # G*Power's paired t-test at the level 0.05, two-sided.
    [(1.0, 0.8, 10), (0.5, 0.8, 34), (0.2, 0.8, 199), (0.8, 0.9, 19)],
)
def test_seeds_by_the_size_of_the_difference(of_std, power, expected):
    assert statistics.seeds_needed(of_std * 0.03, 0.03, power) == expected
    assert statistics.seeds_needed(-of_std, 1.0, power) == expected


def test_seeds_of_extremes():
    assert statistics.seeds_needed(0.0, 0.1) is None
    assert statistics.seeds_needed(1e-9, 0.1) is None
    assert statistics.seeds_needed(0.1, 0.0) == 2
    assert statistics.seeds_needed(5.0, 0.1) == 2


def test_power_is_how_often_the_test_sees_it():
    random = np.random.default_rng(0)
    seen = [statistics.paired_t_test(random.normal(0.02, 0.02, 6)) < 0.05 for _ in range(2000)]
    assert statistics.power_of_pairs(6, 0.02, 0.02) == pytest.approx(np.mean(seen), abs=0.03)
    assert statistics.power_of_pairs(6, 0.0, 0.02) == pytest.approx(0.05, abs=1e-6)
