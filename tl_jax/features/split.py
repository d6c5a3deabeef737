"""A split of which every image is known by its activations at a boundary.

Shapes: M examples in the store, N in the split, V stored views of each, `...` the shape of one
activation: [H', W', C] of a map, [F] after it was pooled.
"""

import copy
from collections.abc import Sequence

import numpy as np

from tl_jax.data import fingerprint


class ActivationSplit:
    """What steps and evaluation read in place of images; satisfies `data.Split`.

    Args:
        store: [M, V, ...], float32 or bfloat16, in memory or mapped.
        rows: int64 [N], the examples of the store that belong to the split, in order.
        labels: int32 [N].
        class_names: one name per class.
        key: of the store, see `storage.Store`.
        name: how messages call it.
        shared: whether each of several processes reads only what its devices store: the store need not hold the
            others, whose `rows` are then -1.
    """

    def __init__(
        self,
        store: np.ndarray,
        rows: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        key: str,
        name: str,
        shared: bool = False,
    ):
        self._store, self._rows, self._key = store, np.asarray(rows, np.int64), key
        self.is_shared = shared
        self.labels, self.class_names, self.name = labels, tuple(class_names), name

    @property
    def activations(self) -> np.ndarray:
        """[N, V, ...]; the store itself where the split is the whole of it, else a copy."""
        assert (self._rows >= 0).all()  # else another process has them
        return self._store if self.is_whole else self._store[self._rows]

    @property
    def is_whole(self) -> bool:
        """Whether the split is the whole of its store, in order."""
        return len(self._rows) == len(self._store) and bool((np.diff(self._rows) == 1).all())

    @property
    def views(self) -> int:
        """V, how many views of each example are stored."""
        return self._store.shape[1]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one activation."""
        return self._store.shape[2:]

    @property
    def dtype(self) -> np.dtype:
        """Of the stored activations."""
        return self._store.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of the activations of this split, all views."""
        return len(self) * int(np.prod(self._store.shape[1:])) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns the first view of the examples at `indices`: [B, ...]."""
        return self.gather_views(indices, np.zeros_like(indices))

    def gather_views(self, indices: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Returns one view, from 0, of each of the examples at `indices`: [B, ...]."""
        rows = self._rows[np.asarray(indices)]
        assert (rows >= 0).all()  # else another process has them
        return self._store[rows, np.asarray(views)]

    def file(self, index: int) -> str:
        """Returns "": activations are not read from image files."""
        return ""

    def subset(self, indices: np.ndarray, name: str = "") -> "ActivationSplit":
        """Returns the split of the examples at `indices`; the store is shared, not copied."""
        chosen = copy.copy(self)
        chosen._rows, chosen.labels = self._rows[indices], self.labels[indices]
        chosen.name = name or self.name
        return chosen

    def whole(self) -> tuple["ActivationSplit", np.ndarray]:
        """Returns this split and all its rows: what it was taken from is not known here."""
        return self, np.arange(len(self))

    def fingerprint(self) -> str:
        """Returns what tells these activations, in this order, from any others."""
        return fingerprint.combine(self._key, self._rows)
