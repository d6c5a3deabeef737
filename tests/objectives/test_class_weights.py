"""Weights of classes by hand, and as scikit-learn and the authors of the paper compute them."""

import numpy as np
import pytest

from tl_jax.errors import InputError
from tl_jax.objectives import class_weights


def test_balanced_weights_by_hand():
    # 12 examples, 3 classes that have some: 12 / (3 * 6), 12 / (3 * 2), none, 12 / (3 * 4).
    weights = class_weights.balanced([6, 2, 0, 4])
    np.testing.assert_allclose(weights, [2 / 3, 2, 0, 1])
    # The mean over examples is 1.
    assert (weights * [6, 2, 0, 4]).sum() == pytest.approx(12)


def test_balanced_weights_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = np.random.default_rng(0).choice(4, 100, p=[0.5, 0.3, 0.15, 0.05])
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(class_weights.balanced(np.bincount(labels)), expected)


def test_effective_weights_by_hand():
    """With beta 1/2 the effective numbers of 1, 2 and 3 examples are 1, 3/2 and 7/4."""
    inverse = np.array([1, 2 / 3, 4 / 7])
    expected = 3 * inverse / inverse.sum()
    np.testing.assert_allclose(class_weights.effective([1, 2, 3], 0.5), expected)
    without = class_weights.effective([1, 0, 2, 3], 0.5)
    np.testing.assert_allclose(without, np.insert(expected, 1, 0.0))


def test_effective_weights_between_none_and_balanced():
    counts = [100, 20, 5]
    np.testing.assert_allclose(class_weights.effective(counts, 0.0), 1)
    balanced = class_weights.balanced(counts)
    nearly = class_weights.effective(counts, 1 - 1e-9)
    np.testing.assert_allclose(nearly / nearly[0], balanced / balanced[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: class_weights.balanced([0, 0]), "not all of them 0"),
        (
            lambda: class_weights.effective([1, 2], 1.0),
            r"beta is 1.0, expected a number in \[0, 1\)",
        ),
        (lambda: class_weights.from_counts("inverse", [1, 2]), "weighting of classes 'inverse'"),
    ],
)
def test_weights_that_cannot_be_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
