"""Linear heads in closed form: ridge regression on one-hot targets, and the nearest class mean.

Both are computed in float64 on the host, where they are exact enough for strengths that are far apart.

Shapes: N examples, F features, C classes, K strengths.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from tl_jax.errors import InputError

# Rows that become float64 at a time.
_BLOCK = 4096


@dataclasses.dataclass(frozen=True)
class LinearHeads:
    """Heads whose logits are `features @ kernel + bias`; arrays of the host.

    Attributes:
        kernel: float64 [K, F, C].
        bias: float64 [K, C].
    """

    kernel: np.ndarray
    bias: np.ndarray


def ridge(
    features: np.ndarray, labels: np.ndarray, num_classes: int, strengths: Sequence[float]
) -> LinearHeads:
    """Returns, for each strength, the ridge regression of one-hot labels on features.

    It is the minimum of `sum over examples of |features @ kernel + bias - one_hot|^2 + strength * |kernel|^2`. The
    bias is not penalised: features and targets are centred, and the bias follows from their means. One
    eigendecomposition, of the smaller of the two Gram matrices, serves all strengths. At strength 0 it is the least
    squares solution of least norm.

    A strength is `alpha` of scikit-learn's `Ridge`. Logits are the regressions themselves, which are near 0 and 1:
    as probabilities they are not calibrated. Bertinetto et al. scale and shift them by two numbers, and learn these
    and the strength over many tasks; here there is one task, and the highest logit is the same.

    Args:
        features: float [N, F].
        labels: int [N], in [0, `num_classes`).
        num_classes: C, at least 2.
        strengths: K numbers of at least 0.

    Raises:
        InputError: listing what is out of range.

    Source: Hastie, Tibshirani and Friedman 2009, equations 3.41 to 3.44 (ridge) and section 4.2 (indicator
    matrix); Bertinetto et al. 2019 (arXiv:1805.08136), section 3, where the N x N matrix serves few examples, too.

    Example:
        >>> heads = ridge(np.array([[0.0], [2.0]]), np.array([0, 1]), 2, [0.0, 2.0])
        >>> heads.kernel[:, 0], heads.bias
        (array([[-0.5 ,  0.5 ],
               [-0.25,  0.25]]), array([[1.  , 0.  ],
               [0.75, 0.25]]))
    """
    _check(features, labels, num_classes)
    bad = [value for value in strengths if not 0 <= value < math.inf]
    if bad or not len(strengths):
        raise InputError(f"strengths {bad or list(strengths)}: expected numbers of at least 0")
    examples, width = features.shape
    mean = features.mean(0, dtype=np.float64)
    shares = np.bincount(labels, minlength=num_classes) / examples
    if examples < width:
        rows = features.astype(np.float64) - mean
        values, vectors = np.linalg.eigh(rows @ rows.T)
        before, after = rows.T @ vectors, vectors.T @ _targets(labels, num_classes, shares)
    else:
        gram, products = np.zeros((width, width)), np.zeros((width, num_classes))
        for start in range(0, examples, _BLOCK):
            rows = features[start : start + _BLOCK].astype(np.float64) - mean
            gram += rows.T @ rows
            products += rows.T @ _targets(labels[start : start + _BLOCK], num_classes, shares)
        values, vectors = np.linalg.eigh(gram)
        before, after = vectors, vectors.T @ products
    values = np.maximum(values, 0.0)
    # What is rounding of zero, as `numpy.linalg.matrix_rank` has it; with a penalty it does no harm.
    rounding = max(examples, width) * np.finfo(np.float64).eps * values.max(initial=0.0)
    kernels = []
    for strength in strengths:
        damped = values + strength
        inverse = np.zeros_like(damped)
        np.divide(1.0, damped, out=inverse, where=damped > (0.0 if strength else rounding))
        kernels.append(before @ (inverse[:, None] * after))
    kernel = np.stack(kernels)
    return LinearHeads(kernel, shares - mean @ kernel)


def nearest_mean(features: np.ndarray, labels: np.ndarray, num_classes: int) -> LinearHeads:
    """Returns the head (K = 1) that predicts the class whose mean features are nearest, by Euclidean distance.

    With the mean `mu` of a class, its logit is `2 mu . features - |mu|^2`: minus the squared distance, up to the
    squared norm of the features, which all classes have in common. The softmax is that of prototypical networks.

    Args:
        features: float [N, F].
        labels: int [N], in [0, `num_classes`).
        num_classes: C, at least 2.

    Raises:
        InputError: listing what is out of range; naming classes that have no example, and so no mean.

    Source: Mensink et al. 2013, "Distance-Based Image Classification: Generalizing to New Classes at Near-Zero
    Cost" (PAMI), its nearest class mean classifier without a learned metric; Snell et al. 2017 (arXiv:1703.05175),
    equations 1 and 2 and section 2.4, with all training images as the support.

    Example:
        >>> head = nearest_mean(np.array([[0.0], [2.0], [4.0]]), np.array([0, 1, 1]), 2)
        >>> head.kernel[0], head.bias[0]
        (array([[0., 6.]]), array([-0., -9.]))
    """
    _check(features, labels, num_classes)
    counts = np.bincount(labels, minlength=num_classes)
    lacking = np.flatnonzero(counts == 0)
    if len(lacking):
        raise InputError(
            f"classes {', '.join(map(str, lacking[:5]))}{', ...' if lacking[5:].size else ''} have no example, and "
            "so no mean"
        )
    sums = np.zeros((num_classes, features.shape[1]))
    for start in range(0, len(features), _BLOCK):
        rows = features[start : start + _BLOCK].astype(np.float64)
        sums += np.eye(num_classes)[labels[start : start + _BLOCK]].T @ rows
    means = sums / counts[:, None]
    return LinearHeads(2 * means.T[None], -np.square(means).sum(1)[None])


def _targets(labels: np.ndarray, num_classes: int, shares: np.ndarray) -> np.ndarray:
    """Returns one-hot labels less their mean, float64 [N, C]."""
    return np.eye(num_classes)[labels] - shares


def _check(features: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    problems = []
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        problems.append(
            f"features {features.shape} and labels {labels.shape}: expected [N, F] and [N], N from 1"
        )
    elif not 0 <= int(labels.min()) <= int(labels.max()) < max(num_classes, 2):
        problems.append(
            f"labels run from {int(labels.min())} to {int(labels.max())}, {num_classes} classes: expected two or "
            f"more classes, and labels from 0 to {num_classes - 1}"
        )
    elif not np.isfinite(features).all():
        problems.append("features are not finite")
    if problems:
        raise InputError("\n".join(problems))
