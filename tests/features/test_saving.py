"""Features as .npz files and as a TFDS directory."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tl_jax.errors import InputError
from tl_jax.features import saving


def features(count: int, first: int = 0) -> saving.Features:
    values = np.random.default_rng(first).random((count, 3), np.float32)
    labels = np.arange(count, dtype=np.int32) % 2
    return saving.Features(values, labels, np.arange(first, first + count), ("a", "b ü"))


SPLITS = {"train": features(12, 100), "test": features(5)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    assert saving.save(folder, SPLITS, "npz") == {"train": "train.npz", "test": "test.npz"}
    where = saving.save(folder, SPLITS, "tfds")
    assert where == dict.fromkeys(SPLITS, "features/1.0.0")
    return folder


def test_npz_holds_what_was_given(folder):
    found = saving.load(folder / "train.npz")
    np.testing.assert_array_equal(found.features, SPLITS["train"].features)
    np.testing.assert_array_equal(found.labels, SPLITS["train"].labels)
    np.testing.assert_array_equal(found.indices, np.arange(100, 112))
    assert found.class_names == ("a", "b ü")
    assert (found.features.dtype, found.labels.dtype) == (np.float32, np.int32)
    with np.load(folder / "test.npz") as stored:
        assert str(stored["split"]) == "test"


def test_the_same_features_are_the_same_bytes(folder, tmp_path):
    saving.save(tmp_path, SPLITS, "npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.npz", "train.npz"]
    for name in ("train.npz", "test.npz"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_tfds_reads_it_in_order_without_tensorflow(folder):
    """In another process: here a test may have imported TensorFlow."""
    code = f"""
import sys
import tensorflow_datasets as tfds
source = tfds.data_source("features", data_dir={str(folder)!r}, split="train")
print([int(source[place]["index"]) for place in range(len(source))])
print([int(source[place]["label"]) for place in range(3)], source[0]["features"].dtype)
print([round(float(value), 4) for value in source[7]["features"]])
print(tfds.builder("features", data_dir={str(folder)!r}).info.features["label"].names)
print("tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONWARNINGS": ""},
    )
    assert done.returncode == 0, done.stderr
    row = [round(float(value), 4) for value in SPLITS["train"].features[7]]
    assert done.stdout.splitlines() == [
        str(list(range(100, 112))),
        "[0, 1, 0] float32",
        str(row),
        "['a', 'b ü']",
        "False",
    ]


def test_what_an_interrupted_command_left_is_replaced(tmp_path):
    import tensorflow_datasets as tfds

    for splits in (SPLITS, {"train": features(2, 7)}):
        saving.save(tmp_path, splits, "tfds")
    source = tfds.data_source("features", data_dir=tmp_path, split="train")
    assert [int(source[place]["index"]) for place in range(len(source))] == [7, 8]
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


def test_joined_and_chosen():
    both = SPLITS["train"].joined(SPLITS["test"])
    assert len(both) == 17 and both.indices.tolist() == [*range(100, 112), *range(5)]
    np.testing.assert_array_equal(both.at(np.array([16])).features, SPLITS["test"].features[4:])


def test_wrong_formats_names_and_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"unknown features\.format 'csv'"):
        saving.save(tmp_path, SPLITS, "csv")
    broken = saving.Features(*vars(features(2)).values())
    object.__setattr__(broken, "class_names", ("a", "b\nc"))
    with pytest.raises(
        InputError, match=r'the class "b\\nc" is no line of text.*; expected features\.format=npz'
    ):
        saving.save(tmp_path, {"train": broken}, "tfds")
    (tmp_path / "a.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"a\.npz is no file of features"):
        saving.load(tmp_path / "a.npz")
