"""Splits that are stored on the devices, and passes over them without the host.

B: rows of a batch; D: values of an image or activation; N: rows of all splits together; M: batches in a call.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tl_jax.data import InMemorySplit, Split
from tl_jax.features import ActivationSplit
from tl_jax.parallel import device_dataset, memory, sharding

EvalStep = Callable[[Any, Any, dict[str, jax.Array]], tuple[dict[str, jax.Array], jax.Array]]


# Rows that are copied at once on their way to the devices.
_READ = 1024


class StoredSplits:
    """Some splits, one after the other in one array, so that passes over them share a program.

    Attributes:
        splits: images in memory or activations, all of one shape and type.
        layout: one of `placement.LAYOUTS`.
    """

    def __init__(self, splits: Sequence[Split], mesh: Mesh, layout: str):
        self.splits, self.layout, self._mesh = tuple(splits), layout, mesh
        self._ends = np.cumsum([len(split) for split in splits])
        self._arrays: tuple[jax.Array, jax.Array] | None = None
        self._spans: dict[tuple[int, int], jax.Array] = {}

    def equals(self, other: "StoredSplits") -> bool:
        """Returns whether the other one stores the same objects in the same layout."""
        return (
            self.layout == other.layout
            and len(self.splits) == len(other.splits)
            and all(one is theirs for one, theirs in zip(self.splits, other.splits, strict=True))
        )

    def __contains__(self, split: object) -> bool:
        return any(split is one for one in self.splits)

    def span(self, split: Split) -> tuple[int, int]:
        """Returns the rows of a split: the first, and the one after the last."""
        place = next(place for place, one in enumerate(self.splits) if split is one)
        return int(self._ends[place]) - len(split), int(self._ends[place])

    def placed_span(self, start: int, end: int) -> jax.Array:
        """Returns int32 [start, end] on the devices, where it stays for later passes."""
        if (start, end) not in self._spans:
            span = np.array([start, end], np.int32)
            self._spans[start, end] = device_dataset.place(self._mesh, span, "replicated")
        return self._spans[start, end]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image or activation."""
        return tuple(self.splits[0].image_shape)

    @property
    def num_bytes(self) -> int:
        """Bytes that they take on each device."""
        images, labels = self.shapes
        parts = self._mesh.size if self.layout == "sharded" else 1
        return memory.tree_bytes(images) // parts + memory.tree_bytes(labels)

    @property
    def host_bytes(self) -> int:
        """Bytes of the host's memory that they take while they are placed."""
        rows, values = self._flat_shape
        if any(is_shared(split) for split in self.splits):
            rows = len(device_dataset.own_rows(self._mesh, rows))
        return rows * values * self.splits[0].dtype.itemsize

    @property
    def _flat_shape(self) -> tuple[int, int]:
        """(N, D)."""
        return int(self._ends[-1]), math.prod(self.image_shape)

    @property
    def shapes(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """Of the images or activations [N, D], and of the labels [N]."""
        total, _ = self._flat_shape
        rows = jax.ShapeDtypeStruct((total, *self.image_shape), self.splits[0].dtype)
        labels = jax.ShapeDtypeStruct((total,), jnp.int32)
        return device_dataset.flat_shape(rows, self._mesh, self.layout), labels

    @property
    def arrays(self) -> tuple[jax.Array, jax.Array]:
        """The images or activations [N, D] and labels [N] on the devices, placed when they are first needed."""
        if self._arrays is None:
            rows = self._rows()
            labels = np.concatenate([split.labels for split in self.splits])
            self._arrays = (
                device_dataset.place(self._mesh, rows, self.layout),
                device_dataset.place(self._mesh, labels.astype(np.int32), "replicated"),
            )
        return self._arrays

    def _rows(self) -> np.ndarray | device_dataset.OwnRows:
        """Returns the rows of all splits [N, D], or what reads those of this process."""
        if any(is_shared(split) for split in self.splits):
            return device_dataset.OwnRows(self._read, self._flat_shape)
        rows = np.empty(self._flat_shape, self.splits[0].dtype)
        for start in range(0, len(rows), _READ):
            places = np.arange(start, min(start + _READ, len(rows)))
            rows[places] = device_dataset.flat(self._read(places))
        return rows

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the images at `rows`, in rising order, of all splits together."""
        starts = [0, *self._ends[:-1]]
        return np.concatenate(
            [
                split.gather(rows[(start <= rows) & (rows < end)] - start)
                for split, start, end in zip(self.splits, starts, self._ends, strict=True)
            ]
        )

    def own_rows(self, split: Split) -> np.ndarray:
        """Returns which images of a split this process reads to have them stored: int64."""
        first, end = self.span(split)
        rows = device_dataset.own_rows(self._mesh, int(self._ends[-1]))
        return rows[(first <= rows) & (rows < end)] - first


def make_pass(
    eval_step: EvalStep, stored: StoredSplits, mesh: Mesh, rows: int, batches: int
) -> Callable[..., tuple[dict[str, jax.Array], jax.Array]]:
    """Returns the pure `(params, batch_stats, images, labels, span) -> (sums [M, ...], logits [M * B, K])`.

    Args:
        eval_step: of one batch of `image`, `label` and `mask`.
        stored: what `images` [N, D] and `labels` [N] are the arrays of.
        mesh: the devices.
        rows: B.
        batches: M; the program is a loop of so many where it is more than one. Rows beyond `span`, int32
            [2], are masked.
    """
    shape = stored.image_shape

    def eval_pass(params, batch_stats, images, labels, span):
        def batch(number):
            places = span[0] + number * rows + jnp.arange(rows, dtype=jnp.int32)
            mask = places < span[1]
            places = jnp.where(mask, places, span[0])
            found = device_dataset.gather(mesh, stored.layout, images, places)
            split = sharding.batch_sharding(mesh)
            return {
                "image": found.reshape(rows, *shape),
                "label": device_dataset.gather(mesh, "replicated", labels, places),
                "mask": jax.lax.with_sharding_constraint(mask, split),
            }

        def step(number):
            return eval_step(params, batch_stats, batch(number))

        if batches == 1:
            sums, logits = step(jnp.int32(0))
            return jax.tree.map(lambda leaf: leaf[None], sums), logits
        _, (sums, logits) = jax.lax.scan(
            lambda _, number: (None, step(number)), None, jnp.arange(batches, dtype=jnp.int32)
        )
        return sums, logits.reshape(-1, logits.shape[-1])

    return eval_pass


def can_be_stored(split: Split) -> bool:
    """Returns whether a split is in memory: images that are decoded on access are not."""
    return isinstance(split, InMemorySplit | ActivationSplit)


def is_shared(split: Split) -> bool:
    """Returns whether each of several processes has in memory only what it reads of a split."""
    return isinstance(split, InMemorySplit | ActivationSplit) and split.is_shared
