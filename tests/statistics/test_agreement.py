"""Agreement of two runs, against counts by hand and scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics

from tl_jax import statistics
from tl_jax.errors import InputError


def test_agreement_is_the_share_of_equal_predictions():
    first, second = np.array([0, 1, 2, 2, 1]), np.array([0, 1, 2, 0, 0])
    assert statistics.agreement(first, second) == 0.6
    assert statistics.agreement(first, first) == 1.0


def test_kappa_is_that_of_scikit_learn():
    draws = np.random.default_rng(0)
    first = draws.integers(0, 4, 200)
    second = np.where(draws.random(200) < 0.6, first, draws.integers(0, 5, 200))
    expected = sklearn.metrics.cohen_kappa_score(first, second)
    assert statistics.cohens_kappa(first, second) == pytest.approx(expected, abs=1e-12)
    assert statistics.cohens_kappa(first, first) == 1.0


def test_kappa_of_a_single_class_is_not_defined():
    assert statistics.cohens_kappa(np.ones(3, int), np.ones(3, int)) is None


@pytest.mark.parametrize("function", [statistics.agreement, statistics.cohens_kappa])
def test_other_images_are_refused(function):
    with pytest.raises(InputError, match=r"of images \[3\] and \[2\]: expected the same images"):
        function(np.zeros(3, int), np.zeros(2, int))
    with pytest.raises(InputError, match="at least one"):
        function(np.zeros(0, int), np.zeros(0, int))


def test_discordant_images_are_counted():
    first = np.array([True, True, True, False, False, True])
    second = np.array([True, False, False, False, True, True])
    assert statistics.discordant(first, second) == (2, 1, 3)
