"""Decoded images kept on disk: decoded once on a machine, mapped into memory by later runs.

One entry is a folder named by the fingerprint of what was decoded, with `images.npy` uint8
[N, H, W, C], `labels.npy` integers [N] and `files.json`, their sizes and SHA-256. It appears whole or not at
all (`files.Draft`). Entries may be deleted at any time.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np

from tl_jax import console, files

_IMAGES, _LABELS, _FACTS = "images.npy", "labels.npy", "files.json"


@dataclasses.dataclass(frozen=True)
class Kept:
    """An entry whose sizes are right and whose labels are verified; `images` verifies the rest."""

    folder: Path
    checksum: str
    labels: np.ndarray

    def images(self) -> np.ndarray | None:
        """Returns the images, mapped from the file; None if their checksum is wrong."""
        images = files.map_array(self.folder / _IMAGES, self.checksum)
        # Without its subclass, whose indexing is slower.
        return None if images is None else images.view(np.ndarray)


class DecodedCache:
    """A folder of decoded splits; nothing that goes wrong with it is more than a line on stderr."""

    def __init__(self, folder: Path):
        self._folder = folder

    def find(self, key: str) -> Kept | None:
        """Returns the entry of a fingerprint; None if it is absent or visibly damaged."""
        return _read(self._folder / key)

    def announce(self, key: str, num_examples: int, num_bytes: int) -> None:
        """Says that images are decoded, and where they will be kept."""
        console.note(
            f"decoding {console.count(num_examples, 'image')}, once: later runs find them in "
            f"{self._folder / key} ({num_bytes / 1e6:,.0f} MB, may be deleted)"
        )

    def keep(self, key: str, images: np.ndarray, labels: np.ndarray) -> None:
        """Writes an entry unless a whole one is there; a failure is printed, not raised."""
        try:
            with files.Draft(self._folder) as draft:
                needed = 2 * images.nbytes  # the run itself needs room too
                free = shutil.disk_usage(draft.path).free
                if free < needed:
                    raise OSError(f"{free / 1e6:,.0f} MB are free, {needed / 1e6:,.0f} needed")
                _write(draft.path, images, labels)
                draft.publish(key, _is_whole)
        except OSError as error:
            console.note(f"decoded images are not kept in {self._folder}: {error}")


def _read(folder: Path) -> Kept | None:
    try:
        facts = json.loads((folder / _FACTS).read_text())
        if any((folder / name).stat().st_size != fact["bytes"] for name, fact in facts.items()):
            return None
        if files.digest(folder / _LABELS) != facts[_LABELS]["sha256"]:
            return None
        labels = np.load(folder / _LABELS, allow_pickle=False)
        return Kept(folder, str(facts[_IMAGES]["sha256"]), labels)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_whole(folder: Path) -> bool:
    kept = _read(folder)
    return kept is not None and kept.images() is not None


def _write(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    facts = {}
    for name, array in ((_IMAGES, images), (_LABELS, labels)):
        with open(folder / name, "wb") as file:
            np.save(file, array, allow_pickle=False)
        size = (folder / name).stat().st_size
        facts[name] = {"bytes": size, "sha256": files.digest(folder / name)}
    files.write(folder / _FACTS, files.to_json(facts))
