"""Files: checksums, files and cache entries written whole or not at all, JSON, full disks."""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

_DRAFT = ".draft-"
# Of drafts alone: `.draft-pictures` beside a data set is the user's.
_DRAFT_NAME = re.compile(r"\.draft-[0-9a-f]{32}")
# A process takes the lock of its draft within this time after making it.
_SECONDS_TO_LOCK = 60
# Age after which a draft is removed on a file system without locks.
_SECONDS_WITHOUT_LOCK = 24 * 3600
# What `flock` says on file systems without locks; EBADF: NFS, which asks for a file open for writing.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def digest(file: str | os.PathLike[str] | io.BufferedReader, algorithm: str = "sha256") -> str:
    """Returns the checksum of a whole file, given by its path or open for reading, hexadecimal."""
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return digest(opened, algorithm)
    file.seek(0)
    return hashlib.file_digest(file, algorithm).hexdigest()


def map_array(path: str | os.PathLike[str], checksum: str | None = None) -> np.ndarray | None:
    """Returns the array of an .npy file, mapped; None if the file is absent, cut short or not one.

    The array stays readable when the file is deleted or replaced later.

    Args:
        path: of the file, as `numpy.save` writes arrays of numbers.
        checksum: SHA-256 of the file, for which all of it is read; None compares none.
    """
    try:
        # Opened once, so that what is verified is what is returned.
        with open(path, "rb") as file:
            if checksum is not None and checksum != digest(file):
                return None
            file.seek(0)
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            shape, column_major, dtype = np.lib.format.read_array_header_1_0(file)
            start, size = file.tell(), os.fstat(file.fileno()).st_size
            if size != start + math.prod(shape) * dtype.itemsize:
                return None
            return np.memmap(file, dtype, "r", start, shape, "F" if column_major else "C")
    except (OSError, ValueError, EOFError):
        return None


def write(path: str | os.PathLike[str], content: bytes | str, *, shared: bool = False) -> None:
    """Writes a file whole or not at all; its folder is made if need be.

    The content is in `.NAME.tmp` beside the file until it is on disk. One process at a time may
    write a file; what a killed one left is overwritten by the next.

    Args:
        path: of the file.
        content: text is written as UTF-8.
        shared: whether several processes may write it at the same time; the last one's content stays.

    Raises:
        OSError: if the disk is full (as `explain_full_disk`) or the place cannot be written; an
            earlier file is untouched then.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    own = f".{uuid.uuid4().hex}" if shared else ""
    draft = path.with_name(f".{path.name}{own}.tmp")
    with explain_full_disk(path.name, path.parent, len(data)):
        try:
            with open(draft, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def reserve(path: str | os.PathLike[str], num_bytes: int) -> None:
    """Makes a file `num_bytes` long with room on the disk for all of it, where the system can say so.

    Writing to a mapped file on a full disk would end the process without a word.

    Raises:
        OSError: ENOSPC if there is no room.
    """
    with open(path, "ab") as file:
        if hasattr(os, "posix_fallocate") and num_bytes:
            os.posix_fallocate(file.fileno(), 0, num_bytes)


class Draft:
    """A hidden folder in which an entry of a cache is written before it appears under its name.

    An entry is a folder of the cache whose name is a key of its content. Any number of processes and
    threads, on Linux and macOS, may write, read and repair the same entry at once:

    - A whole entry is never replaced or moved. The first process that finishes it wins; the others
      discard their drafts. Nothing locks an entry while it is computed: two processes that start at the
      same time compute it twice, and none waits for one that hangs.
    - An entry that is not whole is moved away, by one process at a time, then removed, so that files which
      another process has mapped stay readable.
    - A process that is killed leaves at most a draft. A draft is locked by its process
      (`flock` on the folder, which ends with the process); the next draft in the same cache removes
      those that nobody holds.

    Used as a context manager, it discards what was not published.

    Attributes:
        path: the folder; empty when made.
    """

    def __init__(self, cache: Path):
        """Makes the folder in `cache`, which is made too if need be.

        Raises:
            OSError: if it cannot be made.
        """
        cache.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(cache)
        self._lock: int | None
        self.path, self._lock = _new_locked_folder(cache)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def publish(self, name: str, is_whole: Callable[[Path], bool]) -> bool:
        """Renames the finished draft to `name`, unless a whole entry of that name exists.

        Args:
            name: of the entry.
            is_whole: whether an entry, given by its path, can be read; called only where one exists.

        Returns:
            Whether the draft became the entry; if not, it is discarded.

        Raises:
            OSError: if the cache cannot be written.
        """
        entry = self.path.with_name(name)
        # Atomic, and refused where a folder that is not empty has the name.
        while not _renamed(self.path, entry):
            try:
                with _opened(entry) as judged:
                    if is_whole(entry):
                        self.discard()
                        return False
                    _move_away(entry, judged)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ELOOP):
                    raise
                _remove_broken_link(entry)
        self._unlock()
        return True

    def discard(self) -> None:
        """Removes the draft, unless it was published; may be called again."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _new_folder(cache: Path) -> Path:
    # Not by `tempfile`, whose folders other users cannot read.
    path = cache / f"{_DRAFT}{uuid.uuid4().hex}"
    path.mkdir()
    return path


def _new_locked_folder(cache: Path) -> tuple[Path, int]:
    """Returns a new hidden folder and the descriptor that holds its lock.

    Raises:
        OSError: if it cannot be made, or not locked though the file system has locks.
    """
    while True:
        path = _new_folder(cache)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # A process that looks whether the draft is abandoned holds the lock for a moment.
            _wait_for_lock(descriptor)
        except OSError:
            os.close(descriptor)
            path.rmdir()
            raise
        if path.exists():
            return path, descriptor
        os.close(descriptor)  # removed by a process that took it for abandoned


def _wait_for_lock(descriptor: int) -> None:
    """Locks a file or folder once nobody else does; does nothing on a file system without locks.

    Raises:
        OSError: if it cannot be locked though the file system has locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _remove_broken_link(entry: Path) -> None:
    """Removes an entry that is a symbolic link to nothing; anything else stays."""
    if not entry.is_symlink() or entry.exists():
        return
    try:
        entry.unlink()
    except OSError:
        # Another process may have removed the link, and put a folder in its place.
        if entry.is_symlink():
            raise


def _remove_abandoned(cache: Path) -> None:
    """Removes the drafts of processes that have ended."""
    for draft in cache.glob(f"{_DRAFT}*"):
        if not _DRAFT_NAME.fullmatch(draft.name):
            continue
        try:
            seconds = time.time() - draft.stat().st_mtime
            descriptor = os.open(draft, os.O_RDONLY)
        except OSError:  # published or removed by another process
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            abandoned = seconds > _SECONDS_TO_LOCK
        except BlockingIOError:
            abandoned = False
        except OSError:
            abandoned = seconds > _SECONDS_WITHOUT_LOCK
        if abandoned:
            shutil.rmtree(draft, ignore_errors=True)
        os.close(descriptor)


def _renamed(source: Path, target: Path) -> bool:
    """Renames a folder; returns False, changing nothing, where the target exists and is not empty."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Gives a descriptor of a file or folder: as long as it is open, its inode names nothing else."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _move_away(entry: Path, judged: int) -> None:
    """Removes an entry that is not whole, given by its descriptor.

    One process or thread at a time, by the lock of the entry: a whole one that another has put in its
    place since it was judged stays. Without locks it may be moved for a moment, and is put back.
    """
    _wait_for_lock(judged)
    if not os.path.samestat(entry.stat(), os.fstat(judged)):
        return
    folder = _new_folder(entry.parent)
    try:
        moved = folder / "removed"
        entry.rename(moved)
        if not os.path.samestat(moved.stat(), os.fstat(judged)):
            _renamed(moved, entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def plain(value: Any) -> Any:
    """Returns a value as it comes back from JSON: of dicts, lists, text, numbers, bools and None.

    JSON has no word for numbers that are not finite: they become the strings "nan", "inf" and
    "-inf", which `float` reads back (null would not tell an overflow from a division by zero).

    Raises:
        TypeError: if it holds anything but these, NumPy or JAX arrays, mappings, tuples and paths.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")


def to_json(value: Any, indent: int | None = 2) -> str:
    """Returns `plain(value)` as JSON text that ends with a newline; on one line without `indent`."""
    return json.dumps(plain(value), indent=indent, allow_nan=False) + "\n"


@contextlib.contextmanager
def explain_full_disk(
    what: str,
    folder: Path,
    num_bytes: int,
    advice: str = "make room and run the same command again",
) -> Iterator[None]:
    """Makes the error of a full disk, raised inside, say what there is to know.

    Args:
        what: is being written.
        folder: where to; it exists.
        num_bytes: about how many bytes that takes.
        advice: what is safe, and what to do.

    Raises:
        OSError: ENOSPC, naming all of these and the bytes free, when the disk is full or a quota or
            file-size limit is reached; other errors pass.
    """
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        free = shutil.disk_usage(folder).free
        raise OSError(
            errno.ENOSPC,
            f"{what} could not be written to {folder}: it needs about {num_bytes:,} bytes and "
            f"{free:,} are free (or a quota or file-size limit is reached); {advice}",
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """Returns whether an error means a full disk, a full quota or a file beyond the size limit."""
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    # TensorStore raises a ValueError that says so in its text only.
    reasons = ("no space left", "disk quota exceeded", "file too large")
    return any(reason in str(error).lower() for reason in reasons)
