"""What is counted during evaluation, and what is computed from the counts and the predictions.

`batch_sums` runs inside the compiled evaluation step; the rest is NumPy on the host. Shapes: B
examples in a batch, N in a split, K classes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax.objectives import losses


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
    hits = np.diag(confusion).astype(np.float64)
    support = confusion.sum(axis=1).astype(np.float64)
    predicted = confusion.sum(axis=0).astype(np.float64)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
        "support": support,
    }


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


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    safe = np.where(denominator == 0, 1, denominator)
    return np.where(denominator == 0, 0.0, numerator / safe)
