"""The forward pass up to a boundary, over a whole split, once.

Shapes: M examples, V views of each, B images in a batch.
"""

import collections
from collections.abc import Callable, Iterable

import jax
import numpy as np

from tl_jax import models
from tl_jax.augment import augmentation as augmenting
from tl_jax.augment import preprocessing

# Batches whose results the host has not fetched yet.
_IN_FLIGHT = 2


def make_prefix(
    model,
    spec: preprocessing.Preprocessing,
    boundary: str,
    *,
    views: int,
    seed: int,
    dtype: str,
    augmentation: augmenting.Augmentation = augmenting.NOTHING,
) -> Callable[[dict, dict, dict[str, jax.Array]], jax.Array]:
    """Returns the pure `prefix(params, batch_stats, batch) -> activations [B, ...]` of `dtype`.

    A batch holds `image` uint8 [B, H, W, C] and `row` int32 [B]: row r is view r % V of example
    r // V, and the only thing besides `seed` that its augmentation depends on.

    Args:
        model: the Linen module.
        spec: preprocessing.
        boundary: to stop after.
        views: V; 1 for the image as it is.
        seed: of the views.
        dtype: "float32" or "bfloat16".
        augmentation: used where there are several views.
    """
    forward = models.make_forward(models.without_remat(model), stop=boundary)
    transform = make_view_transform(spec, augmentation, views, seed)

    def prefix(params, batch_stats, batch):
        inputs = transform(batch["row"], batch["image"])
        return forward(params, batch_stats, inputs, train=False)[0].astype(dtype)

    return prefix


def make_view_transform(
    spec: preprocessing.Preprocessing,
    augmentation: augmenting.Augmentation,
    views: int,
    seed: int,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns `transform(rows, images)`: uint8 [B, H, W, C] to the network's input, by `row`."""
    if views == 1:
        plain = preprocessing.make_eval_transform(spec)
        return lambda rows, images: plain(images)
    augment = augmenting.make_train_transform(spec, augmentation)
    return lambda rows, images: augment(jax.random.key(seed), rows, images)


def compute(
    prefix: Callable[[dict[str, np.ndarray]], jax.Array],
    batches: Iterable[dict[str, np.ndarray]],
    batch_size: int,
    out: np.ndarray,
    *,
    fetch: Callable[[jax.Array], np.ndarray] = np.asarray,
    show: Callable[[int], None] = lambda batches: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> bool:
    """Writes the activations of every view of every example of a split to `out`; False if stopped first.

    Args:
        prefix: the compiled prefix with its variables, on host batches.
        batches: of the M examples in their order, the last one padded: `image`, and `example`, int64, the number of
            each, which keys its views: that in the split it was taken from, so that a part of a data set has the
            views that it has in the whole. Each is this process's rows of a global batch.
        batch_size: examples whose activations are fetched of a batch.
        out: [M, V, ...], of the prefix's dtype. What batches give beyond it is left out.
        fetch: from the prefix's result to the activations [batch_size, ...].
        show: receives the number of batches done.
        stop_requested: asked after each batch; must answer alike in every process.
    """
    views = out.shape[1]
    waiting: collections.deque[tuple[int, int, jax.Array]] = collections.deque()
    done = 0

    def write() -> None:
        nonlocal done
        start, view, activations = waiting.popleft()
        room = out[start : start + batch_size]
        room[:, view] = fetch(activations)[: len(room)]
        done += 1
        show(done)

    for number, batch in enumerate(batches):
        for view in range(views):
            row = (batch["example"] * views + view).astype(np.int32)
            inputs = {"image": batch["image"], "row": row}
            waiting.append((number * batch_size, view, prefix(inputs)))
            if len(waiting) > _IN_FLIGHT:
                write()
        if stop_requested():
            return False
    while waiting:
        write()
    return True
