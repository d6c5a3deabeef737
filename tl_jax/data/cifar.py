"""The publisher's CIFAR-10 and CIFAR-100 archives, in both formats, read without unpacking.

Source: https://www.cs.toronto.edu/~kriz/cifar.html, which states the formats and the MD5 sums; the
SHA-256 sums are those of `url_checksums/` in tensorflow_datasets 4.9.10.
"""

import dataclasses
import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tl_jax import files
from tl_jax.errors import InputError

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file as published.

    Attributes:
        dataset: `cifar10` or `cifar100`.
        filename: the publisher's.
        md5: hexadecimal.
        sha256: hexadecimal, or None where none is published.
    """

    dataset: str
    filename: str
    md5: str
    sha256: str | None = None

    @property
    def url(self) -> str:
        """Where it is published."""
        return f"https://www.cs.toronto.edu/~kriz/{self.filename}"

    @property
    def checksum(self) -> str:
        """The stronger of the published sums."""
        return self.sha256 or self.md5


ARCHIVES = (
    Archive(
        "cifar10",
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    Archive("cifar10", "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    Archive(
        "cifar100",
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
    Archive("cifar100", "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
)


@dataclasses.dataclass(frozen=True)
class _Layout:
    train: tuple[str, ...]
    test: str
    meta: tuple[str, ...]


# Label keys in tfds's words, in the order of the bytes of a binary record.
LABELS = {"cifar10": ("label",), "cifar100": ("coarse_label", "label")}
_BINARY = {
    "cifar10": _Layout(
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test_batch.bin",
        ("batches.meta.txt",),
    ),
    "cifar100": _Layout(
        ("train.bin",), "test.bin", ("coarse_label_names.txt", "fine_label_names.txt")
    ),
}
_PYTHON = {
    "cifar10": _Layout(
        tuple(f"data_batch_{number}" for number in range(1, 6)), "test_batch", ("batches.meta",)
    ),
    "cifar100": _Layout(("train",), "test", ("meta",)),
}
_PICKLE_LABELS = {
    "cifar10": {"label": (b"labels", b"label_names")},
    "cifar100": {
        "coarse_label": (b"coarse_labels", b"coarse_label_names"),
        "label": (b"fine_labels", b"fine_label_names"),
    },
}


@dataclasses.dataclass(frozen=True)
class Cifar:
    """The content of an archive.

    Attributes:
        label_names: {label key: names of its classes}.
        images: {split: uint8 [N, 32, 32, 3]} for `train` and `test`.
        labels: {split: {label key: uint8 [N]}}.
    """

    label_names: dict[str, list[str]]
    images: dict[str, np.ndarray]
    labels: dict[str, dict[str, np.ndarray]]


def verify(path: Path, dataset: str, checksum: str | None = None) -> None:
    """Checks that `path` is an archive of `dataset`.

    Args:
        path: the file; its name does not matter.
        dataset: `cifar10` or `cifar100`.
        checksum: MD5 or SHA-256 expected, hexadecimal; None for either archive as published.

    Raises:
        InputError: if it is not; the message has both checksums.
    """
    if not path.is_file():
        raise InputError(f"archive {path} is not a file")
    if checksum is not None:
        algorithm = "sha256" if len(checksum) == 64 else "md5"
        found = files.digest(path, algorithm)
        if found != checksum.lower():
            raise InputError(f"{path} has {algorithm} {found}, expected {checksum.lower()}")
        return
    found = files.digest(path, "md5")
    known = next((archive for archive in ARCHIVES if archive.md5 == found), None)
    expected = [archive for archive in ARCHIVES if archive.dataset == dataset]
    if known not in expected:
        what = f" ({known.filename})" if known else ""
        choices = " or ".join(f"{archive.md5} ({archive.filename})" for archive in expected)
        raise InputError(f"{path} has md5 {found}{what}, expected {choices}")
    if known.sha256:
        verify(path, dataset, known.sha256)


def read(path: Path, dataset: str) -> Cifar:
    """Returns the content of an archive, in the order of the publisher's files.

    Raises:
        InputError: if it is no archive of `dataset` in either format, or damaged.
    """
    binary, python = _BINARY[dataset], _PYTHON[dataset]
    try:
        members = dict(_members(path, binary, python))
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{path} is not a readable .tar.gz archive: {error}") from error
    for layout, parse in ((binary, _parse_binary), (python, _parse_python)):
        missing = {*layout.train, layout.test, *layout.meta} - members.keys()
        if not missing:
            try:
                return parse(members, layout, dataset)
            except (KeyError, ValueError, pickle.UnpicklingError, EOFError) as error:
                raise InputError(
                    f"{path} is damaged or no archive of {dataset}: {error}"
                ) from error
    raise InputError(
        f"{path} is no archive of {dataset}: it has {', '.join(sorted(members)) or 'none'} of "
        f"{', '.join([*binary.meta, *binary.train, binary.test])} or "
        f"{', '.join([*python.meta, *python.train, python.test])}"
    )


def _members(path: Path, *layouts: _Layout) -> Iterator[tuple[str, bytes]]:
    wanted = {name for layout in layouts for name in (*layout.train, layout.test, *layout.meta)}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if member.isfile() and name in wanted:
                file = archive.extractfile(member)
                assert file is not None
                yield name, file.read()


def _parse_binary(members: dict[str, bytes], layout: _Layout, dataset: str) -> Cifar:
    keys = LABELS[dataset]
    names = {
        key: [name for name in members[file].decode().split("\n") if name]
        for key, file in zip(keys, layout.meta, strict=True)
    }
    images, labels = {}, {}
    for split, parts in (("train", layout.train), ("test", (layout.test,))):
        raw = np.concatenate([np.frombuffer(members[file], np.uint8) for file in parts])
        if raw.size % (len(keys) + _PIXELS):
            raise ValueError(f"{split} has {raw.size} bytes, no multiple of {len(keys) + _PIXELS}")
        rows = raw.reshape(-1, len(keys) + _PIXELS)
        images[split] = _to_images(rows[:, len(keys) :])
        labels[split] = {key: rows[:, place] for place, key in enumerate(keys)}
    return _checked(Cifar(names, images, labels))


def _parse_python(members: dict[str, bytes], layout: _Layout, dataset: str) -> Cifar:
    keys = _PICKLE_LABELS[dataset]
    meta = _unpickle(members[layout.meta[0]])
    names = {key: [name.decode() for name in meta[field]] for key, (_, field) in keys.items()}
    images, labels = {}, {}
    for split, parts in (("train", layout.train), ("test", (layout.test,))):
        batches = [_unpickle(members[file]) for file in parts]
        images[split] = _to_images(np.concatenate([batch[b"data"] for batch in batches]))
        labels[split] = {
            key: np.concatenate([np.asarray(batch[field], np.uint8) for batch in batches])
            for key, (field, _) in keys.items()
        }
    return _checked(Cifar(names, images, labels))


def _to_images(rows: np.ndarray) -> np.ndarray:
    if rows.dtype != np.uint8:
        raise ValueError(f"pixels are {rows.dtype}, expected uint8")
    return rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _checked(cifar: Cifar) -> Cifar:
    for split, labels in cifar.labels.items():
        for key, values in labels.items():
            classes = len(cifar.label_names[key])
            if len(values) != len(cifar.images[split]):
                raise ValueError(
                    f"{split} has {len(cifar.images[split])} images, {len(values)} of {key}"
                )
            if len(values) and int(values.max()) >= classes:
                raise ValueError(f"{split} has {key} {values.max()}, expected less than {classes}")
    return cifar


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds plain containers and numpy arrays; any other name in the pickle is refused."""

    _ALLOWED = frozenset(
        (module, name)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")
        for name in ("_reconstruct", "ndarray", "dtype")
    ) | {("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(
                f"a pickle in it asks for {module}.{name}, which is refused"
            )
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickle(data: bytes) -> dict[bytes, Any]:
    content = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    if not isinstance(content, dict):
        raise ValueError(f"a pickle in it is a {type(content).__name__}, expected dict")
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}
