"""A miniature of the CIFAR archives in both formats, and a folder of images."""

import dataclasses
import io
import pathlib
import pickle
import sys
import tarfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@dataclasses.dataclass(frozen=True)
class MiniCifar:
    """Paths of archives with the same content, and that content."""

    binary: pathlib.Path
    python: pathlib.Path
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray


def _write_archive(path: pathlib.Path, members: dict[str, bytes]) -> pathlib.Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def _make(
    folder: pathlib.Path, classes: int, coarse: int, files: list[str], per_file: int
) -> MiniCifar:
    rng = np.random.default_rng(0)
    rows = {name: rng.integers(0, 256, (per_file, 3072), np.uint8) for name in files}
    labels = {name: np.arange(per_file, dtype=np.uint8) % classes for name in files}
    fine_names = [f"class{number}" for number in range(classes)]
    if coarse:
        meta = {
            "coarse_label_names.txt": [f"group{number}" for number in range(coarse)],
            "fine_label_names.txt": fine_names,
        }
        pickled_meta = (
            "meta",
            {
                b"fine_label_names": [name.encode() for name in fine_names],
                b"coarse_label_names": [b"group%d" % number for number in range(coarse)],
            },
        )
    else:
        meta = {"batches.meta.txt": fine_names}
        pickled_meta = ("batches.meta", {b"label_names": [name.encode() for name in fine_names]})
    binary = {f"bin/{name}": "\n".join([*names, ""]).encode() for name, names in meta.items()}
    python = {f"py/{pickled_meta[0]}": pickle.dumps(pickled_meta[1], protocol=2)}
    for name in files:
        groups = labels[name] % coarse if coarse else None
        columns = [labels[name][:, None], rows[name]]
        content = {b"data": rows[name], b"labels": labels[name].tolist()}
        if coarse:
            columns = [groups[:, None], *columns]
            content = {
                b"data": rows[name],
                b"fine_labels": labels[name].tolist(),
                b"coarse_labels": groups.tolist(),
            }
        binary[f"bin/{name}.bin"] = np.concatenate(columns, axis=1).tobytes()
        python[f"py/{name}"] = pickle.dumps(content, protocol=2)
    train = [name for name in files if not name.startswith("test")]
    images = {name: rows[name].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for name in files}
    return MiniCifar(
        _write_archive(folder / "binary.tar.gz", binary),
        _write_archive(folder / "python.tar.gz", python),
        np.concatenate([images[name] for name in train]),
        np.concatenate([labels[name] for name in train]),
        images[files[-1]],
    )


@pytest.fixture(scope="session")
def mini_cifar10(tmp_path_factory) -> MiniCifar:
    files = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return _make(tmp_path_factory.mktemp("cifar10"), 10, 0, files, 20)


@pytest.fixture(scope="session")
def mini_cifar100(tmp_path_factory) -> MiniCifar:
    return _make(tmp_path_factory.mktemp("cifar100"), 100, 20, ["train", "test"], 100)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, mini_cifar10) -> pathlib.Path:
    """Returns a data_dir that holds the miniature as `cifar10/3.0.2`."""
    from tl_jax import files
    from tl_jax.data import prepare

    data_dir = tmp_path_factory.mktemp("prepared")
    checksum = files.digest(mini_cifar10.binary, "md5")
    prepare.prepare("cifar10", data_dir, archive=mini_cifar10.binary, checksum=checksum)
    return data_dir


@pytest.fixture
def write_archive() -> Callable[..., pathlib.Path]:
    """Returns a function that writes a .tar.gz of {name: bytes}."""
    return _write_archive


@pytest.fixture
def write_image() -> Callable[..., pathlib.Path]:
    """Returns a function that writes one PNG filled with a grey value, height x width."""

    def write(
        path: pathlib.Path, value: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB"
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        fill = (value,) * 3 if mode == "RGB" else value
        Image.new(mode, size[::-1], fill).save(path)
        return path

    return write
