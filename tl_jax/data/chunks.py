"""Work on many examples, a chunk of them at a time, in a few threads."""

import collections
import concurrent.futures
import functools
import os
from collections.abc import Iterator

import numpy as np

# Images read at once, where nothing else is known of them.
SMALL_CHUNK = 512
_AHEAD = 16  # chunks


def map_chunks(
    function, values: np.ndarray, chunk: int = SMALL_CHUNK, *, alone: bool = False
) -> Iterator:
    """Yields the items of function(chunk) for every chunk of `values`, in order.

    Args:
        function: from a chunk to items.
        values: [N].
        chunk: how many values a chunk has.
        alone: whether to work in this thread rather than in a few others.
    """
    chunks = [values[start : start + chunk] for start in range(0, len(values), chunk)]
    if alone or len(chunks) == 1:
        for part in chunks:
            yield from function(part)
        return
    # A few ahead, no more: what is queued when a program ends is worked off before it does.
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    for part in chunks:
        waiting.append(_pool().submit(function, part))
        if len(waiting) > _AHEAD:
            yield from waiting.popleft().result()
    for future in waiting:
        yield from future.result()


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(threads(), "tl_jax decode")


def threads() -> int:
    """Returns how many threads decode."""
    return min(_AHEAD, os.cpu_count() or 1)
