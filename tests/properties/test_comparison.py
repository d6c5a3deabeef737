"""Differences between variants are taken seed by seed, however values are ordered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_jax.ablation import Spec, analysis
from tl_jax.config import default_config

VALUES = st.dictionaries(st.integers(0, 6), st.integers(0, 1000), min_size=1)


@given(VALUES, VALUES, st.randoms(use_true_random=False))
def test_differences_are_those_of_equal_seeds(first, second, random):
    rows = [
        {
            "variant": variant,
            "shots": 0,
            "trial": 0,
            "seed": seed,
            "status": "finished",
            "validation": 0.0,
            "test": float(value),
        }
        for variant, values in {"first": first, "second": second}.items()
        for seed, value in values.items()
    ]
    random.shuffle(rows)
    made = Spec(default_config(), {"first": (), "second": ()}, range(7), metric="loss")
    one, other = analysis.summarise(made, rows, analysis.choose(made, rows), "test")
    expected = {seed: float(second[seed] - first[seed]) for seed in first.keys() & second.keys()}
    assert other["difference"]["values"] == expected
    assert other["difference"]["n"] == len(expected)
    if expected:
        mean = sum(expected.values()) / len(expected)
        assert other["difference"]["mean"] == pytest.approx(mean)
    for row, values in ((one, first), (other, second)):
        assert row["test"]["n"] == len(values)
        assert row["test"]["mean"] == pytest.approx(sum(values.values()) / len(values))
    assert one["difference"] is None
