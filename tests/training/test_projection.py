"""Features in two dimensions."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tl_jax.training.projection import project


def blobs(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    means = np.diag([3.0, 2.0, 1.0])[:classes]
    return (means[labels] + rng.normal(size=(count, 3))) * [1, 10, 0.1], labels


def test_principal_components_by_hand():
    """Three standardised features, the first two of them equal: half the variance and more is along both."""
    rows = np.array([[1, 1, 0], [-1, -1, 0], [1, 1, 1], [-1, -1, -1], [0, 0, 2], [0, 0, -2]], float)
    pca = project(rows, np.arange(6) % 2, np.array([[0.0, 0.0, 0.0], [3.0, 3.0, 0.0]]))[0]
    correlation = np.corrcoef(rows.T)
    values = np.sort(np.linalg.eigvalsh(correlation))[::-1]
    np.testing.assert_allclose(pca.shares, values[:2] / 3, rtol=1e-9)
    np.testing.assert_allclose(pca.points[0], [0, 0], atol=1e-7)
    assert pca.points.shape == (2, 2) and pca.points[1, 0] > 0


def test_discriminants_are_those_of_scikit_learn():
    """Of many examples the covariance is shrunk by next to nothing."""
    features, labels = blobs(6000, 3)
    drawn, _ = blobs(50, 3, seed=1)
    _, lda = project(features, labels, drawn)
    mean, std = features.mean(0), features.std(0)
    expected = LinearDiscriminantAnalysis(solver="svd").fit((features - mean) / std, labels)
    np.testing.assert_allclose(lda.shares, expected.explained_variance_ratio_, atol=2e-3)
    points = expected.transform((drawn - mean) / std)
    for axis in range(2):
        correlation = np.corrcoef(points[:, axis], lda.points[:, axis])[0, 1]
        assert abs(correlation) == pytest.approx(1, abs=1e-4)


def test_two_classes_have_one_discriminant():
    features, labels = blobs(100, 2)
    _, lda = project(features, labels, features[:7])
    assert lda.points.shape == (7, 1) and lda.shares == (pytest.approx(1.0),)


def test_axes_do_not_depend_on_what_is_drawn():
    """Discriminants separate the examples they are found on, also where features are noise."""
    features, labels = blobs(60, 3)
    drawn, _ = blobs(30, 3, seed=1)
    for few, all_of_them in zip(
        project(features, labels, drawn[:5]), project(features, labels, drawn), strict=True
    ):
        np.testing.assert_allclose(few.points, all_of_them.points[:5], rtol=1e-6)
        assert few.shares == all_of_them.shares


def test_without_two_examples_of_a_class_there_is_no_lda():
    (only,) = project(np.eye(3), np.arange(3), np.eye(3))
    assert only.name == "PCA"
