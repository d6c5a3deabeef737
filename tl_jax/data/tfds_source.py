"""Prepared tfds data sets, read through `as_data_source`: no TensorFlow, no network.

A data set is in `DATA_DIR/NAME/VERSION` or `DATA_DIR/NAME/CONFIG/VERSION`, a folder with
`dataset_info.json`, `features.json` and array_record files.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tl_jax import errors
from tl_jax.data import fingerprint, images
from tl_jax.data.records import LazySplit
from tl_jax.errors import InputError

_VERSION = re.compile(r"\d+\.\d+\.\d+")
# What `tfds.data_source("cifar10")` of an installed tfds looks for.
STOCK_VERSIONS = {"cifar10": "3.0.2", "cifar100": "3.0.2"}


class MissingError(InputError):
    """The data set is not in `data_dir`, nor anything else in its place."""


@dataclasses.dataclass(frozen=True)
class Name:
    """The parts of `NAME`, `NAME/CONFIG`, `NAME:VERSION` or `NAME/CONFIG:VERSION`."""

    dataset: str
    config: str = ""
    version: str = ""

    @classmethod
    def parse(cls, text: str) -> "Name":
        """Returns the parts of a tfds name; InputError if it is none."""
        found = re.fullmatch(r"(\w+)(?:/([\w.-]+))?(?::(\d+\.\d+\.\d+))?", text)
        if not found:
            raise InputError(
                f"{text!r} is not the name of a tfds data set; expected NAME, NAME/CONFIG or "
                "NAME:VERSION"
            )
        return cls(*(part or "" for part in found.groups()))

    def __str__(self) -> str:
        config = f"/{self.config}" if self.config else ""
        return f"{self.dataset}{config}" + (f":{self.version}" if self.version else "")


def find(name: Name, data_dir: Path) -> Path:
    """Returns the folder of the prepared data set `name`.

    Raises:
        MissingError: if `data_dir` has nothing of that name.
        InputError: if `data_dir` is a file or itself a data set, or has the data set in another
            version, another configuration or half prepared; the message says what is there.
    """
    check_data_dir(data_dir)
    root = data_dir / name.dataset / name.config if name.config else data_dir / name.dataset
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        below = [folder for folder in _folders(data_dir) if _versions(folder / name.dataset)]
        if below:
            raise InputError(
                f"{name.dataset} is not in data_dir {data_dir}, but in {below[0]}: give that"
            )
        raise MissingError(_missing(name, data_dir))
    versions = _versions(root)
    if not versions:
        configs = [folder.name for folder in _folders(data_dir / name.dataset) if _versions(folder)]
        if configs:
            raise InputError(
                f"tfds data set {name} is prepared with configurations only: give one of "
                + ", ".join(f"tfds:{name.dataset}/{config}" for config in configs)
            )
        found = sorted(path.name for path in root.iterdir()) if root.is_dir() else ["a file"]
        raise InputError(
            f"{root} is not a prepared tfds data set: it has no VERSION/dataset_info.json, only "
            + (", ".join(found[:10]) or "nothing")
        )
    wanted = name.version or STOCK_VERSIONS.get(name.dataset, versions[-1])
    if wanted not in versions:
        raise InputError(
            f"tfds data set {name} is there in version {', '.join(versions)}, expected {wanted}; "
            f"tfds:{name.dataset}:{versions[-1]} reads what is there"
        )
    return root / wanted


def check_data_dir(data_dir: Path) -> None:
    """Raises InputError if `data_dir` is a file, or a tfds data set instead of the folder above."""
    if data_dir.is_file():
        raise InputError(
            f"data_dir {data_dir} is a file; expected the folder that holds tfds data sets"
        )
    own = _owner(data_dir)
    if own is not None:
        raise InputError(
            f"data_dir {data_dir} is itself a tfds data set; give the folder above, {own}"
        )


class Tfds:
    """A prepared tfds data set with one image and one label per example.

    Args:
        folder: the folder with `dataset_info.json`.
        name: of the data set that should be there.
        image_size: see `records.LazySplit`.

    Raises:
        InputError: if another data set is there, files are missing, their format is not
            array_record, or there is no image with a class label.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, folder: Path, name: Name, image_size: int):
        self.name = f"tfds:{name}"
        self._folder = folder
        self._image_size = image_size
        info = _read_json(folder / "dataset_info.json")
        if info.get("fileFormat", "tfrecord") != "array_record":
            raise InputError(
                f"{folder} is stored as {info.get('fileFormat', 'tfrecord')}, which needs "
                "TensorFlow; prepare it again with file_format='array_record'"
            )
        if info.get("name") != name.dataset:
            raise InputError(
                f"{folder} holds the data set {info.get('name')!r}, expected {name.dataset!r}"
            )
        self._builder = _builder(folder)
        self.split_names = tuple(self._builder.info.splits)
        missing = [
            Path(path).name
            for split in self._builder.info.splits.values()
            for path in split.filepaths
            if not Path(path).is_file()
        ]
        if missing:
            raise InputError(f"{folder} is incomplete; missing: {', '.join(sorted(missing))}")
        self._image, self._label = _keys(self._builder.info)

    def split(self, name: str) -> LazySplit:
        """Returns the split `name`, one of `split_names`."""
        records = _TfdsRecords(self._folder, self._builder, name, self._image, self._label)
        rows = np.arange(len(records))
        return LazySplit(records, rows, self._image_size, f"{self.name} {name}")


class _TfdsRecords:
    """The records of one split; see `records.Records`."""

    def __init__(self, folder: Path, builder: Any, split: str, image: str, label: str):
        self._folder, self._split, self._image, self._label = folder, split, image, label
        self._builder = builder
        info = builder.info
        features = info.features
        self._files = [str(path) for path in info.splits[split].filepaths]
        self._fingerprint: str | None = None
        height, width, _ = features[image].shape
        self.declared_size = (height, width) if height and width else None
        self.class_names = tuple(features[label].names)
        self._source: Any = None

    def _open(self) -> Any:
        import tensorflow_datasets as tfds

        builder = self._builder or _builder(self._folder)
        return builder.as_data_source(
            self._split, decoders={self._image: tfds.decode.SkipDecoding()}
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_builder": None, "_source": None}

    @property
    def _examples(self) -> Any:
        if self._source is None:
            self._source = self._open()
        return self._source

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            stored = self._examples.data_source.__getitems__([int(index) for index in indices])
            # A third of the time that tfds takes to give the same.
            features = [tf_example_pb2.Example.FromString(one).features.feature for one in stored]
            encoded = [feature[self._image].bytes_list.value[0] for feature in features]
            labels = [feature[self._label].int64_list.value[0] for feature in features]
        except Exception as error:
            # array_record and protobuf raise a dozen unrelated types for a damaged file.
            raise InputError(
                f"{self._folder}: records {indices[0]} to {indices[-1]} of split {self._split!r} "
                f"cannot be read: {error}"
            ) from error
        return encoded, np.array(labels, np.int64)

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return self.read(indices)[1]

    def size(self, index: int) -> tuple[int, int]:
        return images.stored_size(self.read(np.array([index]))[0][0], self.describe(index))

    def describe(self, index: int) -> str:
        return f"record {index} of split {self._split!r} in {self._folder}"

    def file(self, index: int) -> str:
        return ""

    def fingerprint(self, *, labelled: bool = False) -> str:
        if self._fingerprint is None:
            try:
                self._fingerprint = fingerprint.of_files(self._files, self._image)
            except OSError as error:
                raise InputError(f"{self._folder} cannot be read: {error}") from error
        if labelled:
            return fingerprint.combine(self._fingerprint, self._label)
        return self._fingerprint


def _builder(folder: Path) -> Any:
    import tensorflow_datasets as tfds  # 0.4 s, and only this source needs it

    return tfds.builder_from_directory(folder)


def _keys(info: Any) -> tuple[str, str]:
    """Returns the names of the image and of the label feature."""
    import tensorflow_datasets as tfds

    features = info.features
    kinds = {name: features[name] for name in features}
    supervised = [key for key in info.supervised_keys or () if key in kinds]
    image = [
        name
        for name in [*supervised, *kinds]
        if isinstance(kinds[name], tfds.features.Image) and kinds[name].np_dtype == np.uint8
    ]
    label = [
        name for name in [*supervised, *kinds] if isinstance(kinds[name], tfds.features.ClassLabel)
    ]
    if not image or not label:
        found = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in kinds.items())
        raise InputError(
            f"tfds data set {info.name} has no 8-bit image with a class label; "
            f"its features: {found}"
        )
    return image[0], label[0]


def _missing(name: Name, data_dir: Path) -> str:
    if not data_dir.exists():
        return f"tfds data set {name} is not prepared: data_dir {data_dir} does not exist"
    near = errors.nearest(name.dataset, [folder.name for folder in _folders(data_dir)])
    names = sorted(path.name for path in data_dir.iterdir() if not path.name.startswith("."))
    holds = ", ".join(names[:20]) or "nothing"
    return (
        f"tfds data set {name} is not prepared: data_dir {data_dir} has no folder {name.dataset}"
        + (f"; nearest: {', '.join(near)}" if near else "")
        + f"; it holds {holds}"
    )


def _versions(root: Path) -> list[str]:
    found = [
        folder.name
        for folder in _folders(root)
        if _VERSION.fullmatch(folder.name) and (folder / "dataset_info.json").is_file()
    ]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def _owner(data_dir: Path) -> Path | None:
    if (data_dir / "dataset_info.json").is_file():
        return data_dir.parents[1]
    return data_dir.parent if _versions(data_dir) else None


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
