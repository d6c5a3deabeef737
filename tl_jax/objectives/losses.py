"""Losses per example, so that the caller decides how to mask and average them."""

import jax
import jax.numpy as jnp

from tl_jax.errors import InputError


def cross_entropy(
    logits: jax.Array, targets: jax.Array, label_smoothing: float | jax.Array = 0.0
) -> jax.Array:
    """Returns the softmax cross-entropy of each example, in float32 whatever the logits' dtype.

    The target distribution is `1 - label_smoothing` times that of the targets plus `label_smoothing / K` on
    every class, which is `torch.nn.functional.cross_entropy`'s definition.

    Args:
        logits: [B, K], any float dtype.
        targets: labels, int [B] in [0, K), or probabilities, float [B, K] with rows that sum to 1.
        label_smoothing: in [0, 1); an array, such as a traced scalar, is not checked.

    Returns:
        float32 [B]; NaN where a label is K or more.

    Raises:
        InputError: if `label_smoothing` is outside [0, 1).

    Source: label smoothing, Szegedy et al. 2015 (arXiv:1512.00567), section 7.
    """
    known = not isinstance(label_smoothing, jax.Array)
    if known and not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing is {label_smoothing!r}, expected a number in [0, 1)")
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    if targets.ndim == 1:
        loss = -jnp.take_along_axis(log_probs, targets[:, None], axis=-1)[:, 0]
    else:
        loss = -jnp.sum(targets * log_probs, axis=-1)
    if not known or label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * jnp.mean(log_probs, axis=-1)
    return loss
