"""Folders of images: `PATH/{split}/{class}/*` or `PATH/{class}/*`."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tl_jax import errors
from tl_jax.data import fingerprint, images, listing, notation, selection
from tl_jax.data.arrays import TEST_FRACTION
from tl_jax.data.records import LazySplit
from tl_jax.errors import InputError

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
# What a folder is called that holds images of all classes.
_NO_CLASS = {"images", "image", "imgs", "img", "unknown", "unlabeled", "unlabelled"}

_Files = dict[str, list[str]]  # paths by class


class Folder:
    """Images in one folder per class; classes are numbered in the order of their names.

    A folder without splits gets three: `test` is a fifth of every class, always the same files,
    `train` the rest and `all` both. Folders inside a class folder belong to the class. A split may
    also be laid out as Tiny ImageNet's `val`: `images/*` and `val_annotations.txt`, whose lines
    begin with a file name and a class. Class names are compared in Unicode's composed form (NFC).

    Args:
        path: the folder.
        image_size: see `records.LazySplit`.

    Attributes:
        split_names: what `split` takes: the names of folders, as they are.
        notes: what was passed over, a line each.

    Raises:
        InputError: if the folder or its images are missing or cannot be read, there is one class
            only, or a split has a class that `train` has not.
    """

    def __init__(self, path: Path, image_size: int):
        self.name = f"folder:{path}"
        self._path, self._image_size = path, image_size
        self._ignored = listing.Ignored()
        self._left_out: list[str] = []
        if not os.path.isdir(path):  # pathlib raises errors where this is False
            raise InputError(_no_folder(path))
        splits = self._split_folders(listing.subfolders(path, self._ignored))
        files = {folder.name: self._read_split(folder) for folder in splits}
        if not splits:
            files = {"all": self._classes(path)}
        self._records = self._index(files)
        self._rows = {name: np.arange(len(found)) for name, found in self._records.items()}
        if not splits:
            records = self._records["all"]
            labels = records.labels(self._rows["all"])
            count = max(1, round(TEST_FRACTION * len(labels)))
            self._rows["train"], self._rows["test"] = selection.hold_out(labels, count, seed=0)
            self._records |= {"train": records, "test": records}
        self.split_names = tuple(self._rows)
        ignored = self._ignored.describe()
        self.notes = tuple(
            [f"{self.name}: ignored {ignored}"] * bool(ignored)
            + [f"{self.name}: {line}" for line in self._left_out]
            + [f"{self.name}: {line}" for line in _similar(next(iter(self._records.values())))]
        )

    def _split_folders(self, folders: list[Path]) -> list[Path]:
        """Returns which of the folders are splits; none where they are classes."""
        roles = {folder: notation.role(folder.name) for folder in folders}
        named = [folder for folder in folders if roles[folder]]
        others = [folder for folder in folders if not roles[folder]]
        flat = any(listing.images(folder, nested=False) for folder in others)
        deep = [folder for folder in named if listing.subfolders(folder)]
        # Classes may be called `train` or `valid`, beside others that hold images themselves.
        if named and (not flat or any(roles[folder] == "train" for folder in deep)):
            self._ignored.folders += [str(folder) for folder in others]
            return named
        if flat or not others:
            return []
        below = {folder: listing.subfolders(folder) for folder in others}
        inner = {name.name for found in below.values() for name in found}
        if len(others) == 1 and len(inner) > 1:
            raise InputError(
                f"{self._path} holds one folder only, {others[0].name}, which holds "
                f"{listing.some(sorted(inner))}: if these are the classes or splits, give "
                f"--config.data.name=folder:{others[0]}"
            )
        if len(inner) < 2:
            return []
        names = listing.some([folder.name for folder in others])
        self._left_out.append(f"its folders are read as splits, as they hold no images: {names}")
        return others

    def _read_split(self, folder: Path) -> _Files:
        table = next(iter(sorted(folder.glob("*_annotations.txt"))), None)
        if table is not None and (folder / "images").is_dir():
            files = listing.images(folder / "images", self._ignored)
            if files:
                return self._annotated(table, files)
        loose = listing.images(folder, nested=False)
        classes = self._classes(folder)
        if loose and classes:
            self._ignored.loose += loose
        return classes

    def _classes(self, folder: Path) -> _Files:
        classes: _Files = {}
        for child in listing.subfolders(folder, self._ignored):
            name = unicodedata.normalize("NFC", child.name)
            if name in classes:
                raise InputError(f"{folder} has two folders that are both called {name}: join them")
            classes[name] = listing.images(child, self._ignored)
        return classes

    def _annotated(self, table: Path, files: list[str]) -> _Files:
        """Returns the images of a split whose labels are in a table, as Tiny ImageNet's `val`."""
        classes: _Files = {}
        present = {Path(file).name: file for file in files}
        try:
            lines = table.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"{table} cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            name, _, rest = line.strip().partition("\t")
            label = rest.partition("\t")[0]
            if not label or name not in present:
                raise InputError(
                    f"{table} line {number}: expected the name of an image in {table.parent / 'images'} "
                    f"and a class, separated by a tab; found {line[:80]!r}"
                )
            classes.setdefault(label, []).append(present.pop(name))
        if present:
            self._left_out.append(
                f"{len(present)} images in {table.parent.name} have no line in {table.name}, not used"
            )
        return {label: sorted(found) for label, found in classes.items()}

    def _index(self, files: dict[str, _Files]) -> dict[str, "_FileRecords"]:
        """Returns the records of every split that has labels."""
        if not any(found for classes in files.values() for found in classes.values()):
            raise InputError(self._no_images(files))
        reference = next((name for name in files if notation.role(name) == "train"), None)
        reference = reference or next(iter(files))
        class_names = tuple(sorted(files[reference]))
        problems = [
            f"{'' if reference == 'all' else reference + '/'}{name} has no images"
            for name, found in files[reference].items()
            if not found
        ] or ([] if class_names else [f"{reference} has no class folders"])
        labelled = {}
        for split, classes in files.items():
            extra = sorted(name for name in set(classes) - set(class_names) if classes[name])
            if split != reference and self._has_no_labels(classes, extra):
                self._left_out.append(self._why_left_out(split, classes))
            else:
                labelled[split] = _FileRecords(classes, class_names)
                problems += [
                    _not_a_class(f"{split}/{name}", reference, class_names) for name in extra
                ]
        if len(class_names) == 1 and files[reference][class_names[0]]:
            raise InputError(self._one_class(reference, class_names[0]))
        if problems:
            more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
            ignored = self._ignored.describe()
            if any(not found for found in files[reference].values()):
                more += "; remove empty folders or add images"
            reason = f"; ignored {ignored}" if ignored else ""
            raise InputError(f"{self._path}: " + "; ".join(problems[:10]) + more + reason)
        return labelled

    def _has_no_labels(self, classes: _Files, extra: list[str]) -> bool:
        if not any(classes.values()):
            return True
        return len(classes) == 1 and bool(extra) and extra[0].lower() in _NO_CLASS

    def _why_left_out(self, split: str, classes: _Files) -> str:
        loose = len(listing.images(self._path / split, nested=False))
        if loose:
            return (
                f"{split} has no class folders: its {loose} images have no labels and are not used"
            )
        for name, found in classes.items():
            if found:
                return (
                    f"{split} has no labels: {split}/{name}, which is not a class, holds all its "
                    f"{len(found)} images; they are not used"
                )
        return f"{split} has no images"

    def _no_images(self, files: dict[str, _Files]) -> str:
        direct = listing.images(self._path, self._ignored, nested=False)
        ignored = self._ignored.describe()
        if direct:
            return (
                f"{self._path} holds {len(direct)} images itself, such as {Path(direct[0]).name}; "
                f"expected one folder for each class: {self._path}/CLASS/*, or {self._path}/train/CLASS/*"
            )
        return "; ".join(
            [
                f"{self._path} has no images in PATH/CLASS/* nor in PATH/SPLIT/CLASS/*",
                *(self._why_left_out(split, files[split]) for split in files if split != "all"),
                *([f"ignored {ignored}"] if ignored else []),
                f"names of images end in {', '.join(listing.image_endings())}",
            ]
        )

    def _one_class(self, reference: str, name: str) -> str:
        place = self._path if reference == "all" else self._path / reference
        beside = listing.images(place, nested=False)
        ignored = self._ignored.describe()
        return (
            f"{place} has one class only, {name!r}; expected two or more class folders, as any network "
            "is right on one class"
            + (f"; {len(beside)} images are beside {name!r} in no class folder" if beside else "")
            + (f"; ignored {ignored}" if ignored else "")
        )

    def split(self, name: str) -> LazySplit:
        """Returns the split `name`, one of `split_names`."""
        return LazySplit(
            self._records[name], self._rows[name], self._image_size, f"{self.name} {name}"
        )


def unlabelled(
    files: Sequence[str], image_size: int, interpolation: str, class_names: Sequence[str]
) -> LazySplit:
    """Returns a split of image files whose classes are not known; all labels are 0.

    Args:
        files: paths.
        image_size: see `records.LazySplit`.
        interpolation: likewise.
        class_names: of the network that is to look at them.
    """
    records = _FileRecords({class_names[0]: list(files)}, tuple(class_names))
    return LazySplit(records, np.arange(len(files)), image_size, "images", interpolation)


class _FileRecords:
    """Files ordered by class, then name; see `records.Records`."""

    declared_size: tuple[int, int] | None = None

    def __init__(self, classes: _Files, class_names: tuple[str, ...]):
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

    def file(self, index: int) -> str:
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


def shared_images(train: LazySplit, test: LazySplit) -> str:
    """Returns a line about files of `test` that `train` holds too, byte for byte; empty if none.

    Both are splits of folders. Very large ones are not compared, see `listing.equal_files`.
    """
    files, tested = (
        [split.records.describe(int(row)) for row in split.rows] for split in (train, test)
    )
    pairs = listing.equal_files(files, tested)
    if not pairs:
        return ""
    first, second = pairs[0]
    relabelled = sum(train.labels[a] != test.labels[b] for a, b in pairs)
    return (
        f"{len(pairs)} of {len(test)} images of {test.name} are in the training split too, byte for byte "
        f"(such as {tested[second]} and {files[first]})"
        + (f", {relabelled} of them with another class" if relabelled else "")
        + ": accuracy on them says nothing about new images"
    )


def _no_folder(path: Path) -> str:
    if os.path.isfile(path) and path.suffix.lower() in _ARCHIVES:
        return f"{path} is an archive: unpack it and give the folder, such as folder:{path.stem}"
    kind = "is a file" if os.path.isfile(path) else "does not exist or cannot be reached"
    return f"{path} {kind}; folder:PATH needs a folder with PATH/CLASS/* or PATH/SPLIT/CLASS/*"


def _not_a_class(name: str, reference: str, class_names: tuple[str, ...]) -> str:
    near = errors.nearest(name.partition("/")[2], class_names, 1)
    return f"{name} is not a class of {reference}" + (f" (nearest: {near[0]})" if near else "")


def _similar(records: _FileRecords) -> list[str]:
    """Returns a line if names of classes differ in case or spaces only."""
    by_name: dict[str, list[str]] = {}
    for name in records.class_names:
        by_name.setdefault("".join(name.casefold().split()), []).append(name)
    alike = [" and ".join(map(repr, names)) for names in by_name.values() if len(names) > 1]
    if not alike:
        return []
    return [f"classes whose names differ in case or spaces only: {listing.some(alike)}"]
