"""Images that cannot be read, left out of a data set before anything is computed from its size or order.

A run that leaves images out is, to the bit, the run on the data set without their files. So they have to be
known before the test split is chosen, a part is held out, or the first batch is drawn: all images are decoded
once for it. What is found is kept with the decoded images, by the content of the files; later runs decode
nothing for it.
"""

import json
import os
from pathlib import Path

import numpy as np

from tl_jax import console, errors, files
from tl_jax.data import fingerprint, images, listing
from tl_jax.data.records import LazySplit
from tl_jax.errors import InputError

UNREADABLE = ("stop", "skip")


def check(unreadable: str) -> None:
    """Raises InputError if this is no way to treat images that cannot be read."""
    if unreadable not in UNREADABLE:
        raise errors.unknown("unreadable", unreadable, UNREADABLE)


class Skip:
    """Leaves images that cannot be read out of splits.

    Args:
        cache_dir: where what is found is kept; None: nowhere.

    Attributes:
        found: what is wrong with each image that was left out, by the name of its file or record.
    """

    def __init__(self, cache_dir: Path | None = None):
        self._cache_dir = cache_dir
        self.found: dict[str, str] = {}

    def readable(self, split: LazySplit) -> np.ndarray:
        """Returns the places in a split of the images that can be read, int64, and notes the others."""
        problems = self._problems(split)
        names = {place: split.records.describe(int(split.rows[place])) for place in problems}
        self.found |= {names[place]: reason for place, reason in problems.items()}
        return np.setdiff1d(np.arange(len(split)), np.array(list(problems), np.int64))

    def note(self, name: str) -> list[str]:
        """Returns a line about what was left out of the data set `name`; none where nothing was."""
        if not self.found:
            return []
        count = len(self.found)
        names = listing.some([os.path.basename(path) for path in sorted(self.found)])
        what = (
            "1 image that cannot be read is"
            if count == 1
            else f"{count:,} images that cannot be read are"
        )
        return [f"{name}: {what} left out: {names}"]

    def _problems(self, split: LazySplit) -> dict[int, str]:
        """Returns what is wrong with images, by their places in the split."""
        try:
            key = fingerprint.combine(
                *("unreadable", split.records.fingerprint(), images.DECODER),
                # What cannot be read today may be with more of Pillow's libraries and plugins.
                *(" ".join(listing.image_endings()), str(split.image_side), split.rows),
            )
        except InputError:
            key = ""  # a file cannot be opened now, but perhaps later
        path = self._cache_dir / f"unreadable-{key}.json" if self._cache_dir and key else None
        kept = None if path is None else _read(path)
        if kept is None:
            unread: list[int] = []
            kept = {
                place: reason.removeprefix(split.records.describe(int(split.rows[place])))
                for place, reason in split.undecodable(unread=unread).items()
            }
            # A disk or server may fail for a moment: that is no property of the content.
            if path is not None and not unread:
                _write(path, kept)
        # Kept without the names of files, which may have been moved.
        return {
            place: (split.records.describe(int(split.rows[place])) if reason[:1] == " " else "")
            + reason
            for place, reason in kept.items()
        }


def _read(path: Path) -> dict[int, str] | None:
    try:
        return {int(place): str(reason) for place, reason in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return None


def _write(path: Path, problems: dict[int, str]) -> None:
    try:
        files.write(path, files.to_json(problems))
    except OSError as error:
        console.note(f"which images cannot be read is not kept in {path.parent}: {error}")
