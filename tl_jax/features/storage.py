"""Where activations are kept, and how a later run knows that they are the right ones.

An entry is a folder named by its key, which appears whole or not at all (`files.Draft`): `activations.npy`,
[M, V, ...] (bfloat16 as the uint16 of its bits, which NumPy has no name for), and `facts.json`: the facts
that the key is the digest of, shape, dtype and checksum. Entries may be deleted at any time.

M: images; V: views of each.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tl_jax import files
from tl_jax.errors import unknown

DTYPES = ("float32", "bfloat16")
_ACTIVATIONS, _FACTS = "activations.npy", "facts.json"


class Store:
    """Activations under a key, in a folder or, without one, in memory only.

    Attributes:
        key: hexadecimal digest of the facts.
        shape: (M, V, ...).
        dtype: float32 or bfloat16.
    """

    def __init__(
        self,
        folder: str | Path | None,
        facts: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: str,
    ):
        """Works out the key; touches no file.

        Args:
            folder: of all stores; None keeps activations in memory only.
            facts: all that the activations depend on, of JSON values.
            shape: (M, V, ...).
            dtype: one of `DTYPES`.

        Raises:
            InputError: if `dtype` is unknown.
        """
        if dtype not in DTYPES:
            raise unknown("cache.dtype", dtype, DTYPES)
        self.shape = tuple(shape)
        self.dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
        self._facts = {**files.plain(facts), "shape": list(self.shape), "dtype": dtype}
        text = json.dumps(self._facts, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._folder = None if folder is None else Path(folder).expanduser()
        self._draft: files.Draft | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of all activations."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def path(self) -> Path | None:
        """The file of the activations; None without a folder."""
        return None if self._folder is None else self._folder / self.key / _ACTIVATIONS

    def in_memory(self) -> "Store":
        """Returns the same store without a folder."""
        other = copy.copy(self)
        other._folder = None
        return other

    def room(self) -> int:
        """Returns the bytes that are free on the disk of the folder, which may not exist yet; 0 without one."""
        if self._folder is None:
            return 0
        there = next(place for place in (self._folder, *self._folder.parents) if place.exists())
        return shutil.disk_usage(there).free

    def open(self, *, verify: bool = True) -> np.ndarray | None:
        """Returns the activations, mapped from their file, or None where they have to be computed.

        The array stays readable when the entry is deleted or replaced later.

        Args:
            verify: whether the checksum is compared too, for which the whole file is read; without,
                a file that changed in size is still noticed.
        """
        return None if self._folder is None else self._read(self._folder / self.key, verify)

    def create(self) -> np.ndarray:
        """Returns an array to write the activations to: a draft of the file, or memory without one.

        Raises:
            OSError: if the folder cannot be made, or the disk is full.
        """
        if self._folder is None:
            return np.empty(self.shape, self.dtype)
        self._draft = files.Draft(self._folder)
        path = self._draft.path / _ACTIVATIONS
        try:
            with files.explain_full_disk(_ACTIVATIONS, self._draft.path, self.num_bytes):
                mapped = np.lib.format.open_memmap(
                    path, mode="w+", dtype=self._stored_dtype, shape=self.shape
                )
                files.reserve(path, path.stat().st_size)
        except BaseException:
            self.discard()
            raise
        return mapped.view(self.dtype)

    def discard(self) -> None:
        """Removes what `create` began."""
        if self._draft is not None:
            self._draft.discard()

    def keep(self, written: np.ndarray) -> np.ndarray:
        """Keeps what `create` returned, now that it is whole, for later runs; returns it for reading.

        Where another process has finished the same entry first, that one stays and is returned.

        Raises:
            OSError: if the disk is full, or the folder cannot be written any more.
        """
        if self._folder is None:
            return written
        assert isinstance(written, np.memmap) and self._draft is not None
        written.flush()
        path = self._draft.path
        record = {"facts": self._facts, "sha256": files.digest(path / _ACTIVATIONS)}
        files.write(path / _FACTS, files.to_json(record))
        # Mapped before it gets its name: from then on another process may delete it.
        own = self._read(path, verify=False)
        assert own is not None
        if self._draft.publish(self.key, lambda entry: self._read(entry, verify=True) is not None):
            return own
        other = self.open(verify=False)
        return own if other is None else other

    def _read(self, entry: Path, verify: bool) -> np.ndarray | None:
        """Returns the activations of an entry; None if they are absent, damaged or of another form."""
        try:
            checksum = str(json.loads((entry / _FACTS).read_text())["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        stored = files.map_array(entry / _ACTIVATIONS, checksum if verify else None)
        if stored is None or (stored.shape, stored.dtype) != (self.shape, self._stored_dtype):
            return None
        return stored.view(self.dtype)

    @property
    def _stored_dtype(self) -> np.dtype:
        return np.dtype(np.float32 if self.dtype == np.float32 else np.uint16)
