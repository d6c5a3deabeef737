"""Batches on the host, read ahead of the step that takes them.

A batch is a dict: `image` uint8 [b, H, W, C], `label` int32 [b], `position` int32 [b], the place in the
global batch, which keys the randomness of augmentation, and `index` int32 [b], the place in the split;
b examples are this process's rows of the global batch.
"""

import queue
import threading
from collections.abc import Callable, Iterator

import numpy as np

from tl_jax.data import order
from tl_jax.data.split import Split
from tl_jax.errors import InputError

Batch = dict[str, np.ndarray]

_AHEAD = 4


def batches(
    split: Split,
    seed: int,
    start_step: int,
    stop_step: int,
    batch_size: int,
    rows: slice = slice(None),
) -> Iterator[Batch]:
    """Returns an iterator over the training batches of updates `start_step` to `stop_step - 1`.

    What update `t` gets is `order.batch_indices(seed, t, ...)`, wherever the iterator started.
    Closing the iterator stops the reading ahead.

    Args:
        split: where the examples come from.
        seed: of the order.
        start_step: first update, from 0.
        stop_step: the update after the last.
        batch_size: global batch size.
        rows: this process's rows of the global batch.

    Raises:
        InputError: at once, if the batch is larger than the split or a step is negative.
    """
    order.batch_indices(seed, start_step, batch_size, len(split))
    positions = np.arange(batch_size, dtype=np.int32)[rows]

    def make(step: int) -> Batch:
        indices = order.batch_indices(seed, step, batch_size, len(split))[rows]
        return _batch(split, indices, positions)

    return _read_ahead(make, start_step, stop_step)


def eval_batches(split: Split, batch_size: int, rows: slice = slice(None)) -> Iterator[Batch]:
    """Returns an iterator over the whole split in stored order, each example once.

    The last batch is padded to `batch_size` with copies of the first example; `mask`, bool [b], is
    False for those. Every process gets the same number of batches of the same shape.

    Args:
        split: where the examples come from; it may be smaller than a batch.
        batch_size: global batch size, from 1.
        rows: this process's rows of the global batch.

    Raises:
        InputError: at once, if the batch size is below 1 or the split is empty.
    """
    num_examples = len(split)
    if batch_size < 1 or not num_examples:
        raise InputError(
            f"split {split.name!r} of {num_examples} examples cannot be read in batches of {batch_size}; "
            "both must be at least 1"
        )
    positions = np.arange(batch_size, dtype=np.int32)[rows]

    def make(number: int) -> Batch:
        places = number * batch_size + positions.astype(np.int64)
        mask = places < num_examples
        return {**_batch(split, np.where(mask, places, 0), positions), "mask": mask}

    return _read_ahead(make, 0, -(-num_examples // batch_size))


def _batch(split: Split, indices: np.ndarray, positions: np.ndarray) -> Batch:
    return {
        "image": split.gather(indices),
        "label": split.labels[indices],
        "position": positions,
        "index": indices.astype(np.int32),
    }


def _read_ahead(make: Callable[[int], Batch], start: int, stop: int) -> Iterator[Batch]:
    """Yields make(start) to make(stop - 1), made by one background thread a few ahead.

    An exception of `make` is raised where its batch would have come.
    """
    ready: queue.Queue = queue.Queue(_AHEAD)
    closed = threading.Event()

    def put(item) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work():
        for number in range(start, stop):
            try:
                item = (make(number), None)
            except BaseException as error:
                item = (None, error)
            if not put(item) or item[1] is not None:
                return

    thread = threading.Thread(target=work, name="tl_jax batches", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch
    finally:
        closed.set()
        thread.join()
