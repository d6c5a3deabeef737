"""Sources that are arrays from the start: scikit-learn's digits and .npz files.

A source has a `name`, `split_names` and `split(name) -> Split`.
"""

import contextlib
import functools
import gzip
import importlib.util
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tl_jax.data import fingerprint, selection
from tl_jax.data.split import InMemorySplit
from tl_jax.errors import InputError

_DIGITS_TEST_PER_CLASS = 50
TEST_FRACTION = 0.2  # of data without a test split


class Digits:
    """1,797 handwritten digits in 10 classes, part of scikit-learn: the data that is always there.

    Stored as 8x8 grey values in [0, 16]; given as 32x32 RGB, each stored pixel a 4x4 square of
    `round(value * 255 / 16)`. The file names no split: 500 examples, 50 of each class, are `test`
    and 1,297 `train`, the same ones always.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.
    """

    name = "digits"
    split_names: tuple[str, ...] = ("train", "test")
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> InMemorySplit:
        """Returns `train` or `test`."""
        stored, labels = _stored_digits()
        grey = np.round(stored * (255 / 16)).astype(np.uint8)
        images = np.repeat(np.repeat(grey, 4, axis=1), 4, axis=2)
        class_names = [str(digit) for digit in range(10)]
        chosen = selection.few_shot(labels, _DIGITS_TEST_PER_CLASS, 0, class_names)
        if name == "train":
            chosen = np.setdiff1d(np.arange(len(labels)), chosen)
        return InMemorySplit(images[chosen], labels[chosen], class_names, f"digits {name}")


@functools.cache
def _stored_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images [1797, 8, 8] with values in [0, 16] and labels [1797], int64."""
    # Read from scikit-learn's file: importing scikit-learn takes more than a second.
    package = importlib.util.find_spec("sklearn")
    place = next(iter((package and package.submodule_search_locations) or ()), "")
    path = Path(place, "datasets", "data", "digits.csv.gz")
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except OSError as error:
        raise InputError(f"digits needs the file that comes with scikit-learn: {error}") from error
    rows = np.array(text.replace("\n", ",").strip(",").split(","), np.float64).reshape(-1, 65)
    return rows[:, :64].reshape(-1, 8, 8), rows[:, 64].astype(np.int64)


class Arrays:
    """Images and labels that are arrays in memory.

    Attributes:
        name: "arrays:" and the beginning of a digest of images, labels and class names, so that a run
            folder knows its data again.
        split_names: what `split` takes.
        class_names: one name per class.

    Raises:
        InputError: if images or labels of a split are not as described below.
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
        class_names: Sequence[str] = (),
    ):
        """Checks images and labels.

        Args:
            splits: {name: (images uint8 [N, H, W, 3], [N, H, W, 1] or [N, H, W], labels integers [N])}.
            class_names: K of them; none: the numbers up to the highest label.
        """
        arrays = {
            split: (np.asarray(images), np.asarray(labels))
            for split, (images, labels) in splits.items()
        }
        highest = max((_numbers(labels) for _, labels in arrays.values()), key=len, default=[])
        self.class_names = tuple(map(str, class_names or highest))
        self.split_names = tuple(arrays)
        self._splits = {
            split: InMemorySplit(images, labels, self.class_names, f"arrays {split}")
            for split, (images, labels) in arrays.items()
        }
        parts = (
            part for split in self._splits.values() for part in (split.fingerprint(), split.labels)
        )
        digest = fingerprint.combine(*self.split_names, *self.class_names, *parts)
        self.name = f"arrays:{digest[:16]}"

    @classmethod
    def split_off_test(
        cls, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str] = ()
    ) -> "Arrays":
        """Returns a source whose test split is a fifth of every class, the same always, and train the rest."""
        images, labels = np.asarray(images), np.asarray(labels)
        whole = InMemorySplit(images, labels, class_names or _numbers(labels), "arrays")
        count = max(1, round(TEST_FRACTION * len(labels)))
        train, test = selection.hold_out(whole.labels, count, seed=0)
        parts = {"train": train, "test": test}
        return cls(
            {name: (images[rows], labels[rows]) for name, rows in parts.items()}, class_names
        )

    def split(self, name: str) -> InMemorySplit:
        """Returns the split `name`, one of `split_names`."""
        return self._splits[name]


def _numbers(labels: np.ndarray) -> list[str]:
    """Returns the names of classes that have none: the numbers up to the highest label."""
    if labels.dtype.kind in "OSU":
        raise InputError(
            f"labels are {labels.dtype}; expected integers from 0: class_names, labels = np.unique(labels, "
            "return_inverse=True)"
        )
    return [str(number) for number in range(int(labels.max(initial=-1)) + 1)] if labels.size else []


class Npz:
    """A .npz file with `{split}_images` uint8 [N, H, W, 3] and `{split}_labels` integers [N].

    Class names are `class_names` or `names` [K] where the file has them, else the numbers up to the
    highest label of any split.

    Attributes:
        split_names: what `split` takes.
        notes: arrays that were ignored, a line each.

    Raises:
        InputError: if the file is absent or no such file, or labels are not as above; the message
            names the file and the array.
    """

    def __init__(self, path: Path):
        self.name = f"npz:{path}"
        self._path = path
        if not os.path.isfile(path):
            raise InputError(f"{path} is not a file; npz:PATH needs a .npz file")
        with self._open() as stored:
            pairs = [key.removesuffix("_images") for key in stored if key.endswith("_images")]
            self.split_names = tuple(pair for pair in pairs if f"{pair}_labels" in stored)
            if not self.split_names:
                raise InputError(
                    f"{path} has no pair of arrays SPLIT_images and SPLIT_labels, such as "
                    f"train_images and train_labels; it has {', '.join(stored) or 'none'}"
                )
            self._class_names = self._names(stored)
        alone = [f"{pair}_images" for pair in pairs if pair not in self.split_names]
        self.notes = tuple(f"{self.name}: ignored {key}, which has no labels" for key in alone)

    def _names(self, stored: np.lib.npyio.NpzFile) -> list[str]:
        key = next((key for key in ("class_names", "names") if key in stored), None)
        if key is not None:
            names = self._array(stored, key)
            if names.ndim != 1:
                raise InputError(f"{self.name}: {key} has shape {list(names.shape)}, expected [K]")
            return [str(name) for name in names]
        found = {f"{split}_labels": self._labels(stored, split) for split in self.split_names}
        highest = max(int(labels.max(initial=-1)) for labels in found.values())
        lowest = min(int(labels.min(initial=highest)) for labels in found.values())
        if lowest > 0:
            raise InputError(
                f"{self.name}: labels go from {lowest} to {highest}; expected integers from 0. Subtract "
                f"{lowest}, or, if lower classes exist without images, add an array class_names [K]"
            )
        return [str(number) for number in range(highest + 1)]

    def split(self, name: str) -> InMemorySplit:
        """Returns the split `name`, one of `split_names`.

        Raises:
            InputError: if its images or labels are not as above.
        """
        with self._open() as stored:
            images, labels = self._array(stored, f"{name}_images"), self._labels(stored, name)
        return InMemorySplit(images, labels, self._class_names, f"{self.name} {name}")

    def _labels(self, stored: np.lib.npyio.NpzFile, split: str) -> np.ndarray:
        labels = self._array(stored, f"{split}_labels")
        advice = ""
        if labels.ndim == 2 and labels.shape[1] == 1:
            advice = "; use labels[:, 0]"
        elif labels.ndim == 2:
            advice = "; use labels.argmax(1) if they are one-hot"
        elif labels.dtype.kind in "US":
            advice = "; use class_names, labels = np.unique(labels, return_inverse=True)"
        elif labels.dtype.kind == "f":
            advice = "; use labels.astype(np.int64) if all are whole numbers"
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise InputError(
                f"{self.name}: {split}_labels are {labels.dtype} {list(labels.shape)}, expected "
                f"integers [N]{advice}"
            )
        if len(labels) and labels.min() < 0:
            raise InputError(
                f"{self.name}: {np.count_nonzero(labels < 0)} of {len(labels)} {split}_labels are below "
                f"0, the lowest is {labels.min()}; expected integers from 0 (leave out images without "
                "a label)"
            )
        return labels

    def _array(self, stored: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
        try:
            return stored[key]
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise InputError(
                f"{self.name}: {key} is an array of Python objects, which is not read; expected one of "
                "numbers, for which all images must have one size (or names: np.array(names, str))"
            ) from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[np.lib.npyio.NpzFile]:
        # Opened here, as numpy leaves the file open when it is damaged.
        with open(self._path, "rb") as file:
            try:
                with zipfile.ZipFile(file):
                    file.seek(0)
                yield np.load(file, allow_pickle=False)
            except InputError:
                raise
            except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
                raise InputError(f"{self._path} is not a readable .npz file: {error}") from error
