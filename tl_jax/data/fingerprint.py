"""What tells one set of images from another: SHA-256 of content and order, the same in any process."""

import hashlib
from collections.abc import Iterable

import numpy as np


def combine(*parts: str | bytes | np.ndarray) -> str:
    """Returns the fingerprint of several things in order, hexadecimal.

    An array counts with its dtype, shape and elements, so that no two sequences of parts look alike.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"array {part.dtype.str} {part.shape} ".encode())
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        else:
            data = part.encode() if isinstance(part, str) else part
            digest.update(f"bytes {len(data)} ".encode())
            digest.update(data)
    return digest.hexdigest()


def of_files(paths: Iterable[str], *what: str) -> str:
    """Returns the fingerprint of the content of files, in order; their paths play no part.

    Args:
        paths: of the files, which are read whole.
        what: more that the fingerprint depends on.

    Raises:
        OSError: if a file cannot be read.
    """
    contents = []
    for path in paths:
        with open(path, "rb") as file:
            contents.append(hashlib.file_digest(file, "sha256").hexdigest())
    return combine(*what, *contents)
