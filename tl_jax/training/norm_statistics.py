"""Running statistics of BatchNorm, estimated again for weights that were never trained with, such as averages."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import trees

Tree = dict[str, Any]


def make_statistics_step(
    forward: Callable[..., tuple[Any, Tree]],
    transform: Callable[[jax.Array], jax.Array],
    moving: Collection[str],
) -> Callable[[Tree, Tree, dict[str, jax.Array]], tuple[Tree, Tree]]:
    """Returns the pure `step(params, batch_stats, batch) -> (updated, share)`.

    `updated` are the running statistics after the batch. `share` is the weight that each module gives to the
    old ones (its momentum), found from a second pass that starts at larger statistics: whatever the module,
    `updated = share * old + (1 - share) * of the batch`. Only what moves is made larger: a frozen module
    normalises by its statistics, and all later layers would see another input.

    Args:
        forward: in training; see `models.make_forward`.
        transform: from what a batch holds to what `forward` takes.
        moving: names of the statistics that training moves, such as "stage1/block0/bn1/mean".
    """

    def step(params, batch_stats, batch):
        inputs = transform(batch["image"])
        key = jax.random.key(0)  # of dropout, which no statistic of a network without it depends on

        def updated(statistics):
            return forward(params, statistics, inputs, train=True, key=key)[1]

        old = trees.flatten(batch_stats)
        first = trees.flatten(updated(batch_stats))
        # Larger by as much as they are, or float32 would lose the difference.
        shifts = {
            name: 1 + jnp.abs(leaf) + jnp.abs(first[name])
            for name, leaf in old.items()
            if name in moving
        }
        larger = {
            name: leaf + shifts[name] if name in shifts else leaf for name, leaf in old.items()
        }
        second = trees.flatten(updated(trees.unflatten(larger)))
        share = {
            name: (leaf - first[name]) / shifts[name] if name in shifts else jnp.ones_like(leaf)
            for name, leaf in second.items()
        }
        return trees.unflatten(first), trees.unflatten(share)

    return step


def estimate(
    step: Callable[[Tree, Tree, dict[str, np.ndarray]], tuple[Tree, Tree]],
    params: Tree,
    batch_stats: Tree,
    batches: Iterable[dict[str, np.ndarray]],
) -> Tree:
    """Returns the mean of the batches' statistics, float32, on the host.

    Each batch counts alike; variances are the unbiased ones of each batch, as running ones are.

    Args:
        step: from `make_statistics_step`, compiled.
        params: of the weights.
        batch_stats: near the result, which keeps the sums accurate; statistics that the forward pass does
            not update come back as they are.
        batches: of training images, one at least.

    Source: `torch.optim.swa_utils.update_bn`, which sets the momentum to 1 / n at the nth batch.
    """
    old = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(batch_stats))
    total, count, share = jax.tree.map(np.zeros_like, old), 0, None
    for batch in batches:
        updated, kept = jax.device_get(step(params, batch_stats, batch))
        # Rounded: a momentum has few digits, its estimate those of float32.
        share = share or jax.tree.map(lambda leaf: np.round(np.asarray(leaf, np.float64), 4), kept)
        total = jax.tree.map(np.add, total, updated)
        count += 1

    def of_batches(old, share, total):
        mean = total / count
        moved = (mean - share * old) / np.where(share == 1, 1, 1 - share)
        return np.where(share == 1, old, moved).astype(np.float32)

    return jax.tree.map(of_batches, old, share, total)
