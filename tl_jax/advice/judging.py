"""How well classes are told apart by features, image by image, without training a network.

N: images; F: features of each; K: classes. No image is judged by a classifier that has seen it.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from tl_jax.training import logistic

NEIGHBORS = 5
# L2 strengths of standardised features, from which the best over all folds is taken.
STRENGTHS = (0.1, 1.0, 10.0, 100.0)


def folds(labels: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the places of train and test of stratified folds; every class has two images or more.

    Args:
        labels: int [N].
        count: folds at most: no more than the smallest class has images.
        seed: of the shuffle.
    """
    least = int(np.bincount(labels)[np.unique(labels)].min())
    split = StratifiedKFold(max(2, min(count, least)), shuffle=True, random_state=seed)
    return list(split.split(np.zeros(len(labels)), labels))


def nearest_neighbors(
    features: np.ndarray, labels: np.ndarray, splits: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Returns whether each image is classified rightly by its five nearest neighbours in the other folds: bool [N].

    Neighbours are nearest by cosine after standardisation, and vote alike.

    Args:
        features: float [N, F].
        labels: int [N].
        splits: from `folds`.
    """
    correct = np.zeros(len(labels), bool)
    for train, test in splits:
        seen, new = _standardised(features, train, test)
        neighbors = min(NEIGHBORS, len(train))
        classifier = KNeighborsClassifier(neighbors, metric="cosine").fit(seen, labels[train])
        correct[test] = classifier.predict(new) == labels[test]
    return correct


def logistic_regression(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Returns whether each image is classified rightly by logistic regression on the other folds: bool [N].

    Of four strengths the one that is best over all folds counts, so that the accuracy is slightly too high, alike for
    all features that are compared.

    Args:
        features: float [N, F].
        labels: int [N], in [0, K).
        num_classes: K.
        splits: from `folds`.
    """
    correct = np.zeros((len(STRENGTHS), len(labels)), bool)
    for train, test in splits:
        seen, new = _standardised(features, train, test)
        found = logistic.fit(seen, labels[train], num_classes, STRENGTHS)
        logits = np.einsum("nf,sfk->snk", new, found.kernel) + found.bias[:, None, :]
        correct[:, test] = logits.argmax(-1) == labels[test]
    return correct[int(correct.mean(1).argmax())]


def _standardised(
    features: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    mean, spread = features[train].mean(0), features[train].std(0)
    spread = np.where(spread > 0, spread, 1)
    return (features[train] - mean) / spread, (features[test] - mean) / spread
