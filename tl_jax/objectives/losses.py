"""Losses per example, so that the caller decides how to mask and average them."""

import jax
import jax.numpy as jnp

from tl_jax.errors import InputError


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    label_smoothing: float | jax.Array = 0.0,
    class_weights: jax.Array | None = None,
) -> jax.Array:
    """Returns the softmax cross-entropy of each example, in float32 whatever the logits' dtype.

    The target distribution is `1 - label_smoothing` on the label plus `label_smoothing / K` on
    every class, which is `torch.nn.functional.cross_entropy`'s definition. Class weights multiply the term
    of each class, as with its `weight` and reduction="none".

    Args:
        logits: [B, K], any float dtype.
        labels: int [B] in [0, K).
        label_smoothing: in [0, 1); an array, such as a traced scalar, is not checked.
        class_weights: float32 [K]; None: all 1.

    Returns:
        float32 [B]; NaN where a label is not in [0, K).

    Raises:
        InputError: if `label_smoothing` is outside [0, 1).

    Source: label smoothing, Szegedy et al. 2015 (arXiv:1512.00567), section 7.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    log_probs = _weighted(log_probs, class_weights)
    loss = -_of_label(log_probs, labels)
    return _smoothed(loss, log_probs, label_smoothing)


def soft_cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    label_smoothing: float | jax.Array = 0.0,
    class_weights: jax.Array | None = None,
) -> jax.Array:
    """Returns the softmax cross-entropy of each example against probabilities of the classes, in float32.

    The target distribution is `(1 - label_smoothing) * targets` plus `label_smoothing / K` on every class,
    which is `torch.nn.functional.cross_entropy`'s definition for probabilities; class weights as in
    `cross_entropy`.

    Args:
        logits: [B, K], any float dtype.
        targets: float [B, K], rows that sum to 1.
        label_smoothing: in [0, 1); an array, such as a traced scalar, is not checked.
        class_weights: float32 [K]; None: all 1.

    Returns:
        float32 [B].

    Raises:
        InputError: if `label_smoothing` is outside [0, 1).
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    log_probs = _weighted(log_probs, class_weights)
    loss = -jnp.sum(targets.astype(jnp.float32) * log_probs, axis=-1)
    return _smoothed(loss, log_probs, label_smoothing)


def softened(logits: jax.Array, temperature: float) -> jax.Array:
    """Returns the logarithms of softmax(logits / temperature), [B, K].

    They are those of p^(1/T) / sum p^(1/T), the probabilities p at temperature 1 raised and normalised again.
    """
    return jax.nn.log_softmax(logits / temperature)


def _of_label(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the value of each label, [B] of [B, K]: a sum, since the gradient of picking is a scatter."""
    classes = jnp.arange(values.shape[-1])
    found = jnp.sum(jnp.where(classes == labels[:, None], values, 0), axis=-1)
    return jnp.where((labels >= 0) & (labels < len(classes)), found, jnp.nan)


def _weighted(log_probs: jax.Array, class_weights: jax.Array | None) -> jax.Array:
    """Returns the logarithms of the probabilities [B, K], each times the weight of its class."""
    if class_weights is None:
        return log_probs
    return log_probs * class_weights[None, :]


def _smoothed(
    loss: jax.Array, log_probs: jax.Array, label_smoothing: float | jax.Array
) -> jax.Array:
    """Returns the loss [B] with a share of it replaced by that of the uniform distribution."""
    known = not isinstance(label_smoothing, jax.Array)
    if known and not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing is {label_smoothing!r}, expected a number in [0, 1)")
    if not known or label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * jnp.mean(log_probs, axis=-1)
    return loss
