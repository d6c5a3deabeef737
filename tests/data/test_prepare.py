import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tl_jax import files
from tl_jax.data import cifar, download, load_splits, prepare
from tl_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]


def contents(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_tfds_reads_it_like_its_own_and_losslessly(prepared, mini_cifar10):
    import tensorflow_datasets as tfds

    source = tfds.data_source("cifar10", data_dir=prepared, split="train")
    assert len(source) == 100
    for example in (source[index] for index in range(len(source))):
        number = int(example["id"].decode().removeprefix("train_"))
        np.testing.assert_array_equal(example["image"], mini_cifar10.train_images[number])
        assert example["label"] == mini_cifar10.train_labels[number]


def test_features_are_those_of_the_stock_builder(prepared, tmp_path):
    from tensorflow_datasets.image_classification.cifar import Cifar10

    Cifar10(data_dir=tmp_path).info.features.save_config(tmp_path)
    found = json.loads((prepared / "cifar10" / "3.0.2" / "features.json").read_text())
    assert found == json.loads((tmp_path / "features.json").read_text())
    info = json.loads((prepared / "cifar10" / "3.0.2" / "dataset_info.json").read_text())
    assert (info["name"], info["version"], info["fileFormat"]) == (
        "cifar10",
        "3.0.2",
        "array_record",
    )


def test_cifar100_has_both_labels(tmp_path, mini_cifar100):
    checksum = files.digest(mini_cifar100.python, "sha256")
    prepare.prepare("cifar100", tmp_path, archive=mini_cifar100.python, checksum=checksum)
    split = load_splits("tfds:cifar100", data_dir=tmp_path)["test"]
    assert sorted(split.labels) == list(range(100))
    assert split.class_names[99] == "class99"
    assert contents(tmp_path) == ["cifar100"]


def test_no_tensorflow_is_imported(tmp_path, mini_cifar10):
    program = f"""
import pathlib, sys
from tl_jax import files
from tl_jax.data import load_splits, prepare
archive, data_dir = pathlib.Path({str(mini_cifar10.binary)!r}), pathlib.Path({str(tmp_path)!r})
prepare.prepare("cifar10", data_dir, archive=archive, checksum=files.digest(archive, "md5"))
assert len(load_splits("tfds:cifar10", data_dir=data_dir)["train"]) == 100
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)


def test_what_is_prepared_is_left_alone(prepared):
    folder = prepared / "cifar10" / "3.0.2"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare.prepare("cifar10", prepared, archive=pathlib.Path("not there")) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert contents(prepared) == ["cifar10"]


def test_an_archive_in_data_dir_is_used(tmp_path, mini_cifar10, monkeypatch):
    placed = tmp_path / "cifar-10-python.tar.gz"
    placed.write_bytes(mini_cifar10.python.read_bytes())
    known = cifar.Archive("cifar10", placed.name, files.digest(placed, "md5"))
    monkeypatch.setattr(cifar, "ARCHIVES", (known,))
    assert len(load_splits("tfds:cifar10", data_dir=tmp_path)["test"]) == 20
    assert contents(tmp_path) == ["cifar-10-python.tar.gz", "cifar10"]


def test_a_failure_leaves_nothing_that_looks_prepared(tmp_path, mini_cifar10, monkeypatch):
    def fail(pixels):
        raise OSError("No space left on device")

    monkeypatch.setattr(prepare.images, "to_png", fail)
    checksum = files.digest(mini_cifar10.binary, "md5")
    needed = 120 * 32 * 32 * 3
    with pytest.raises(
        OSError, match=f"cifar10 .* {tmp_path}: .* {needed:,} bytes and .* are free"
    ):
        prepare.prepare("cifar10", tmp_path, archive=mini_cifar10.binary, checksum=checksum)
    assert contents(tmp_path) == []


def test_what_killed_processes_left_is_removed(tmp_path, mini_cifar10):
    for name in (".cifar10.a1b2", ".cifar100.a1b2", ".other"):
        (tmp_path / name / "cifar10").mkdir(parents=True)
    checksum = files.digest(mini_cifar10.binary, "md5")
    prepare.prepare("cifar10", tmp_path, archive=mini_cifar10.binary, checksum=checksum)
    assert contents(tmp_path) == [".cifar100.a1b2", ".other", "cifar10"]


def test_without_a_connection_the_message_says_the_three_ways_on(tmp_path, monkeypatch):
    def unreachable(url, *_, **__):
        raise download.DownloadError(f"{url}: no connection within 10 seconds")

    monkeypatch.setattr(prepare, "download", unreachable)
    with pytest.raises(InputError) as raised:
        load_splits("tfds:cifar10", data_dir=tmp_path)
    for part in (
        "cifar-10-binary.tar.gz: no connection within 10 seconds",
        "1. a prepared data_dir",
        "2. the publisher's archive",
        f"--dataset=cifar10 --archive=FILE --data_dir={tmp_path}",
        "digits",
    ):
        assert part in str(raised.value)
    with pytest.raises(InputError, match=r"is not prepared: .*\nthree ways on"):
        load_splits("tfds:cifar10", data_dir=tmp_path, download=False)


def test_wrong_input_is_refused_before_anything_is_written(tmp_path, mini_cifar10):
    with pytest.raises(InputError, match="unknown data set to prepare 'cifar'; nearest: cifar10"):
        prepare.prepare("cifar", tmp_path)
    with pytest.raises(InputError, match="expected c32a1d4a"):
        prepare.prepare("cifar10", tmp_path / "new", archive=mini_cifar10.binary)
    with pytest.raises(InputError, match=r"archive .*none\.tar\.gz is not a file"):
        prepare.prepare("cifar10", tmp_path / "new", archive=tmp_path / "none.tar.gz")
    assert contents(tmp_path) == []
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="is a file"):
        prepare.prepare("cifar10", file)


def test_the_command_prepares_and_exits_with_2_on_wrong_input(tmp_path, mini_cifar10):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "experiments.prepare_data", *arguments],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    wrong = run(f"--archive={mini_cifar10.binary}", f"--data_dir={tmp_path}")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert "Traceback" not in wrong.stderr


@pytest.fixture
def lock_holder(tmp_path):
    return prepare._lock(tmp_path / ".lock")


def test_one_process_prepares_at_a_time(tmp_path, lock_holder):
    program = f"""
import pathlib
from tl_jax.data import prepare
with prepare._lock(pathlib.Path({str(tmp_path / ".lock")!r})):
    print("inside", flush=True)
"""
    with lock_holder:
        other = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=2)
    assert other.communicate(timeout=60)[0] == b"inside\n"
    assert contents(tmp_path) == []
