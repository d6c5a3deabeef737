"""Features in two dimensions, for plots: principal components, and discriminants that separate the classes.

Axes are found on training examples and drawn with others: discriminants separate the very examples that they
were found on, whatever the features, where these are about as many as the examples.

N, M: examples; F: features.
"""

import dataclasses

import numpy as np


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

    Features are standardised first. LDA shrinks the covariance within classes by the amount of Ledoit and Wolf; it is
    left out where no class has two examples that differ. The sign of an axis is such that its largest coefficient is
    positive.

    Args:
        features: [N, F], on which the axes are found; two examples at least.
        labels: integers [N], of two classes at least.
        drawn: [M, F].

    Source: Ledoit and Wolf 2004, "Honey, I shrunk the sample covariance matrix".
    """
    # Here and below: a second or two, which reports without such a plot need not take.
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(np.asarray(features, np.float64))
    found, shown = (scale.transform(np.asarray(rows, np.float64)) for rows in (features, drawn))
    pca = PCA(min(2, *found.shape), svd_solver="covariance_eigh").fit(found)
    axes, shares = pca.components_.T, pca.explained_variance_ratio_
    projections = [Projection("PCA", _points(shown, axes), tuple(map(float, shares)))]
    discriminants = _discriminants(found, labels)
    if discriminants is not None:
        axes, shares = discriminants
        projections.append(Projection("LDA", _points(shown, axes), tuple(map(float, shares))))
    return projections


def _discriminants(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the first two axes [F, A] along which classes differ most, and their shares [A]."""
    import scipy.linalg
    from sklearn.covariance import ledoit_wolf

    classes, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.stack([rows[places == place].mean(0) for place in range(len(classes))])
    within = rows - means[places]
    if not within.any():
        return None
    root = np.linalg.cholesky(ledoit_wolf(within, assume_centered=True)[0])
    between = np.sqrt(counts / len(rows))[:, None] * (means - rows.mean(0))
    whitened = scipy.linalg.solve_triangular(root, between.T, lower=True)
    directions, strengths, _ = np.linalg.svd(whitened, full_matrices=False)
    kept = min(2, len(classes) - 1, rows.shape[1])
    axes = scipy.linalg.solve_triangular(root.T, directions[:, :kept], lower=False)
    return axes, np.square(strengths[:kept]) / np.square(strengths).sum()


def _points(rows: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Returns rows [M, F] along axes [F, A], with signs that do not depend on the solver."""
    largest = np.abs(axes).argmax(axis=0)
    signs = np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    return (rows @ (axes * signs)).astype(np.float32)
