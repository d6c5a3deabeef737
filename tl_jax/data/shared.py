"""Images of which each of several processes keeps only what it reads.

N: images of a split; H, W and C of one.
"""

from typing import Protocol

import numpy as np

from tl_jax.data.decoded import DecodedCache


class Kept(Protocol):
    """Images that are decoded, or still decoding."""

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of those that are in memory by now."""
        ...

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns those at `indices`: uint8 [B, H, W, C]."""
        ...


class Encoded(Protocol):
    """A split whose images are decoded on access."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        ...

    @property
    def decoding_bytes(self) -> int:
        """Bytes that are needed beside the images while they are decoded."""
        ...

    def __len__(self) -> int: ...

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns those at `indices`: uint8 [B, H, W, C]."""
        ...

    def subset(self, indices: np.ndarray) -> "Encoded":
        """Returns the split of those at `indices`."""
        ...

    def in_memory(self, cache: DecodedCache | None = None) -> Kept:
        """Returns the same images, decoding in the background, kept in `cache` for later runs."""
        ...

    def file(self, index: int) -> str:
        """Returns the path of the file of an image; "" if there is none."""
        ...

    def fingerprint(self) -> str:
        """Returns what tells these images from any others."""
        ...


class SharedPixels:
    """The images of a split, of which this process keeps those that it is going to read; see `split.Pixels`.

    Until `keep` says which those are, every image is decoded whenever it is read; after it, all others are.

    Args:
        split: whose images they are.
        cache: where images are kept on disk for later runs, by a process that reads all of them.
    """

    def __init__(self, split: Encoded, cache: DecodedCache | None = None):
        self._split, self._cache = split, cache
        self._kept: Kept | None = None
        self._rows = np.arange(0)
        self._said = False
        self.shape = (len(split), *split.image_shape)

    def keep(self, rows: np.ndarray) -> None:
        """Has the images at `rows`, int64, decoded in the background, and keeps them and no others."""
        rows, self._said = np.unique(rows), True
        if np.array_equal(rows, self._rows):
            return
        self._rows, self._kept = rows, None
        if len(rows) == len(self._split):
            self._kept = self._split.in_memory(self._cache)
        elif len(rows):
            self._kept = self._split.subset(rows).in_memory()

    def get(self, rows: np.ndarray | None = None) -> np.ndarray:
        """See `split.Pixels`."""
        rows = np.arange(len(self._split)) if rows is None else np.asarray(rows)
        if self._kept is None:
            return self._split.gather(rows)
        places = np.searchsorted(self._rows, rows)
        places[places == len(self._rows)] = 0
        held = self._rows[places] == rows
        if held.all():
            return self._kept.gather(places)
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        found[held] = self._kept.gather(places[held])
        found[~held] = self._split.gather(rows[~held])
        return found

    @property
    def num_bytes(self) -> int:
        """See `split.Pixels`: of all images, until it is said which are kept."""
        count = len(self._rows) if self._said else len(self._split)
        return count * int(np.prod(self.shape[1:]))

    @property
    def bytes_in_memory(self) -> int:
        """See `split.Pixels`."""
        return 0 if self._kept is None else self._kept.bytes_in_memory

    @property
    def decoding_bytes(self) -> int:
        """See `split.Pixels`."""
        return self._split.decoding_bytes

    def file(self, row: int) -> str:
        """See `split.Pixels`."""
        return self._split.file(row)

    def fingerprint(self, rows: np.ndarray | None) -> str:
        """See `split.Pixels`."""
        return (self._split if rows is None else self._split.subset(rows)).fingerprint()
