"""Solvers by their names."""

import numpy as np
import pytest

from tl_jax.errors import InputError
from tl_jax.training import closed_form, logistic, solvers

FEATURES = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
LABELS = np.arange(40) % 4
FEATURES[np.arange(40), LABELS] += 1


def test_lbfgs_is_the_logistic_regression():
    found = solvers.solve(
        "lbfgs", FEATURES, LABELS, 4, [0.1, 10.0], max_evaluations=7, tolerance=1e-3
    )
    fits = logistic.fit(FEATURES, LABELS, 4, [0.1, 10.0], max_evaluations=7, tolerance=1e-3)
    np.testing.assert_array_equal(found.kernel, fits.kernel)
    np.testing.assert_array_equal(found.bias, fits.bias)
    assert [one["strength"] for one in found.facts] == [0.1, 10.0]
    assert [one["evaluations"] for one in found.facts] == fits.evaluations.tolist()
    assert [one["converged"] for one in found.facts] == fits.converged.tolist()


def test_ridge_has_a_head_for_each_strength():
    found = solvers.solve("ridge", FEATURES, LABELS, 4, [0.1, 10.0])
    heads = closed_form.ridge(FEATURES, LABELS, 4, [0.1, 10.0])
    np.testing.assert_allclose(found.kernel, heads.kernel, rtol=1e-6)
    assert found.kernel.dtype == found.bias.dtype == np.float32
    assert found.facts == ({"strength": 0.1}, {"strength": 10.0})


def test_nearest_mean_has_one_and_no_strength():
    found = solvers.solve("nearest_mean", FEATURES, LABELS, 4)
    heads = closed_form.nearest_mean(FEATURES, LABELS, 4)
    np.testing.assert_allclose(found.bias, heads.bias, rtol=1e-6)
    assert found.facts == ({},)
    with pytest.raises(InputError, match="nearest_mean has no strength"):
        solvers.solve("nearest_mean", FEATURES, LABELS, 4, [1.0])


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="unknown solver 'rigde'; nearest: ridge"):
        solvers.solve("rigde", FEATURES, LABELS, 4, [1.0])
