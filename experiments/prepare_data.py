"""Prepares CIFAR-10 or CIFAR-100 as a TFDS directory, from the publisher's archive.

    python -m experiments.prepare_data --dataset=cifar10 --data_dir=data
    python -m experiments.prepare_data --archive=cifar-10-python.tar.gz --data_dir=data

The archive is downloaded unless it is given or is in --data_dir; either of the publisher's
formats (binary, Python) does. Its checksum is verified, and DATA_DIR/cifar10/3.0.2 appears only
when complete.
"""

from pathlib import Path

from absl import flags

from experiments import cli
from tl_jax.data import prepare
from tl_jax.data.sources import DEFAULT_DATA_DIR
from tl_jax.errors import InputError, unknown

_DATASETS = ("cifar10", "cifar100")
_DATASET = flags.DEFINE_string("dataset", "cifar10", "cifar10 or cifar100.")
_ARCHIVE = flags.DEFINE_string("archive", None, "The publisher's archive; unset: downloaded.")
_DATA_DIR = flags.DEFINE_string("data_dir", DEFAULT_DATA_DIR, "The folder of tfds data sets.")


def main() -> None:
    """Prepares the data set that the flags name and prints its folder."""
    if _DATASET.value not in _DATASETS:
        raise unknown("--dataset", _DATASET.value, _DATASETS)
    archive = Path(_ARCHIVE.value).expanduser() if _ARCHIVE.value else None
    if archive is not None and not archive.is_file():
        raise InputError(f"--archive={_ARCHIVE.value}: no such file")
    folder = prepare.prepare(_DATASET.value, Path(_DATA_DIR.value).expanduser(), archive=archive)
    print(f"{_DATASET.value} is prepared in {folder}")


if __name__ == "__main__":
    cli.run(main)
