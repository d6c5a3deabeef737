"""An index of image files, kept for later runs: their SHA-256 and their sizes in pixels.

Without it every start of a run reads the header of each file, and all of those whose decoded images are kept: of
many files, most of the time before the first update. A file counts as unchanged while its size in bytes, its inode
and two times are the same: when its content was changed, and when anything of it was. Programs can set the first
time back, but not the second. A file that was changed two seconds ago or less is not kept: another change could
leave the same times. Some file systems have no such times, as where one image of a disk is mounted in place of
another: so sixteen files are read again at every start, and if one differs, the index is not used.

Source: git's index and its note on racy entries (Documentation/technical/racy-git.txt).
"""

import hashlib
import os
import struct
import time
from pathlib import Path

from tl_jax import console, files
from tl_jax.data import fingerprint, images, listing
from tl_jax.errors import InputError

# To be changed with what an entry holds.
_FORMAT = "1"
# More than the coarsest clock of a file system.
_SETTLED_NS = 2_500_000_000
_SAMPLE = 16
# Status, SHA-256, height and width.
_STATUS = struct.Struct("<5Q")
_ENTRY = struct.Struct(f"<{_STATUS.size}s32sII")
_NO_DIGEST, _NO_SIZE = bytes(32), (0, 0)
_Facts = tuple[bytes, tuple[int, int]]


class FileIndex:
    """SHA-256 and sizes of the files of one data set, computed once.

    Args:
        storage: where the files are.
        root: of the data set; files are named from there.
        cache_dir: where the index is kept for later runs; None: nowhere.
    """

    def __init__(self, storage: listing.Storage, root: Path, cache_dir: Path | None = None):
        self._storage = storage
        self._root, self._prefix = root, f"{os.path.abspath(root)}{os.sep}"
        self._entries: dict[str, bytes] = {}
        # Of files that were changed just now: for this run alone.
        self._unsettled: set[str] = set()
        self._changed = False
        self._file: Path | None = None
        if cache_dir is not None:
            place = os.fsencode(os.path.realpath(root))
            key = fingerprint.combine(_FORMAT, place, images.DECODER)
            self._file = cache_dir / f"files-{key}.index"
            self._entries = _read(self._file)
            self._check_sample()

    def __getstate__(self) -> dict[str, object]:
        """Leaves out what worker processes have no use for."""
        return {**self.__dict__, "_entries": {}, "_unsettled": set(), "_file": None}

    def digest(self, path: str) -> str:
        """Returns the SHA-256 of a file, hexadecimal; OSError if it cannot be read."""
        status, (digest, _) = self._look_up(path)
        if digest == _NO_DIGEST:
            digest = self._read_digest(path)
            self._note(path, status, digest=digest)
        return digest.hex()

    def size(self, path: str) -> tuple[int, int]:
        """Returns (H, W) of an image from its header.

        Raises:
            InputError: if it cannot be read as an image.
        """
        status, (_, size) = self._look_up(path)
        if size == _NO_SIZE:
            size = self._read_size(path)
            self._note(path, status, size=size)
        return size

    def save(self) -> None:
        """Writes what is new for later runs; a failure is printed, not raised."""
        if self._file is None or not self._changed:
            return
        self._changed = False
        entries = {
            name: entry
            for name, entry in list(self._entries.items())
            if name not in self._unsettled
        }
        names = os.fsencode("\0".join(entries))
        content = struct.pack("<Q", len(names)) + names + b"".join(entries.values())
        try:
            # Several runs may begin at the same time; the last one's index stays.
            files.write(self._file, hashlib.sha256(content).digest() + content, shared=True)
        except OSError as error:
            reason = "the disk is full" if files.is_disk_full(error) else error
            console.note(f"the index of image files is not kept in {self._file.parent}: {reason}")

    def _read_digest(self, path: str) -> bytes:
        return hashlib.sha256(self._storage.read(path)).digest()

    def _read_size(self, path: str) -> tuple[int, int]:
        try:
            header = self._storage.header(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read as an image: {error}") from error
        return images.stored_size(header, path)

    def _name(self, path: str) -> str:
        return os.path.abspath(path).removeprefix(self._prefix)

    def _look_up(self, path: str) -> tuple[bytes | None, _Facts]:
        """Returns the status of a file, packed, None where it has none; and what the index says of it."""
        status = self._storage.status(path)
        packed = None if status is None else _STATUS.pack(*status)
        entry = self._entries.get(self._name(path))
        if entry is None or packed is None:
            return packed, (_NO_DIGEST, _NO_SIZE)
        stored, digest, *size = _ENTRY.unpack(entry)
        if stored != packed:
            return packed, (_NO_DIGEST, _NO_SIZE)
        return packed, (digest, (size[0], size[1]))

    def _note(
        self,
        path: str,
        before: bytes | None,
        digest: bytes = _NO_DIGEST,
        size: tuple[int, int] = _NO_SIZE,
    ) -> None:
        """Adds what was read of a file whose status was `before` when it was opened."""
        now, known = self._look_up(path)
        if before is None or now != before:
            return  # it was changed while it was read
        status = listing.Status(*_STATUS.unpack(before))
        if digest == _NO_DIGEST:
            digest = known[0]
        if size == _NO_SIZE:
            size = known[1]
        name = self._name(path)
        self._entries[name] = _ENTRY.pack(before, digest, *size)
        if time.time_ns() - status.touched_ns < _SETTLED_NS:
            self._unsettled.add(name)
        else:
            self._unsettled.discard(name)
            self._changed = True

    def _check_sample(self) -> None:
        """Forgets all entries if one of a few whose files seem unchanged is not what its file holds."""
        names = list(self._entries)
        for name in names[:: max(1, len(names) // _SAMPLE)][:_SAMPLE]:
            path = os.path.join(self._root, name)
            _, (digest, size) = self._look_up(path)
            try:
                same = digest == _NO_DIGEST or self._read_digest(path) == digest
                same &= size == _NO_SIZE or self._read_size(path) == size
            except (OSError, InputError):
                same = False
            if not same:
                self._entries = {}
                return


def _read(path: Path) -> dict[str, bytes]:
    """Returns the entries that an earlier run saved; none where the file is absent or damaged."""
    try:
        stored = path.read_bytes()
    except OSError:
        return {}
    checksum, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != checksum:
        return {}
    (length,) = struct.unpack_from("<Q", content)
    start = 8 + length
    names = os.fsdecode(content[8:start]).split("\0")
    return {
        name: content[place : place + _ENTRY.size]
        for name, place in zip(names, range(start, len(content), _ENTRY.size), strict=True)
    }
