"""Pooling, written so that its gradient is quick on a CPU and deterministic on a GPU.

Shapes: B batch, H and W height and width, C channels.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax.models import cpu


def max_pool(x: jax.Array, size: int = 2, padding: int = 0) -> jax.Array:
    """Returns the maxima of `size` x `size` pixels at stride 2, [B, H', W', C].

    H' is (H + 2 padding - size) // 2 + 1, and W' likewise: what is left over at the edge is dropped.

    Written with maxima of slices: the gradient of `nn.max_pool` takes four times as long on a CPU, and is not
    deterministic on every GPU. Of equal pixels the first gets the gradient, as in PyTorch.

    Args:
        x: [B, H, W, C]; 0 or more where there is padding.
        size: side of a window.
        padding: zeros on every side.
    """
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = ((side - size) // 2 * 2 + 1 for side in x.shape[1:3])
    slices = (x[:, i : i + rows : 2, j : j + columns : 2] for i in range(size) for j in range(size))
    return functools.reduce(_larger, slices)


def _larger(one: jax.Array, other: jax.Array) -> jax.Array:
    """Returns the larger numbers, or the first of equal ones; NaN where there is one.

    The gradient of `jnp.maximum` compares its result with what it is of; where that is computed again, and rounded
    otherwise, neither is equal to it.
    """
    return jnp.where((other > one) | jnp.isnan(other), other, one)


def average_pool(x: jax.Array) -> jax.Array:
    """Returns the means over all pixels, float32 [B, C] of [B, H, W, C]."""
    if cpu.in_use() and x.dtype == jnp.bfloat16:
        x = cpu.kept_apart(x)
    return x.astype(jnp.float32).mean((1, 2))


def average_pool_to(x: jax.Array, side: int) -> jax.Array:
    """Returns the means over `side` x `side` regions that cover `x`, [B, side, side, C].

    Region i of n along an axis of length L holds the pixels from floor(i L / n) to ceil((i + 1) L / n); regions
    overlap where n does not divide L, and repeat pixels where L is less than n.

    Args:
        x: [B, H, W, C].
        side: n.

    Source: `torch.nn.AdaptiveAvgPool2d`.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if side == 1:
            x = x.mean(axis, keepdims=True)
        elif length != side:
            shares = np.zeros((side, length), np.float32)
            for i in range(side):
                first, last = i * length // side, -(-(i + 1) * length // side)
                shares[i, first:last] = 1 / (last - first)
            moved = jnp.tensordot(x, shares, ((axis,), (1,)), precision=jax.lax.Precision.HIGHEST)
            x = jnp.moveaxis(moved, -1, axis)
    return x
