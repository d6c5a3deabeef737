"""Feature maps as vectors, one for each example."""

import numpy as np

from tl_jax.errors import unknown

POOLS = ("mean", "flatten")


def as_vectors(features: np.ndarray, pool: str = "mean") -> np.ndarray:
    """Returns features as float32 [N, F]; vectors come back as they are.

    Args:
        features: [N, H, W, C], or [N, F] of what has no height and width.
        pool: of maps: "mean" over height and width (F = C), or "flatten" (F = H * W * C, the channels of
            one place side by side).

    Raises:
        InputError: if `pool` is unknown.

    Example:
        >>> as_vectors(np.arange(8.0).reshape(1, 2, 2, 2)).tolist()
        [[3.0, 4.0]]
    """
    if pool not in POOLS:
        raise unknown("features.pool", pool, POOLS)
    rows = np.asarray(features, np.float32)
    if rows.ndim > 2 and pool == "mean":
        return rows.mean(axis=tuple(range(1, rows.ndim - 1)), dtype=np.float32)
    return rows.reshape(len(rows), -1)
