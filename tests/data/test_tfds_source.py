import json
import pathlib
import pickle
import shutil

import numpy as np
import pytest

from tl_jax.data import Decoding, Selection, load_splits, records, stream, tfds_source
from tl_jax.data.order import Order
from tl_jax.errors import InputError


@pytest.fixture
def copied(tmp_path, prepared) -> pathlib.Path:
    """A data_dir of its own with the miniature cifar10."""
    shutil.copytree(prepared, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("cifar10", ("cifar10", "", "")),
        ("a/b", ("a", "b", "")),
        ("a:1.2.3", ("a", "", "1.2.3")),
        ("a/b-c.d:1.2.3", ("a", "b-c.d", "1.2.3")),
    ],
)
def test_names(text, parts):
    name = tfds_source.Name.parse(text)
    assert (name.dataset, name.config, name.version) == parts
    assert str(name) == text


@pytest.mark.parametrize("text", ["../x", "a/b/c", "a:1", "a b"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(InputError, match="not the name of a tfds data set"):
        tfds_source.Name.parse(text)


def test_images_and_labels_belong_together(prepared, mini_cifar10):
    train = load_splits("tfds:cifar10", data_dir=prepared)["train"]
    expected = {
        image.tobytes(): label
        for image, label in zip(mini_cifar10.train_images, mini_cifar10.train_labels, strict=True)
    }
    found = {
        image.tobytes(): label for image, label in zip(train.images, train.labels, strict=True)
    }
    assert found == expected
    assert train.class_names == tuple(f"class{number}" for number in range(10))


def test_slices_are_those_of_tfds(prepared):
    import tensorflow_datasets as tfds

    train = load_splits(
        "tfds:cifar10:3.0.2",
        Selection(train="train[:25%]+test[:2]", test="test[2:]"),
        data_dir=prepared,
    )
    theirs = tfds.data_source("cifar10", data_dir=prepared, split="train[:25%]")
    assert len(train["train"]) == len(theirs) + 2
    for index, example in enumerate(theirs):
        np.testing.assert_array_equal(train["train"].images[index], example["image"])


def test_a_large_split_equals_the_one_in_memory(prepared):
    memory = load_splits("tfds:cifar10", Selection(validation_fraction=0.2), data_dir=prepared)
    access = load_splits(
        "tfds:cifar10",
        Selection(validation_fraction=0.2),
        Decoding(max_memory_bytes=0),
        data_dir=prepared,
    )
    for role, split in access.items():
        assert isinstance(split, records.LazySplit)
        every = np.arange(len(split))
        np.testing.assert_array_equal(split.gather(every), memory[role].images)
        np.testing.assert_array_equal(split.labels, memory[role].labels)
    copy = pickle.loads(pickle.dumps(access["train"]))
    np.testing.assert_array_equal(copy.gather(np.array([5])), memory["train"].gather(np.array([5])))


def test_worker_processes_give_the_same_batches(prepared):
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])
    split = load_splits("tfds:cifar10", decoding=Decoding(max_memory_bytes=0), data_dir=prepared)[
        "train"
    ]
    threads = stream.batches(split, Order(0, 16, len(split)), 3, 7)
    processes = stream.batches(split, Order(0, 16, len(split)), 3, 7, workers=1)
    for first, second in zip(threads, processes, strict=True):
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


def test_a_missing_data_set_is_reported_at_once(copied):
    with pytest.raises(
        InputError, match=r"no folder cifar_10; nearest: cifar10; it holds cifar10\n.*tfds build"
    ):
        load_splits("tfds:cifar_10", data_dir=copied)
    with pytest.raises(InputError, match="does not exist"):
        load_splits("tfds:mnist", data_dir=copied / "none")


def test_a_data_dir_that_holds_something_else_is_described(copied, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="is a file"):
        load_splits("tfds:cifar10", data_dir=file)
    with pytest.raises(
        InputError, match=f"is itself a tfds data set; give the folder above, {copied}"
    ):
        load_splits("tfds:cifar10", data_dir=copied / "cifar10")
    with pytest.raises(
        InputError, match=f"is itself a tfds data set; give the folder above, {copied}"
    ):
        load_splits("tfds:cifar10", data_dir=copied / "cifar10" / "3.0.2")
    with pytest.raises(
        InputError, match=f"cifar10 is not in data_dir .*, but in {copied}: give that"
    ):
        load_splits("tfds:cifar10", data_dir=tmp_path)


def test_another_version_is_named(copied):
    (copied / "cifar10" / "3.0.2").rename(copied / "cifar10" / "1.0.0")
    with pytest.raises(
        InputError, match=r"in version 1\.0\.0, expected 3\.0\.2; tfds:cifar10:1\.0\.0"
    ):
        load_splits("tfds:cifar10", data_dir=copied)


def test_another_data_set_under_the_name_is_refused(copied):
    (copied / "cifar10").rename(copied / "mnist")
    with pytest.raises(InputError, match="holds the data set 'cifar10', expected 'mnist'"):
        load_splits("tfds:mnist", data_dir=copied)


def test_configurations_are_listed(copied):
    (copied / "many").mkdir()
    (copied / "cifar10").rename(copied / "many" / "small")
    with pytest.raises(InputError, match="give one of tfds:many/small"):
        load_splits("tfds:many", data_dir=copied)


def test_half_prepared_data_is_refused(copied):
    folder = copied / "cifar10" / "3.0.2"
    shard = next(folder.glob("cifar10-test*"))
    shard.unlink()
    with pytest.raises(InputError, match=f"incomplete; missing: {shard.name}"):
        load_splits("tfds:cifar10", data_dir=copied)
    (folder / "dataset_info.json").unlink()
    with pytest.raises(InputError, match=r"not a prepared tfds data set.* only 3\.0\.2"):
        load_splits("tfds:cifar10", data_dir=copied)


def test_tfrecord_files_are_refused(copied):
    path = copied / "cifar10" / "3.0.2" / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(InputError, match="stored as tfrecord, which needs TensorFlow"):
        load_splits("tfds:cifar10", data_dir=copied)


def test_a_damaged_shard_is_named(copied):
    shard = next((copied / "cifar10" / "3.0.2").glob("cifar10-test*"))
    data = bytearray(shard.read_bytes())
    data[1000:3000] = bytes(2000)
    shard.write_bytes(data)
    with pytest.raises(InputError, match="split 'test'"):
        load_splits("tfds:cifar10", data_dir=copied)


def test_the_real_cifar10(real_data):
    splits = load_splits(
        "tfds:cifar10", Selection(validation_fraction=0.1), data_dir=real_data / "tfds"
    )
    assert {role: len(split) for role, split in splits.items()} == {
        "train": 45000,
        "validation": 5000,
        "test": 10000,
    }
    for split in splits.values():
        assert set(np.bincount(split.labels)) == {len(split) // 10}
        assert split.image_shape == (32, 32, 3)
    assert splits["train"].class_names[0] == "airplane"
