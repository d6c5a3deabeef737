"""Means of weights, and the greedy choice of what is in them."""

import math

import numpy as np
import pytest

from tl_jax.training import soups


def test_the_mean_is_that_of_numpy():
    rng = np.random.default_rng(0)
    given = [{"a": {"b": rng.normal(size=(3, 2)).astype(np.float32)}} for _ in range(5)]
    found = soups.mean(given)["a"]["b"]
    expected = np.mean([one["a"]["b"] for one in given], axis=0, dtype=np.float64)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_what_is_the_same_in_all_stays_to_the_bit(count):
    leaf = np.random.default_rng(1).normal(size=100).astype(np.float32)
    np.testing.assert_array_equal(soups.mean([{"a": leaf}] * count)["a"], leaf)


def recorded(values):
    """Returns a measure from a table, and the soups that it was asked for."""
    asked = []

    def measure(members):
        asked.append(members)
        return values[members]

    return measure, asked


def test_members_are_tried_from_the_best_to_the_worst():
    measure, asked = recorded({(1, 3): 0.75, (1, 3, 2): 0.7, (1, 3, 0): 0.75})
    assert soups.greedy([0.4, 0.7, 0.5, 0.6], measure) == (1, 3, 0)
    assert asked == [(1, 3), (1, 3, 2), (1, 3, 0)]


def test_a_soup_that_is_worse_than_its_best_member_is_not_made():
    measure, asked = recorded({(0, 1): 0.69, (0, 2): 0.6})
    assert soups.greedy([0.7, 0.65, 0.6], measure) == (0,) and asked == [(0, 1), (0, 2)]


def test_what_is_added_has_to_beat_the_soup_so_far():
    measure, _ = recorded({(0, 1): 0.9, (0, 1, 2): 0.8})
    assert soups.greedy([0.7, 0.65, 0.6], measure) == (0, 1)


def test_of_a_loss_less_is_better():
    measure, asked = recorded({(2, 1): 0.3, (2, 1, 0): 0.4})
    assert soups.greedy([0.9, 0.5, 0.4], measure, sign=-1) == (2, 1) and asked[0] == (2, 1)


def test_members_without_a_finite_value_are_left_out():
    measure, _ = recorded({(2, 1): 0.4})
    assert soups.greedy([math.nan, 0.3, 0.5, math.inf], lambda members: 0.0, sign=-1)[0] == 1
    assert soups.greedy([math.nan, 0.3, 0.5], measure) == (2,)
    assert soups.greedy([math.nan], measure) == ()
