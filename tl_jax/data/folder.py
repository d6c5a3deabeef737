"""Folders of images: `PATH/{split}/{class}/*` or `PATH/{class}/*`."""

import os
from pathlib import Path

import numpy as np

from tl_jax.data import fingerprint, images, selection
from tl_jax.data.records import LazySplit
from tl_jax.errors import InputError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_SPLITS = ("train", "val", "validation", "test")
_TEST_FRACTION = 0.2


class Folder:
    """Images in one folder per class; classes are numbered in the order of their names.

    A folder without splits gets three: `test` is a fifth of every class, always the same files,
    `train` the rest and `all` both. Files whose name starts with a dot or does not end like an
    image are passed over; folders inside a class folder belong to the class.

    Args:
        path: the folder.
        image_size: see `records.LazySplit`.

    Raises:
        InputError: if the folder or its images are missing, or a split has a class that `train` has
            not.
    """

    def __init__(self, path: Path, image_size: int):
        self.name = f"folder:{path}"
        self._image_size = image_size
        if not path.is_dir():
            raise InputError(
                f"{path} is not a folder; folder:PATH needs PATH/CLASS/* or PATH/SPLIT/CLASS/*"
            )
        folders = _subfolders(path)
        named = [folder for folder in folders if folder.name in _SPLITS]
        holds_images = any(_images(folder, nested=False) for folder in folders) and not named
        splits = {} if holds_images else {folder.name: folder for folder in named or folders}
        files = {name: _classes(folder) for name, folder in splits.items()}
        if not splits:
            files = {"all": _classes(path)}
        self._records = {name: found for name, found in self._index(path, files).items()}
        self._rows = {name: np.arange(len(found)) for name, found in self._records.items()}
        if not splits:
            records = self._records["all"]
            labels = records.labels(self._rows["all"])
            count = max(1, round(_TEST_FRACTION * len(labels)))
            self._rows["train"], self._rows["test"] = selection.hold_out(labels, count, seed=0)
            self._records |= {"train": records, "test": records}
        self.split_names = tuple(self._rows)

    def _index(
        self, path: Path, files: dict[str, dict[str, list[str]]]
    ) -> dict[str, "_FileRecords"]:
        if not any(found for classes in files.values() for found in classes.values()):
            raise InputError(
                f"{path} has no images in PATH/CLASS/* nor in PATH/SPLIT/CLASS/*; "
                f"names of images end in {', '.join(EXTENSIONS)}"
            )
        reference = "train" if "train" in files else next(iter(files))
        class_names = tuple(sorted(files[reference]))
        problems = [
            f"{'' if reference == 'all' else reference + '/'}{name} has no images"
            for name, found in files[reference].items()
            if not found
        ]
        for split, classes in files.items():
            extra = sorted(set(classes) - set(class_names))
            problems += [f"{split}/{name} is no class of {reference}" for name in extra]
        if problems:
            shown = [
                *problems[:10],
                *([f"and {len(problems) - 10} more"] if len(problems) > 10 else []),
            ]
            raise InputError(f"{path}: " + "; ".join(shown))
        return {split: _FileRecords(classes, class_names) for split, classes in files.items()}

    def split(self, name: str) -> LazySplit:
        """Returns the split `name`, one of `split_names`."""
        return LazySplit(
            self._records[name], self._rows[name], self._image_size, f"{self.name} {name}"
        )


class _FileRecords:
    """Files ordered by class, then name; see `records.Records`."""

    declared_size: tuple[int, int] | None = None

    def __init__(self, classes: dict[str, list[str]], class_names: tuple[str, ...]):
        self.class_names = class_names
        found = [classes.get(name, []) for name in class_names]
        self._files = [file for files in found for file in files]
        self._fingerprint: str | None = None
        self._labels = np.repeat(np.arange(len(found)), [len(files) for files in found])

    def __len__(self) -> int:
        return len(self._files)

    def read(self, indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        try:
            return [Path(self._files[index]).read_bytes() for index in indices], self._labels[
                indices
            ]
        except OSError as error:
            raise InputError(f"an image cannot be read: {error}") from error

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return self._labels[indices]

    def size(self, index: int) -> tuple[int, int]:
        return images.stored_size(Path(self._files[index]), self._files[index])

    def describe(self, index: int) -> str:
        return self._files[index]

    def fingerprint(self, *, labelled: bool = False) -> str:
        if self._fingerprint is None:
            try:
                self._fingerprint = fingerprint.of_files(self._files)
            except OSError as error:
                raise InputError(f"an image cannot be read: {error}") from error
        if labelled:
            return fingerprint.combine(self._fingerprint, self._labels)
        return self._fingerprint


def _classes(folder: Path) -> dict[str, list[str]]:
    return {child.name: _images(child, nested=True) for child in _subfolders(folder)}


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".")
        )


def _images(folder: Path, *, nested: bool) -> list[str]:
    found = []
    for parent, children, names in os.walk(folder, followlinks=True):
        children[:] = [child for child in children if nested and not child.startswith(".")]
        found += [
            os.path.join(parent, name)
            for name in names
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return sorted(found)
