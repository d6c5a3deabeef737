"""Features in two dimensions, for plots: principal components, and discriminants that separate the classes.

Axes are found on training examples and drawn with others: discriminants separate the very examples that they
were found on, whatever the features, where these are about as many as the examples.

N, M: examples; F: features.
"""

import dataclasses

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler


@dataclasses.dataclass(frozen=True)
class Projection:
    """Examples in the plane.

    Attributes:
        name: "PCA" or "LDA".
        points: float32 [M, 2]; [M, 1] where there is one axis only, as of LDA with two classes.
        shares: of each axis: of the variance in PCA, of that between the classes in LDA.
    """

    name: str
    points: np.ndarray
    shares: tuple[float, ...]


def project(features: np.ndarray, labels: np.ndarray, drawn: np.ndarray) -> list[Projection]:
    """Returns the first two axes of PCA and of LDA, with the examples to draw.

    Features are standardised first. LDA shrinks its covariance by the amount of Ledoit and Wolf; it is left out
    where fewer than two classes have two examples or more. The sign of an axis is such that its largest
    coefficient is positive.

    Args:
        features: [N, F], on which the axes are found; two examples at least.
        labels: integers [N].
        drawn: [M, F].

    Source: Ledoit and Wolf 2004, "Honey, I shrunk the sample covariance matrix".
    """
    scale = StandardScaler().fit(np.asarray(features, np.float64))
    found, shown = (scale.transform(np.asarray(rows, np.float64)) for rows in (features, drawn))
    kept = min(2, *found.shape)
    pca = PCA(kept, svd_solver="covariance_eigh").fit(found)
    axes = pca.components_.T
    found_pca = Projection("PCA", _points(shown, axes), _shares(pca.explained_variance_ratio_))
    spread = np.bincount(labels)[labels] >= 2  # one example has no covariance
    if len(np.unique(labels[spread])) < 2:
        return [found_pca]
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(
        found[spread], labels[spread]
    )
    scalings = lda.scalings_[:, : min(2, len(lda.classes_) - 1, found.shape[1])]
    shares = _shares(lda.explained_variance_ratio_[: scalings.shape[1]])
    return [found_pca, Projection("LDA", _points(shown, scalings), shares)]


def _points(rows: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Returns rows [M, F] along axes [F, A], with signs that do not depend on the solver."""
    largest = np.abs(axes).argmax(axis=0)
    signs = np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    return (rows @ (axes * signs)).astype(np.float32)


def _shares(ratios: np.ndarray) -> tuple[float, ...]:
    return tuple(float(ratio) for ratio in ratios[:2])
