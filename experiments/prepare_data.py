"""Prepares CIFAR-10 or CIFAR-100 as a TFDS directory, from the publisher's archive.

    python -m experiments.prepare_data --dataset=cifar10 --data_dir=data
    python -m experiments.prepare_data --archive=cifar-10-python.tar.gz --data_dir=data

The archive is downloaded unless it is given or lies in --data_dir; either of the publisher's
formats (binary, Python) does. Its checksum is verified, and DATA_DIR/cifar10/3.0.2 appears only
when complete.
"""

from pathlib import Path

from absl import flags

from experiments import cli
from tl_jax.data import prepare
from tl_jax.data.loading import DEFAULT_DATA_DIR

_DATASET = flags.DEFINE_string("dataset", "cifar10", "cifar10 or cifar100.")
_ARCHIVE = flags.DEFINE_string("archive", None, "The publisher's archive; unset: downloaded.")
_DATA_DIR = flags.DEFINE_string("data_dir", DEFAULT_DATA_DIR, "Where tfds data sets lie.")


def main() -> None:
    """Prepares what the flags say and prints where it lies."""
    archive = Path(_ARCHIVE.value).expanduser() if _ARCHIVE.value else None
    folder = prepare.prepare(_DATASET.value, Path(_DATA_DIR.value).expanduser(), archive=archive)
    print(f"{_DATASET.value} is prepared in {folder}")


if __name__ == "__main__":
    cli.run(main)
