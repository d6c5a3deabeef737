"""Features as files that other programs read: NumPy's .npz, or a TFDS directory.

N: examples of a split; F: features of an example.
"""

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_jax import files
from tl_jax.data import tfds_writer
from tl_jax.errors import InputError, unknown

FORMATS = ("npz", "tfds")
TFDS_NAME, TFDS_VERSION = "features", "1.0.0"


@dataclasses.dataclass(frozen=True)
class Features:
    """The features of a split.

    Attributes:
        features: float32 [N, F].
        labels: int32 [N].
        indices: int64 [N], the place of each example in the split that it was taken from, such as that in
            train before examples were held out.
        class_names: one per class.
    """

    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def joined(self, other: "Features") -> "Features":
        """Returns these examples and then those of another split."""
        return Features(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.indices, other.indices]),
            self.class_names,
        )

    def at(self, places: np.ndarray) -> "Features":
        """Returns the examples at these places."""
        return Features(
            self.features[places], self.labels[places], self.indices[places], self.class_names
        )


def check_class_names(class_names: Sequence[str], kind: str) -> None:
    """Raises InputError if files of this kind, see `save`, cannot hold the names of the classes."""
    if kind not in FORMATS:
        raise unknown("features.format", kind, FORMATS)
    if kind == "tfds":
        tfds_writer.check_class_names(class_names, "features.format=tfds", "features.format=npz")


def save(folder: Path, splits: Mapping[str, Features], kind: str) -> dict[str, str]:
    """Writes the features of every split into `folder`; returns {split: where, relative to it}.

    The bytes depend on the features alone.

    Args:
        folder: exists.
        splits: by name.
        kind: "npz": `SPLIT.npz` with the attributes of `Features` and `split`; "tfds": the data set `features` in
            the data_dir `folder`, each example with `features`, `label` and `index`, in order.

    Raises:
        InputError: if `kind` is unknown, or cannot hold the names of the classes.
        OSError: if the disk is full.
    """
    check_class_names(next(iter(splits.values())).class_names, kind)
    if kind == "tfds":
        return _save_tfds(folder, splits)
    for name, split in splits.items():
        path = folder / f"{name}.npz"
        arrays = {
            "features": split.features,
            "labels": split.labels,
            "indices": split.indices,
            "class_names": np.array(split.class_names, str),
            "split": np.array(name),
        }
        draft = path.with_name(f".{name}.tmp.npz")  # with another ending NumPy adds its own
        with files.explain_full_disk(path.name, folder, split.features.nbytes):
            try:
                np.savez(draft, **arrays)  # type: ignore[arg-type]
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    return {name: f"{name}.npz" for name in splits}


def load(path: Path) -> Features:
    """Returns what `save` wrote to a .npz file.

    Raises:
        InputError: if it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = tuple(map(str, stored["class_names"]))
            return Features(stored["features"], stored["labels"], stored["indices"], names)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"{path} is no file of features ({error}); expected one of experiments.features"
        ) from error


def _save_tfds(folder: Path, splits: Mapping[str, Features]) -> dict[str, str]:
    import tensorflow_datasets as tfds

    first = next(iter(splits.values()))
    described = {
        "features": tfds.features.Tensor(shape=(first.features.shape[1],), dtype=np.float32),
        "label": tfds.features.ClassLabel(names=list(first.class_names)),
        "index": tfds.features.Scalar(dtype=np.int64),
    }
    # What an interrupted command left would be taken for this data set.
    shutil.rmtree(folder / TFDS_NAME, ignore_errors=True)
    needed = sum(split.features.nbytes for split in splits.values())
    with files.explain_full_disk(TFDS_NAME, folder, needed):
        written = tfds_writer.write(
            folder,
            TFDS_NAME,
            TFDS_VERSION,
            described,
            {name: _examples(split) for name, split in splits.items()},
            description="Features of images.",
            disable_shuffling=True,
        )
    place = str(written.relative_to(folder))
    return dict.fromkeys(splits, place)


def _examples(split: Features) -> Iterator[tuple[int, dict[str, Any]]]:
    for place in range(len(split)):
        yield (
            place,
            {
                "features": split.features[place],
                "label": int(split.labels[place]),
                "index": int(split.indices[place]),
            },
        )
