"""Features judged image by image: against loops and scikit-learn."""

import numpy as np
import pytest

from tl_jax.advice import judging


@pytest.fixture(scope="module")
def blobs():
    """Returns features of three classes that overlap, on scales that differ, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    centres = rng.normal(size=(3, 6))
    features = centres[labels] + 0.9 * rng.normal(size=(60, 6))
    return (features * 10.0 ** np.arange(-2, 4)).astype(np.float32), labels


def standardised(features, train, test):
    mean, spread = features[train].mean(0), features[train].std(0)
    return (features[train] - mean) / spread, (features[test] - mean) / spread


def test_folds_are_stratified_and_no_more_than_the_smallest_class_has():
    labels = np.array([0] * 10 + [1] * 3)
    splits = judging.folds(labels, 5, seed=1)
    assert len(splits) == 3
    seen = np.concatenate([test for _, test in splits])
    assert sorted(seen) == list(range(13))
    for train, test in splits:
        assert set(labels[test]) == {0, 1} and not set(train) & set(test)
    assert len(judging.folds(np.array([0, 0, 1, 1]), 5, 0)) == 2
    others = judging.folds(labels, 5, seed=2)
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(splits, others, strict=True))


def test_neighbors_by_a_loop(blobs):
    features, labels = blobs
    splits = judging.folds(labels, 4, seed=0)
    expected = np.zeros(len(labels), bool)
    for train, test in splits:
        seen, new = standardised(features, train, test)
        unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
        distances = 1 - unit(new) @ unit(seen).T
        for row, place in zip(distances, test, strict=True):
            votes = np.bincount(labels[train][np.argsort(row)[:5]], minlength=3)
            expected[place] = votes.argmax() == labels[place]
    found = judging.nearest_neighbors(features, labels, splits)
    np.testing.assert_array_equal(found, expected)
    assert 0.4 < found.mean() < 1


def test_regression_is_that_of_scikit_learn_at_the_best_strength(blobs):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = blobs
    splits = judging.folds(labels, 4, seed=0)
    by_strength = []
    for strength in judging.STRENGTHS:
        right = np.zeros(len(labels), bool)
        for train, test in splits:
            seen, new = standardised(features, train, test)
            model = linear_model.LogisticRegression(C=1 / strength, tol=1e-6, max_iter=1000)
            right[test] = model.fit(seen, labels[train]).predict(new) == labels[test]
        by_strength.append(right)
    accuracies = [right.mean() for right in by_strength]
    assert len(set(accuracies)) > 1  # the choice matters
    found = judging.logistic_regression(features, labels, 3, splits)
    np.testing.assert_array_equal(found, by_strength[int(np.argmax(accuracies))])


def test_a_feature_that_is_constant_says_nothing(blobs):
    features, labels = blobs
    splits = judging.folds(labels, 4, seed=0)
    padded = np.concatenate([features, np.full((60, 2), 7.0, np.float32)], 1)
    np.testing.assert_array_equal(
        judging.nearest_neighbors(padded, labels, splits),
        judging.nearest_neighbors(features, labels, splits),
    )
