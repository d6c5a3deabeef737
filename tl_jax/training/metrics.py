"""What is counted during evaluation, and what is computed from the counts and the predictions.

`batch_sums` and `class_counts` run inside the compiled evaluation step; the rest is NumPy on the host. Shapes: B
examples in a batch, N in a split, K classes.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax.objectives import losses

# Of a whole split, from the counts of its classes; see `class_averages`.
CLASS_AVERAGES = (
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
)
# The metrics on validation that may choose the best step, and which of two values is the better one.
SELECTION = {
    "top1_accuracy": "max",
    "balanced_accuracy": "max",
    "macro_f1": "max",
    "loss": "min",
}


def is_better(name: str, value: float, other: float) -> bool:
    """Returns whether a value of one of `SELECTION` is better than another one; all others are than NaN.

    Example:
        >>> is_better("macro_f1", 0.9, 0.8), is_better("loss", 0.9, 0.8)
        (True, False)
    """
    if math.isnan(other):
        return not math.isnan(value)
    return value > other if SELECTION[name] == "max" else value < other


def batch_sums(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Returns the sums over the unmasked examples of a batch; sums of batches add up.

    Among equal logits the lower class index ranks first, as in `argmax`; a row with a NaN at its
    label counts as wrong.

    Args:
        logits: [B, K].
        labels: int [B] in [0, K); masked rows may hold anything.
        mask: bool [B], True where the example counts.

    Returns:
        Scalars: `loss_sum` float32 (plain cross-entropy); int32 `correct`, `correct5`, `examples`.
    """
    logits = logits.astype(jnp.float32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    classes = jnp.arange(logits.shape[-1], dtype=labels.dtype)[None, :]
    below = (own > logits) | ((own == logits) & (labels[:, None] <= classes))
    rank = jnp.sum(~below, axis=-1, dtype=jnp.int32)
    loss = losses.cross_entropy(logits, labels)
    return {
        "loss_sum": jnp.sum(jnp.where(mask, loss, 0.0)),
        "correct": jnp.sum(mask & (rank < 1), dtype=jnp.int32),
        "correct5": jnp.sum(mask & (rank < 5), dtype=jnp.int32),
        "examples": jnp.sum(mask, dtype=jnp.int32),
    }


def class_counts(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Returns `hits` and `predicted`, int32 [K]: of each class, the examples that were right and those that got it.

    The predicted class is that of `predictions`; counts of batches add up.

    Args:
        logits: [B, K].
        labels: int [B]; masked rows may hold anything.
        mask: bool [B], True where the example counts.
    """
    logits = logits.astype(jnp.float32)
    classes = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    counted = mask & ~jnp.any(jnp.isnan(logits), axis=-1)
    chosen = jnp.argmax(logits, axis=-1)[:, None] == classes
    chosen &= counted[:, None]
    return {
        "hits": jnp.sum(chosen & (labels[:, None] == classes), axis=0, dtype=jnp.int32),
        "predicted": jnp.sum(chosen, axis=0, dtype=jnp.int32),
    }


def finalize(sums: Mapping[str, Any]) -> dict[str, float | int]:
    """Returns loss, top-1 and top-5 accuracy (fractions) and the number of examples.

    Args:
        sums: the added-up results of `batch_sums`, as arrays or numbers; Python numbers come back.

    Raises:
        ValueError: if no example was counted.
    """
    examples = int(sums["examples"])
    if examples < 1:
        raise ValueError("no example was evaluated: every row was masked or the split is empty")
    return {
        "loss": float(sums["loss_sum"]) / examples,
        "top1_accuracy": int(sums["correct"]) / examples,
        "top5_accuracy": int(sums["correct5"]) / examples,
        "examples": examples,
    }


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns int64 [K, K]: entry [i, j] counts the examples of class i predicted as class j.

    Raises:
        ValueError: if the shapes differ or a label or prediction is outside [0, K).
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise ValueError(
            f"labels {labels.shape} and predictions {predictions.shape} differ in shape"
        )
    for name, values in {"labels": labels, "predictions": predictions}.items():
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            span = f"{values.min()} to {values.max()}"
            raise ValueError(f"{name} run from {span}, expected 0 to {num_classes - 1}")
    cells = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Returns float64 [K] arrays `precision`, `recall`, `f1` and `support` (examples of the class).

    A ratio whose denominator is 0 (a class never predicted, or absent) is 0.

    Args:
        confusion: [K, K], rows the true class.
    """
    return _of_counts(np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1))


def _of_counts(hits: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> dict[str, Any]:
    """Returns what `per_class` does from counts [K]: right, predicted, and examples of each class."""
    hits, predicted, support = (counts.astype(np.float64) for counts in (hits, predicted, support))
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
        "support": support,
    }


def predictions(logits: np.ndarray) -> np.ndarray:
    """Returns the predicted classes, int64 [N], the lowest of equals; -1, no class, for a row with a NaN.

    Args:
        logits: float [N, K].
    """
    return np.where(np.isnan(logits).any(axis=-1), -1, logits.argmax(axis=-1))


def class_averages(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, float]:
    """Returns the means over classes named in `CLASS_AVERAGES`, as scikit-learn's functions by default.

    Macro means weigh classes alike, weighted ones by their examples. They are over the classes that have an
    example or a prediction, and a ratio whose denominator is 0 counts as 0 (scikit-learn's zero_division=0).
    Balanced accuracy is the mean recall of the classes that have examples; macro recall is smaller where a
    class without examples was predicted. Weighted recall is the accuracy.

    Args:
        labels: int [N] in [0, K); N at least 1.
        predicted: int [N] in [-1, K); see `predictions`.
        num_classes: K.

    Source: scikit-learn, `precision_recall_fscore_support`, `balanced_accuracy_score`.

    Example:
        >>> averages = class_averages(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1]), 2)
        >>> averages["balanced_accuracy"], averages["macro_precision"], averages["weighted_recall"]
        (0.875, 0.75, 0.8)
    """
    right = labels[labels == predicted]
    hits, counts = (
        np.bincount(classes, minlength=num_classes)
        for classes in (right, predicted[predicted >= 0])
    )
    return averages_of_counts(hits, counts, labels)


def averages_of_counts(
    hits: np.ndarray, predicted: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Returns what `class_averages` does, from counts.

    Args:
        hits: int [K], the right ones of each class.
        predicted: int [K], the examples that got each class.
        labels: int [N] in [0, K), N at least 1.
    """
    support = np.bincount(labels, minlength=len(hits))
    measured = _of_counts(hits, predicted, support)
    averages = {"balanced_accuracy": float(measured["recall"][support > 0].mean())}
    for name in ("precision", "recall", "f1"):
        averages[f"macro_{name}"] = float(measured[name][(support > 0) | (predicted > 0)].mean())
        averages[f"weighted_{name}"] = float((measured[name] * support).sum() / support.sum())
    return {name: averages[name] for name in CLASS_AVERAGES}


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, Any]:
    """Returns the expected calibration error and the reliability diagram behind it.

    Examples are put by the probability of their predicted class into `bins` intervals of equal
    width, (i / bins, (i + 1) / bins]. ECE is the average over examples of |accuracy - confidence|
    of their bin.

    Args:
        probabilities: [N, K], rows summing to 1; N at least 1.
        labels: int [N].
        bins: at least 1.

    Returns:
        `ece` float; `bin_confidence` and `bin_accuracy` float64 [bins], 0 where a bin is empty;
        `bin_count` int64 [bins].

    Source: Guo et al. 2017 (arXiv:1706.04599), section 2, equations 1 to 3.
    """
    probabilities = np.asarray(probabilities, np.float64)
    labels = np.asarray(labels)
    if bins < 1 or len(labels) < 1 or len(probabilities) != len(labels):
        given = f"{bins} bins, {len(probabilities)} rows of probabilities and {len(labels)} labels"
        raise ValueError(f"{given}: expected at least 1 bin and as many rows as labels, at least 1")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    bin_confidence = _ratio(np.bincount(index, confidence, bins), count)
    bin_accuracy = _ratio(np.bincount(index, correct, bins), count)
    gap = np.abs(bin_accuracy - bin_confidence)
    return {
        "ece": float(np.sum(gap * count) / len(labels)),
        "bin_confidence": bin_confidence,
        "bin_accuracy": bin_accuracy,
        "bin_count": count,
    }


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean over examples of the squared distance between probabilities and the true class, in [0, 2].

    Args:
        probabilities: [N, K], rows summing to 1; N at least 1.
        labels: int [N] in [0, K).

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability".

    Example:
        >>> brier_score(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 0]))
        0.25
    """
    errors = np.array(probabilities, np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    return float(np.mean(np.sum(errors**2, axis=1)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    safe = np.where(denominator == 0, 1, denominator)
    return np.where(denominator == 0, 0.0, numerator / safe)
