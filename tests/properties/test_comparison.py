"""Differences between methods are taken seed by seed, however values are ordered."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_jax.reporting import comparison

VALUES = st.dictionaries(st.integers(0, 6), st.integers(0, 1000), min_size=1)


@given(VALUES, VALUES, st.randoms(use_true_random=False))
def test_differences_are_those_of_equal_seeds(first, second, random):
    results = [
        {"method": method, "seed": seed, "run": f"{method}{seed}", "loss": float(value)}
        for method, values in {"first": first, "second": second}.items()
        for seed, value in values.items()
    ]
    random.shuffle(results)
    # The first method is the one that comes first.
    results.sort(key=lambda result: result["method"])
    one, other = comparison.summarise(results, "loss")
    expected = [second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())]
    found = other["difference"]["values"]
    found = list(found.values()) if isinstance(found, Mapping) else found
    assert sorted(found) == sorted(expected)
    assert other["difference"]["n"] == len(expected)
    if expected:
        assert other["difference"]["mean"] == pytest.approx(sum(expected) / len(expected))
    assert one["values"] == first and other["values"] == second
