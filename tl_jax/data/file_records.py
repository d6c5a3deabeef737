"""Image files whose classes are known: what folders, archives and tables of files have in common."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tl_jax import errors
from tl_jax.data import fingerprint, listing, notation, selection
from tl_jax.data.arrays import TEST_FRACTION
from tl_jax.data.broken import BrokenImages
from tl_jax.data.file_index import FileIndex
from tl_jax.data.records import LazySplit
from tl_jax.data.skipping import Skip

Files = dict[str, list[str]]  # paths by class


class FileRecords:
    """Files ordered by class, then name; see `records.Records`.

    Args:
        storage: where the files are.
        index: their digests and sizes.
        classes: their paths.
        class_folders: the keys of `classes` that count, in the order of the labels.
        class_names: how these are called; empty: as their folders.
    """

    declared_size: tuple[int, int] | None = None

    def __init__(
        self,
        storage: listing.Storage,
        index: FileIndex,
        classes: Files,
        class_folders: Sequence[str],
        class_names: Sequence[str] = (),
    ):
        self.class_names = tuple(class_names or class_folders)
        self._storage, self._index = storage, index
        found = [classes.get(name, []) for name in class_folders]
        self._files = [file for files in found for file in files]
        self._fingerprint: str | None = None
        self._labels = np.repeat(np.arange(len(found)), [len(files) for files in found])

    def __len__(self) -> int:
        return len(self._files)

    def read(self, indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        """See `Records`."""
        encoded = []
        for path in (self._files[index] for index in indices):
            try:
                encoded.append(self._storage.read(path))
            except OSError as error:
                raise BrokenImages([_unopened(path, error)]) from error
        return encoded, self._labels[indices]

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """See `Records`."""
        return self._labels[indices]

    def size(self, index: int) -> tuple[int, int]:
        """See `Records`."""
        return self._index.size(self._files[index])

    def describe(self, index: int) -> str:
        """See `Records`."""
        return self._files[index]

    def file(self, index: int) -> str:
        """See `Records`."""
        return self._files[index]

    def fingerprint(self, *, labelled: bool = False) -> str:
        """See `Records`; that of an archive is the one of its files unpacked."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint.combine(*self._digests())
            self._index.save()
        if labelled:
            return fingerprint.combine(self._fingerprint, self._labels)
        return self._fingerprint

    def _digests(self) -> list[str]:
        """Returns the digest of every file; raises BrokenImages with all that cannot be opened."""
        digests, problems = [], []
        for path in self._files:
            try:
                digests.append(self._index.digest(path))
            except OSError as error:
                problems.append(_unopened(path, error))
        if problems:
            raise BrokenImages(problems)
        return digests


class FileSource:
    """Images in files, by split and class: the part of a source that looks at no layout.

    Without splits there are three: `test` is a fifth of every class, always the same files, `train` the
    rest and `all` both.

    Args:
        name: how messages call the data set.
        storage: where the files are.
        root: of the files; see `file_index.FileIndex`.
        image_size: see `records.LazySplit`.
        skip: leaves out what cannot be read; None: nothing is looked at, an image that cannot be read is an
            error when it is.
        cache_dir: where digests and sizes of the files are kept for later runs; None: nowhere.

    Attributes:
        split_names: what `split` takes.
        notes: what a user should know, a line each.
        skip: as given.
    """

    def __init__(
        self,
        name: str,
        storage: listing.Storage,
        root: Path,
        image_size: int,
        skip: Skip | None = None,
        cache_dir: Path | None = None,
    ):
        self.name = name
        self.skip = skip
        self.split_names: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self._storage, self._image_size = storage, image_size
        self._file_index = FileIndex(storage, root, cache_dir)
        self._records: dict[str, FileRecords] = {}
        self._rows: dict[str, np.ndarray] = {}

    def _use(
        self, files: dict[str, Files], class_folders: Sequence[str], class_names: Sequence[str]
    ) -> None:
        """Takes the files of every split; of one called `all`, which is alone, a fifth is test."""
        self._records = {
            split: FileRecords(self._storage, self._file_index, classes, class_folders, class_names)
            for split, classes in files.items()
        }
        self._rows = {name: np.arange(len(found)) for name, found in self._records.items()}
        if list(files) == ["all"]:
            records = self._records["all"]
            labels = records.labels(self._rows["all"])
            count = max(1, round(TEST_FRACTION * len(labels)))
            self._rows["train"], self._rows["test"] = selection.hold_out(labels, count, seed=0)
            self._records |= {"train": records, "test": records}
        self.split_names = tuple(self._rows)

    def _readable(self, classes: Files) -> Files:
        """Returns the files of a split without those that are left out."""
        if self.skip is None:
            return classes
        paths = [path for name in sorted(classes) for path in classes[name]]
        opened: Files = {"": []}
        for path in paths:
            try:
                self._file_index.digest(path)
                opened[""].append(path)
            except OSError as error:
                self.skip.found[path] = _unopened(path, error)
        records = FileRecords(self._storage, self._file_index, opened, ("",))
        split = LazySplit(records, np.arange(len(records)), self._image_size, self.name)
        kept = {opened[""][place] for place in self.skip.readable(split)}
        return {name: [path for path in found if path in kept] for name, found in classes.items()}

    def _skipped(self) -> str:
        """Returns how an error ends where images were left out; empty where none were."""
        found = self.skip.found if self.skip is not None else {}
        listed = listing.some(sorted(found.values()))
        return f"; left out as they cannot be read ({len(found)}): {listed}" if found else ""

    def split(self, name: str) -> LazySplit:
        """Returns the split `name`, one of `split_names`."""
        return LazySplit(
            self._records[name], self._rows[name], self._image_size, f"{self.name} {name}"
        )

    def shared_images(self, train: LazySplit, test: LazySplit) -> str:
        """Returns a line about files of `test` that `train` holds too, byte for byte; empty if none.

        Both are splits of this source. Very large ones are not compared, see `listing.equal_files`.
        """
        files, tested = (
            [split.records.describe(int(row)) for row in split.rows] for split in (train, test)
        )
        pairs = listing.equal_files(self._storage, files, tested, self._file_index.digest)
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

    def save_index(self) -> None:
        """Keeps the digests and sizes of the files for later runs."""
        self._file_index.save()


def _unopened(path: str, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror or error}"


def reference_split(files: Mapping[str, Files]) -> str:
    """Returns the split whose classes are those of the data set: the training split, else the first."""
    trained = (name for name in files if notation.role(name) == "train")
    return next(trained, None) or next(iter(files))


def not_classes(
    split: str, names: Sequence[str], reference: str, known: Sequence[str]
) -> list[str]:
    """Returns a line for each of `names`, classes of `split`, that the split `reference` has not."""
    return [
        f"{split}/{name} is not a class of {reference}"
        + (f" (nearest: {near[0]})" if (near := errors.nearest(name, known, 1)) else "")
        for name in names
    ]


def expected_classes(split: str, reference: str, known: Sequence[str]) -> str:
    """Returns how an error about `not_classes` ends: the classes of the split `reference`, and what to do.

    Args:
        split: what holds images of other classes, as the message calls it.
        reference: see `reference_split`.
        known: its classes.
    """
    return (
        f"; the classes of {reference} are {listing.some(known)}: rename or remove {split} that are not among "
        f"them, or add them to {reference}"
    )


def similar_names(class_names: Sequence[str]) -> list[str]:
    """Returns a line if names of classes differ in case, spaces or zeros before a number only."""
    by_name: dict[str, list[str]] = {}
    for name in class_names:
        plain = "".join(name.casefold().split())
        by_name.setdefault(plain.lstrip("0") if plain.isdecimal() else plain, []).append(name)
    alike = [" and ".join(map(repr, names)) for names in by_name.values() if len(names) > 1]
    if not alike:
        return []
    return [
        f"classes whose names differ in case, spaces or leading zeros only: {listing.some(alike)}"
    ]


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
    classes = {class_names[0]: list(map(str, files))}
    disk = listing.Disk()
    records = FileRecords(disk, FileIndex(disk, Path()), classes, tuple(class_names))
    return LazySplit(records, np.arange(len(files)), image_size, "images", interpolation)
