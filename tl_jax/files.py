"""Files: checksums, writing whole or not at all, JSON that any reader takes, full disks."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_DRAFT = ".draft-"
_SECONDS_OF_A_DRAFT = 24 * 3600
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """Returns the checksum of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes a file whole or not at all; its folder is made if need be.

    The content lies in `.NAME.tmp` beside the file until it is on disk. One process at a time may
    write a file; what a killed one left is overwritten by the next.

    Raises:
        OSError: if the disk is full (as `explain_full_disk`) or the place cannot be written; an
            earlier file is untouched then.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
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


def new_draft(folder: Path) -> Path:
    """Returns a new, empty folder in `folder`, for what `put_in_place` is to put beside it.

    Drafts that nobody has touched for a day, of processes that were killed, are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for draft in folder.glob(f"{_DRAFT}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > _SECONDS_OF_A_DRAFT:
                shutil.rmtree(draft, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_DRAFT, dir=folder))


def put_in_place(draft: Path, place: Path) -> None:
    """Renames a finished draft, replacing what is there; another process may do the same meanwhile."""
    if place.exists():
        removed = draft / "removed"
        with contextlib.suppress(FileNotFoundError):
            place.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
    try:
        draft.rename(place)
    except OSError:
        if not place.exists():
            raise
        shutil.rmtree(draft, ignore_errors=True)


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
