"""Batches on the host, read ahead of the step that takes them.

A batch is a dict: `image` uint8 [b, H, W, C], `label` int32 [b], `position` int32 [b], the place in
the global batch, which keys the randomness of augmentation, and `index` int32 [b], the place in the
split; b examples are this process's rows of the global batch.
"""

import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Iterator

import numpy as np

from tl_jax.data.order import Order
from tl_jax.data.records import LazySplit
from tl_jax.data.split import Split, ViewedSplit
from tl_jax.errors import InputError

Batch = dict[str, np.ndarray]

AHEAD = 4  # batches, of every process that makes them


def batches(
    split: Split,
    order: Order,
    start_step: int,
    stop_step: int,
    rows: slice = slice(None),
    workers: int = 0,
) -> Generator[Batch, None, None]:
    """Returns an iterator over the training batches of updates `start_step` to `stop_step - 1`.

    What update `t` gets is `order.rows(t)`, wherever the iterator started. Closing the iterator stops
    the reading ahead.

    Args:
        split: where the examples come from; a `ViewedSplit` where the order has several views.
        order: of the examples.
        start_step: first update, from 0.
        stop_step: the update after the last.
        rows: this process's rows of the global batch.
        workers: processes that decode a split larger than memory; 0: threads of this one.

    Raises:
        InputError: at once, if a step is negative.
    """
    order.examples(start_step)
    return _iterate(_TrainBatch(split, order, rows), start_step, stop_step, workers)


def eval_batches(
    split: Split, batch_size: int, rows: slice = slice(None), workers: int = 0
) -> Iterator[Batch]:
    """Returns an iterator over the whole split in stored order, each example once.

    The last batch is padded to `batch_size` with copies of the first example; `mask`, bool [b], is
    False for those. Every process gets the same number of batches of the same shape.

    Args:
        split: where the examples come from; it may be smaller than a batch.
        batch_size: global batch size, from 1.
        rows: this process's rows of the global batch.
        workers: processes that decode a split larger than memory; 0: threads of this one.

    Raises:
        InputError: at once, if the batch size is below 1 or the split is empty.
    """
    num_examples = len(split)
    if batch_size < 1 or not num_examples:
        raise InputError(
            f"split {split.name!r} of {num_examples} examples cannot be read in batches of "
            f"{batch_size}; both must be at least 1"
        )
    num_batches = -(-num_examples // batch_size)
    return _iterate(_EvalBatch(split, batch_size, rows), 0, num_batches, workers)


def own_places(num_examples: int, batch_size: int, rows: slice) -> np.ndarray:
    """Returns which examples this process reads in a pass of `eval_batches`, padding aside: int64."""
    places = np.arange(num_examples)
    in_batch = places % batch_size
    return places[(rows.start <= in_batch) & (in_batch < rows.stop)]


@dataclasses.dataclass(frozen=True)
class _TrainBatch:
    """The batch of an update; can be pickled for worker processes."""

    split: Split
    order: Order
    rows: slice

    def __call__(self, step: int) -> Batch:
        rows = self.order.rows(int(step))[self.rows]
        examples, views = np.divmod(rows, self.order.views)
        if isinstance(self.split, ViewedSplit):
            images = self.split.gather_views(examples, views)
        else:
            images = self.split.gather(examples)
        positions = _positions(self.order.batch_size, self.rows)
        return {"image": images, **_facts(self.split, examples, positions)}


@dataclasses.dataclass(frozen=True)
class _EvalBatch:
    """One batch of a pass over the split; can be pickled for worker processes."""

    split: Split
    batch_size: int
    rows: slice

    def __call__(self, number: int) -> Batch:
        positions = _positions(self.batch_size, self.rows)
        places = int(number) * self.batch_size + positions.astype(np.int64)
        mask = places < len(self.split)
        indices = np.where(mask, places, 0)
        return {
            "image": self.split.gather(indices),
            **_facts(self.split, indices, positions),
            "mask": mask,
        }


def _positions(batch_size: int, rows: slice) -> np.ndarray:
    return np.arange(batch_size, dtype=np.int32)[rows]


def _facts(split: Split, indices: np.ndarray, positions: np.ndarray) -> Batch:
    return {
        "label": split.labels[indices],
        "position": positions,
        "index": indices.astype(np.int32),
    }


def _iterate(
    make: _TrainBatch | _EvalBatch, start: int, stop: int, workers: int
) -> Generator[Batch, None, None]:
    if workers and isinstance(make.split, LazySplit):
        return _in_processes(make, start, stop, workers)
    return _read_ahead(make, start, stop)


def _in_processes(
    make: Callable[[int], Batch], start: int, stop: int, workers: int
) -> Generator[Batch, None, None]:
    """Yields make(start) to make(stop - 1), in order, made by `workers` processes."""
    import grain  # only splits larger than memory need it
    from absl import flags

    if not flags.FLAGS.is_parsed():
        raise InputError(
            f"workers={workers}: Grain's processes need absl's flags parsed; "
            "call absl.flags.FLAGS(['name']) first, or give workers=0"
        )
    options = grain.multiprocessing.MultiprocessingOptions(workers, per_worker_buffer_size=AHEAD)
    read = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    made = grain.MapDataset.range(start, stop).map(make)
    iterator = iter(made.to_iter_dataset(read).mp_prefetch(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def _read_ahead(
    make: Callable[[int], Batch], start: int, stop: int
) -> Generator[Batch, None, None]:
    """Yields make(start) to make(stop - 1), made by one background thread a few ahead.

    An exception of `make` is raised where its batch would have come.
    """
    ready: queue.Queue[Batch | BaseException] = queue.Queue(AHEAD)
    closed = threading.Event()

    def put(item: Batch | BaseException) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        for number in range(start, stop):
            try:
                item: Batch | BaseException = make(number)
            except BaseException as error:
                item = error
            if not put(item) or isinstance(item, BaseException):
                return

    thread = threading.Thread(target=work, name="tl_jax batches", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()
