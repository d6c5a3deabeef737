"""Whether an evaluation sees images that the run was trained on.

A run folder records a digest of each of its training images, `training_images.npz`: `digests` uint64 [N], the
first eight bytes of the SHA-256 of the decoded pixels, and `shape`, (H, W, C). Two images that differ have the same
digest once in 10^19 pairs. 50,000 images of 32 px take 0.3 s and 400 KB, 7,000 of 224 px about a second; of larger
data, or images that are decoded on access, nothing is recorded.
"""

import hashlib
import io
import pathlib
import zipfile
from typing import Any

import jax
import numpy as np

from tl_jax import files
from tl_jax.data import InMemorySplit, Split

RECORD = "training_images.npz"
MOST_IMAGES = 100_000
MOST_BYTES = 1 << 30
_CHUNK = 1000


def record(run: pathlib.Path, train: Split) -> None:
    """Writes the digests of the training images into a run folder, by the first process; see the limits above."""
    if jax.process_index() != 0 or _too_large(train):
        return
    content = io.BytesIO()
    np.savez(content, digests=digests(train), shape=np.array(train.image_shape))
    files.write(run / RECORD, content.getvalue())


def find(run: pathlib.Path, test: Split) -> dict[str, Any]:
    """Returns `overlap` of an evaluation's `result.json`.

    It is {"examples": images of `test` that the run was trained on}, or {"examples": None, "reason": why that
    is unknown}.

    Args:
        run: the run folder.
        test: the evaluated split.
    """
    try:
        with np.load(run / RECORD, allow_pickle=False) as recorded:
            trained, shape = recorded["digests"], tuple(recorded["shape"].tolist())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return _unknown("the run has no record of its training images")
    if _too_large(test):
        return _unknown("there are too many test images, or they are not all in memory")
    if test.image_shape != shape:
        height, width, _ = shape
        return _unknown(
            f"the run saw its images at {height}x{width} pixels, these have another size"
        )
    return {"examples": int(np.isin(digests(test), trained).sum())}


def warning(overlap: dict[str, Any], test: Split) -> list[str]:
    """Returns a line about images that the run was trained on; none where there are none, or it is unknown."""
    if not overlap["examples"]:
        return []
    return [
        f"{overlap['examples']:,} of {len(test):,} test images are among those that the run was trained on: this "
        "is not its accuracy on new images"
    ]


def digests(split: Split) -> np.ndarray:
    """Returns a digest of the pixels of every image: uint64 [N]."""
    found = [
        hashlib.sha256(image.data).digest()[:8]
        for start in range(0, len(split), _CHUNK)
        for image in split.gather(np.arange(start, min(start + _CHUNK, len(split))))
    ]
    return np.frombuffer(b"".join(found), "<u8")


def _unknown(reason: str) -> dict[str, Any]:
    return {"examples": None, "reason": reason}


def _too_large(split: Split) -> bool:
    in_memory = isinstance(split, InMemorySplit) and not split.is_shared
    return not in_memory or len(split) > MOST_IMAGES or split.num_bytes > MOST_BYTES
