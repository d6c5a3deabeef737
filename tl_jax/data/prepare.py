"""CIFAR-10 and CIFAR-100 from the publisher's archive to a TFDS directory, without TensorFlow.

The stock builders of tfds read their archive through `tf.io.gfile` and encode images with
TensorFlow. Here a builder of the same name, version, features and example keys yields PNG bytes
instead, so that `tfds.data_source` reads the result like its own, in the same order, losslessly.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tl_jax import errors, files
from tl_jax.data import cifar, images, tfds_source, tfds_writer
from tl_jax.data.download import DownloadError, Progress, download, print_progress
from tl_jax.errors import InputError

_VERSION = tfds_source.STOCK_VERSIONS
_HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


class NotFetched(InputError):
    """The data set is not here, and was not to be fetched."""


def find_or_prepare(name: tfds_source.Name, data_dir: Path, *, fetch: bool = True) -> Path:
    """Returns the folder of a tfds data set; CIFAR is prepared when it is missing.

    Args:
        name: of the data set.
        data_dir: of the prepared data sets.
        fetch: whether a missing CIFAR is prepared, from an archive in `data_dir` or a download.

    Raises:
        NotFetched: if CIFAR is missing and `fetch` is false.
        InputError: if the data set is missing and cannot be had, with what there is to do; or as
            `tfds_source.find`.
    """
    try:
        return tfds_source.find(name, data_dir)
    except tfds_source.MissingError as error:
        stock = not name.config and name.version in ("", _VERSION.get(name.dataset))
        if name.dataset not in _VERSION or not stock:
            raise InputError(
                f"{error}\nprepare it where TensorFlow is installed (extra `prepare`) with: "
                f"tfds build {name.dataset} --file_format=array_record --data_dir={data_dir}"
            ) from error
        if not fetch:
            raise NotFetched(f"{error}\n{_ways_on(name.dataset, data_dir)}") from error
    return prepare(name.dataset, data_dir)


def prepare(
    dataset: str,
    data_dir: Path,
    *,
    archive: Path | None = None,
    checksum: str | None = None,
    timeout: float = 10.0,
    progress: Callable[[str], Progress] = print_progress,
) -> Path:
    """Writes `DATA_DIR/DATASET/3.0.2` and returns it; what is prepared already is left as it is.

    Takes, in this order: `archive`, one of the publisher's archives lying in `data_dir`, a
    download, which is kept in `data_dir`. The folder appears whole or not at all, and one process
    writes at a time.

    Args:
        dataset: `cifar10` or `cifar100`.
        data_dir: made where it does not exist.
        archive: the publisher's file, in the binary or the Python format.
        checksum: MD5 or SHA-256 of the archive; None for those the publisher states.
        timeout: seconds until an unanswered connection is given up.
        progress: takes what is being done, returns the function that is called with its progress.

    Raises:
        InputError: if the archive is not the right one or cannot be fetched, or `data_dir` cannot
            be used.
    """
    if dataset not in _VERSION:
        raise errors.unknown("data set to prepare", dataset, _VERSION)
    tfds_source.check_data_dir(data_dir)
    final = data_dir / dataset / _VERSION[dataset]
    if (final / "dataset_info.json").is_file():
        return final
    if final.exists():
        raise InputError(f"{final} exists and is no prepared data set; move it away")
    if archive is not None:
        cifar.verify(archive, dataset, checksum)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _lock(data_dir / f".{dataset}.lock"):
            if final.exists():
                return final
            source = archive or _placed(dataset, data_dir)
            if source is None:
                source = _fetch(dataset, data_dir, checksum, timeout, progress)
            elif archive is None:
                cifar.verify(source, dataset, checksum)
            content = cifar.read(source, dataset)
            _write(dataset, content, final, progress(f"writing {dataset}"))
            return final
    except PermissionError as error:
        raise InputError(f"data_dir {data_dir} cannot be written: {error}") from error


def _placed(dataset: str, data_dir: Path) -> Path | None:
    paths = [data_dir / known.filename for known in cifar.ARCHIVES if known.dataset == dataset]
    return next((path for path in paths if path.is_file()), None)


def _fetch(
    dataset: str,
    data_dir: Path,
    checksum: str | None,
    timeout: float,
    progress: Callable[[str], Progress],
) -> Path:
    published = next(known for known in cifar.ARCHIVES if known.dataset == dataset)
    try:
        return download(
            published.url,
            data_dir / published.filename,
            lambda path: cifar.verify(path, dataset, checksum or published.checksum),
            timeout=timeout,
            progress=progress(f"downloading {published.filename}"),
        )
    except DownloadError as error:
        raise InputError(
            f"{dataset} is not in data_dir {data_dir} and cannot be downloaded: {error}\n"
            + _ways_on(dataset, data_dir)
        ) from error


def _ways_on(dataset: str, data_dir: Path) -> str:
    archives = " or ".join(known.filename for known in cifar.ARCHIVES if known.dataset == dataset)
    return (
        "three ways on:\n"
        f"  1. a prepared data_dir: one that holds {dataset}/{_VERSION[dataset]}\n"
        f"  2. the publisher's archive, {archives} from {_HOMEPAGE}, placed in {data_dir}, or given "
        f"with: python -m experiments.prepare_data --dataset={dataset} --archive=FILE "
        f"--data_dir={data_dir}\n"
        "  3. the data set that needs no download: digits"
    )


def _write(dataset: str, content: cifar.Cifar, final: Path, progress: Progress) -> None:
    """Writes the folder `final`, whole or not at all; the caller holds the lock."""
    data_dir = final.parents[1]
    # Under the lock nobody else writes: these are what killed processes left.
    for leftover in data_dir.glob(f".{dataset}.*/"):
        shutil.rmtree(leftover)
    num_bytes = sum(pixels.nbytes for pixels in content.images.values())
    with files.explain_full_disk(dataset, data_dir, num_bytes):
        scratch = Path(tempfile.mkdtemp(prefix=f".{dataset}.", dir=data_dir))
        try:
            _build(dataset, content, scratch, progress)
            final.parent.mkdir(exist_ok=True)
            os.replace(scratch / dataset / final.name, final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _build(dataset: str, content: cifar.Cifar, data_dir: Path, progress: Progress) -> None:
    import tensorflow_datasets as tfds

    total = sum(len(pixels) for pixels in content.images.values())
    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(32, 32, 3)),
        **{
            key: tfds.features.ClassLabel(names=names) for key, names in content.label_names.items()
        },
    }

    def examples(split: str, done: int) -> Iterator[tuple[int, dict[str, Any]]]:
        # The key decides the order of the records: the same index as the stock builder's.
        for index, pixels in enumerate(content.images[split]):
            labels = {key: int(values[index]) for key, values in content.labels[split].items()}
            yield index, {"id": f"{split}_{index:05d}", "image": images.to_png(pixels), **labels}
            progress(done + index + 1, total)

    tfds_writer.write(
        data_dir,
        dataset,
        _VERSION[dataset],
        features,
        {
            "train": examples("train", 0),
            "test": examples("test", len(content.images["train"])),
        },
        description=f"{dataset}, each image as PNG, from the publisher's archive.",
        supervised_keys=("image", "label"),
        homepage=_HOMEPAGE,
    )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, which is removed afterwards; waits while another process has it."""
    while True:
        with open(path, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The process that held it has removed it: a lock on a removed file excludes nobody.
            if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                continue
            try:
                yield
            finally:
                path.unlink()
            return
