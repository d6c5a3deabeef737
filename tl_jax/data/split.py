"""What the rest of the library sees of a data set: a split with labels, and images by index.

Shapes: N examples, B examples of a batch, H rows, W columns, C = 3 channels (red, green, blue).
"""

import copy
import functools
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from tl_jax.data import fingerprint
from tl_jax.data.shared import SharedPixels
from tl_jax.errors import InputError


@runtime_checkable
class Split(Protocol):
    """Labelled images that can be read by index."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """int32 [N], in [0, len(class_names))."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        ...

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of every image, or the shape of one activation."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """What `gather` returns: uint8, or that of stored activations."""
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes of all its images, decoded, or of its activations."""
        ...

    def __len__(self) -> int: ...

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns the images at `indices`: uint8 [B, H, W, C]."""
        ...

    def file(self, index: int) -> str:
        """Returns the path of the image file at `index`; "" if there is none."""
        ...

    def subset(self, indices: np.ndarray, name: str = "") -> "Split":
        """Returns the split of the examples at `indices`, in that order."""
        ...

    def whole(self) -> tuple["Split", np.ndarray]:
        """Returns the split that this one was taken from, and which of its rows this is: int64 [N].

        Parts of one whole, such as the two sides of a hold-out, return the same one; a split that
        was not taken from another returns itself.
        """
        ...

    def fingerprint(self) -> str:
        """Returns what tells these images, in this order, from any others: hexadecimal.

        Equal fingerprints mean equal pixels, in any process. Labels, class names and `name` play no
        part. Nothing is decoded for it.
        """
        ...


class Pixels(Protocol):
    """All images that a split and its parts share: decoded, or still decoding."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        ...

    def get(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns a copy of those at `rows`, uint8 [B, H, W, C], or all of them, once they are there.

        Raises:
            InputError: if they cannot be read.
        """
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes of the images that this process keeps."""
        ...

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of the images that are in memory by now; 0 where they are mapped from a file."""
        ...

    @property
    def decoding_bytes(self) -> int:
        """Bytes that are needed beside the images while they are decoded."""
        ...

    def fingerprint(self, rows: np.ndarray | None) -> str:
        """Returns the fingerprint of the images at `rows`, or of all, without waiting for them."""
        ...

    def file(self, row: int) -> str:
        """Returns the path of the file of an image; "" if there is none."""
        ...


class ArrayPixels:
    """Images that are an array: uint8 [N, H, W, C]."""

    decoding_bytes = 0

    def __init__(self, images: np.ndarray):
        self._images = images
        self.shape = images.shape
        self.bytes_in_memory = images.nbytes

    @property
    def num_bytes(self) -> int:
        """See `Pixels`."""
        return self._images.nbytes

    def get(self, rows: np.ndarray | None = None) -> np.ndarray:
        """See `Pixels`."""
        return self._images if rows is None else self._images[rows]

    def file(self, row: int) -> str:
        """See `Pixels`."""
        return ""

    def fingerprint(self, rows: np.ndarray | None) -> str:
        """See `Pixels`."""
        if rows is None or np.array_equal(rows, np.arange(len(self._images))):
            return self._fingerprint
        return fingerprint.combine(self._fingerprint, np.asarray(rows, np.int64))

    @functools.cached_property
    def _fingerprint(self) -> str:
        return fingerprint.combine(self._images)


@runtime_checkable
class ViewedSplit(Split, Protocol):
    """A split that holds several views of each example."""

    def gather_views(self, indices: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Returns one view, from 0, of each of the examples at `indices`: [B, ...]."""
        ...


class InMemorySplit:
    """A split whose images are decoded: indexing it costs a copy and nothing else.

    Args:
        images: uint8 [N, H, W, 3]; grey ones, [N, H, W] or [N, H, W, 1], are repeated to three
            channels.
        labels: integers [N], in [0, len(class_names)).
        class_names: one name per class.
        name: how messages call it.

    Raises:
        InputError: if dtype, shape or range is not as above; all problems are listed.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        name: str = "split",
    ):
        images, labels = np.asarray(images), np.asarray(labels)
        class_names = tuple(str(class_name) for class_name in class_names)
        problems = [*_image_problems(images), *label_problems(labels, class_names)]
        if images.ndim and labels.ndim and len(images) != len(labels):
            problems.append(f"{len(images)} images but {len(labels)} labels")
        if problems:
            raise InputError(f"{name}: " + "; ".join(problems))
        if images.ndim == 3:
            images = images[..., None]
        if images.shape[-1] == 1:
            images = np.repeat(images, 3, axis=-1)
        self._set(ArrayPixels(images), labels, class_names, name)

    @classmethod
    def of(
        cls, pixels: Pixels, labels: np.ndarray, class_names: Sequence[str], name: str
    ) -> "InMemorySplit":
        """Returns the split of images that may still be decoding; only `labels` are checked.

        Raises:
            InputError: if the labels are out of range.
        """
        problems = label_problems(labels, class_names)
        if problems:
            raise InputError(f"{name}: " + "; ".join(problems))
        split = cls.__new__(cls)
        split._set(pixels, labels, tuple(class_names), name)
        return split

    def _set(
        self, pixels: Pixels, labels: np.ndarray, class_names: tuple[str, ...], name: str
    ) -> None:
        self._pixels = pixels
        self._whole: InMemorySplit | None = None
        self._rows: np.ndarray | None = None
        self.labels = labels.astype(np.int32)
        self.class_names = class_names
        self.name = name

    @property
    def images(self) -> np.ndarray:
        """All images: uint8 [N, H, W, C]; a copy when this is a subset, whose memory is shared."""
        return self._pixels.get(self._rows)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        _, height, width, channels = self._pixels.shape
        return height, width, channels

    @property
    def dtype(self) -> np.dtype:
        """Of the images: uint8."""
        return np.dtype(np.uint8)

    @property
    def num_bytes(self) -> int:
        """Bytes of the images of this split."""
        return len(self) * int(np.prod(self.image_shape))

    @property
    def whole_bytes(self) -> int:
        """Bytes of the images that this split shares with others: all of them, or those that this process keeps."""
        return self._pixels.num_bytes

    @property
    def bytes_in_memory(self) -> int:
        """Those of them that are decoded and in memory by now; 0 where they are mapped from a file."""
        return self._pixels.bytes_in_memory

    @property
    def decoding_bytes(self) -> int:
        """Bytes that are needed beside the images while they are decoded; 0 where nothing is."""
        return self._pixels.decoding_bytes

    @property
    def is_shared(self) -> bool:
        """Whether each of several processes keeps only those images that it is going to read; see `keep`."""
        return isinstance(self._pixels, SharedPixels)

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, rows: np.ndarray) -> None:
        """Takes which images this process is going to read, of a split that is not a part of another one.

        Where the images are shared, it has these decoded in the background and keeps no others, which are decoded on
        access; else it does nothing.

        Args:
            rows: int64.
        """
        if isinstance(self._pixels, SharedPixels):
            self._pixels.keep(rows)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns a copy of the images at `indices`: uint8 [B, H, W, C]."""
        indices = np.asarray(indices)
        return self._pixels.get(indices if self._rows is None else self._rows[indices])

    def file(self, index: int) -> str:
        """Returns the path of the image file at `index`; "" if there is none."""
        return self._pixels.file(int(index if self._rows is None else self._rows[index]))

    def subset(self, indices: np.ndarray, name: str = "") -> "InMemorySplit":
        """Returns the split of the examples at `indices`; the images are shared, not copied."""
        indices = np.asarray(indices, np.int64)
        chosen = copy.copy(self)
        chosen._whole = self._whole or self
        chosen._rows = indices if self._rows is None else self._rows[indices]
        chosen.labels = self.labels[indices]
        chosen.name = name or self.name
        return chosen

    def whole(self) -> tuple["InMemorySplit", np.ndarray]:
        """Returns the split that this one was taken from, and which of its rows this is: int64 [N]."""
        if self._whole is None or self._rows is None:
            return self, np.arange(len(self))
        return self._whole, self._rows

    def fingerprint(self) -> str:
        """Returns what tells these images, in this order, from any others; see `Split`."""
        return self._pixels.fingerprint(self._rows)


def label_problems(labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Returns what is wrong with the labels, one line each; none when they are good."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return [f"labels are {labels.dtype} {list(labels.shape)}, expected integers [N]"]
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        return [
            f"{len(wrong)} labels are outside [0, {len(class_names)}): "
            f"the first is {labels[wrong[0]]} at index {wrong[0]}"
        ]
    return []


def _image_problems(images: np.ndarray) -> list[str]:
    if images.dtype != np.uint8:
        found = f"images are {images.dtype}"
        if images.size and np.issubdtype(images.dtype, np.number):
            finite = images[np.isfinite(images)]
            if finite.size:
                found += f" with values in [{finite.min()}, {finite.max()}]"
            if finite.size < images.size:
                found += f", {images.size - finite.size} not finite"
        fractions = (
            images.dtype.kind == "f" and images.size and 0 <= images.min() <= images.max() <= 1
        )
        advice = ": use (images * 255).round().astype(np.uint8)" if fractions else ""
        return [f"{found}; expected uint8 in [0, 255]{advice}"]
    good = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if not good or 0 in images.shape[1:]:
        advice = ""
        if images.ndim == 4 and images.shape[1] in (1, 3):
            advice = "; channels come last: use images.transpose(0, 2, 3, 1)"
        elif images.ndim == 4 and images.shape[-1] == 4:
            advice = "; without transparency: use images[..., :3]"
        return [
            f"images have shape {list(images.shape)}; "
            f"expected [N, H, W, 3], [N, H, W, 1] or [N, H, W], none of H and W zero{advice}"
        ]
    return []
