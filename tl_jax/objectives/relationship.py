"""The relationship between classes of the source and of the data: p(y_s | y_t), from what a network says of images.

N: images; S: classes of the source; K: classes of the data. Everything is float64, on the host.

Source: You, Kou, Long and Wang 2020, "Co-Tuning for Transfer Learning" (NeurIPS 2020), section 3.2, and
https://github.com/thuml/CoTuning, `module/relationship_learning.py`.
"""

import numpy as np

from tl_jax.errors import InputError

DIRECT, REVERSE = "direct", "reverse"
METHODS = (REVERSE, DIRECT)
# Of what logits are multiplied by: where every image is classified rightly the best scale is infinite.
_LEAST_SCALE, _MOST_SCALE = 1e-2, 1e2
_BISECTIONS = 100


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithms of the softmax over the last axis, float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def calibrated(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Returns softmax(logits / temperature), float64 [N, S].

    Args:
        logits: [N, S].
        temperature: above 0; 1 leaves the probabilities as they are. See `fit_temperature`.

    Raises:
        InputError: if the temperature is not above 0.
    """
    if not temperature > 0:
        raise InputError(f"temperature is {temperature!r}, expected a number above 0")
    return np.exp(log_softmax(np.asarray(logits, np.float64) / temperature))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature T in [0.01, 100] at which softmax(logits / T) has the least mean cross-entropy.

    The loss is convex in 1 / T; its minimum is found by bisection of its slope. For the probabilities of a source
    network, give it images of the source that it was not trained on, and their labels.

    Args:
        logits: [N, K].
        labels: int [N], in [0, K).

    Raises:
        InputError: if the shapes or labels do not fit.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599), section 4.2.

    Example:
        >>> round(fit_temperature(np.array([[2.0, 0.0]] * 4), np.array([0, 0, 0, 1])), 4)  # 2 / ln 3
        1.8205
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    _check(logits, labels, logits.shape[-1])
    own = logits[np.arange(len(labels)), labels]

    def slope(scale: float) -> float:
        expected = (np.exp(log_softmax(scale * logits)) * logits).sum(-1)
        return float((expected - own).mean())

    low, high = _LEAST_SCALE, _MOST_SCALE
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


def direct(probabilities: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the mean probabilities of the source's classes over the images of each class: float64 [K, S].

    Args:
        probabilities: p(y_s | x) of each image, [N, S]; see `calibrated`.
        labels: y_t of each image, int [N].
        num_classes: K.

    Raises:
        InputError: if shapes or labels do not fit, or a class has no image.

    Example:
        >>> direct(np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]), np.array([0, 0, 1]), 2).round(2).tolist()
        [[0.7, 0.3], [0.2, 0.8]]
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    _check(probabilities, labels, num_classes)
    counts = np.bincount(labels, minlength=num_classes)
    if not counts.all():
        raise InputError(
            f"class {int(np.flatnonzero(counts == 0)[0])} has no image; expected one of each of the {num_classes} "
            "classes"
        )
    sums = np.zeros((num_classes, probabilities.shape[1]))
    np.add.at(sums, labels, probabilities)
    return sums / counts[:, None]


def reverse(scores: np.ndarray, source_marginal: np.ndarray) -> np.ndarray:
    """Returns p(y_s | y_t) by Bayes' rule from p(y_t | y_s) = softmax(scores) and p(y_s): float64 [K, S].

    p(y_s | y_t) = p(y_t | y_s) p(y_s) / sum over y_s of the same. The paper's p(y_t), counted in the data, is the
    denominator there; the code of the authors divides by the sum, so that every row sums to 1, and this does.

    Args:
        scores: of each class of the data for each class of the source, [S, K]: the kernel of a multinomial
            logistic regression without intercept from p(y_s | x) to y_t, whose logits for an image that is surely of
            class s are row s.
        source_marginal: p(y_s), the mean probabilities of the source's classes, [S].

    Raises:
        InputError: if the shapes do not fit.

    Example:
        >>> reverse(np.log([[0.8, 0.2], [0.4, 0.6]]), np.array([0.5, 0.5])).round(4).tolist()
        [[0.6667, 0.3333], [0.25, 0.75]]
    """
    scores, marginal = np.asarray(scores, np.float64), np.asarray(source_marginal, np.float64)
    if scores.ndim != 2 or marginal.shape != scores.shape[:1]:
        raise InputError(
            f"scores {scores.shape} and source_marginal {marginal.shape}: expected [S, K] and [S]"
        )
    # In logarithms: a class of the data that no class of the source makes likely has a row all the same.
    with np.errstate(divide="ignore"):
        joint = log_softmax(scores) + np.log(marginal)[:, None]
    return np.exp(log_softmax(joint.T))


def entropies(relationship: np.ndarray) -> np.ndarray:
    """Returns the entropy of each row, in nats: float64 [K]; 0 is one class of the source, log S all alike."""
    positive = np.where(relationship > 0, relationship, 1.0)
    return -(relationship * np.log(positive)).sum(-1)


def _check(rows: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    if rows.ndim != 2 or labels.shape != rows.shape[:1] or not len(labels):
        raise InputError(
            f"{rows.shape} and labels {labels.shape}: expected [N, S] and [N], N from 1"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"labels run from {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1}"
        )
