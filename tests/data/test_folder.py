import pickle

import numpy as np
import pytest

from tl_jax.data import folder, load_splits, records
from tl_jax.errors import InputError


@pytest.fixture
def classes(tmp_path, write_image):
    """PATH/{cat,dog}/*: 10 images each, grey value 10 * class + number."""
    for label, name in enumerate(["cat", "dog"]):
        for number in range(10):
            write_image(tmp_path / name / f"{number}.png", 10 * label + number)
    return tmp_path


@pytest.fixture
def splits(tmp_path, write_image):
    """PATH/{train,val}/{a,b}/*: 3 and 2 images each."""
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate("ab"):
            for number in range(count):
                write_image(tmp_path / split / name / f"{number}.png", 100 * label + number)
    return tmp_path


def values(split) -> list[int]:
    return split.gather(np.arange(len(split)))[:, 0, 0, 0].tolist()


def test_without_splits_a_fifth_of_every_class_is_test(classes):
    first, again = load_splits(f"folder:{classes}"), load_splits(f"folder:{classes}", seed=9)
    assert np.bincount(first["train"].labels).tolist() == [8, 8]
    assert np.bincount(first["test"].labels).tolist() == [2, 2]
    assert sorted(values(first["train"]) + values(first["test"])) == list(range(20))
    assert values(first["test"]) == values(again["test"])
    assert first["train"].class_names == ("cat", "dog")
    assert all(
        value // 10 == label
        for value, label in zip(values(first["test"]), first["test"].labels, strict=True)
    )


def test_splits_are_read_and_their_usual_names_stand_for_each_other(splits):
    found = load_splits(f"folder:{splits}", test="validation")
    assert values(found["train"]) == [0, 1, 2, 100, 101, 102]
    assert values(found["test"]) == [0, 1, 100, 101]
    assert found["test"].labels.tolist() == [0, 0, 1, 1]


def test_a_missing_split_names_those_there_are(splits):
    with pytest.raises(InputError, match=r"unknown split of folder:.* 'test'; .*known: train, val"):
        load_splits(f"folder:{splits}")


def test_splits_with_other_names_and_nested_files(tmp_path, write_image):
    for split in ("photos", "sketches"):
        write_image(tmp_path / split / "a" / "images" / "0.png")
        write_image(tmp_path / split / "b" / "images" / "0.png")
    (tmp_path / "photos" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "a" / "._0.png").write_text("no image")
    with pytest.raises(InputError, match="no images"):
        load_splits(f"folder:{tmp_path / 'photos' / 'a' / 'images'}")
    write_image(tmp_path / "photos" / "a" / "1.png")
    found = folder.Folder(tmp_path / "photos", 0)
    assert set(found.split_names) == {"all", "train", "test"}


def test_a_class_that_train_has_not_is_named(splits, write_image):
    write_image(splits / "val" / "c" / "0.png")
    (splits / "train" / "d").mkdir()
    with pytest.raises(InputError, match="train/d has no images; val/c is no class of train"):
        load_splits(f"folder:{splits}", test="val")


def test_slices_take_from_every_class(classes):
    found = load_splits(f"folder:{classes}", train="all[:50%]", test="all[50%:]")
    assert len(np.unique(found["train"].labels)) == 2
    assert sorted(values(found["train"]) + values(found["test"])) == list(range(20))


def test_all_overlaps_its_parts(classes):
    with pytest.raises(InputError, match="share 4 examples"):
        load_splits(f"folder:{classes}", train="all", test="test")


def test_sizes_that_differ_need_an_image_size(classes, write_image):
    write_image(classes / "cat" / "large.png", 7, (9, 16))
    with pytest.raises(InputError, match=r"2 different sizes, the most common 8x8 .*, 9x16 \(1\)"):
        load_splits(f"folder:{classes}")
    found = load_splits(f"folder:{classes}", image_size=4)
    assert found["train"].image_shape == found["test"].image_shape == (4, 4, 3)


def test_equal_sizes_are_kept_whatever_the_image_size(classes):
    assert load_splits(f"folder:{classes}", image_size=4)["train"].image_shape == (8, 8, 3)


def test_sizes_that_differ_between_splits(tmp_path, write_image):
    for split, side in (("train", 8), ("test", 6)):
        write_image(tmp_path / split / "a" / "0.png", 5, (side, side))
    with pytest.raises(InputError, match="between splits: train 8x8, test 6x6"):
        load_splits(f"folder:{tmp_path}")
    found = load_splits(f"folder:{tmp_path}", image_size=4)
    assert found["train"].image_shape == found["test"].image_shape == (4, 4, 3)
    assert values(found["test"]) == [5]


def test_a_corrupt_image_is_named(classes):
    path = classes / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"dog/3\.png cannot be read as an image"):
        load_splits(f"folder:{classes}")


def test_a_large_split_is_decoded_on_access_and_equals_the_one_in_memory(classes):
    memory = load_splits(f"folder:{classes}", validation_fraction=0.25, examples_per_class=2)
    access = load_splits(
        f"folder:{classes}", validation_fraction=0.25, examples_per_class=2, max_memory_bytes=0
    )
    for role in ("train", "validation", "test"):
        assert isinstance(access[role], records.LazySplit)
        assert values(access[role]) == values(memory[role])
        np.testing.assert_array_equal(access[role].labels, memory[role].labels)
    copy = pickle.loads(pickle.dumps(access["train"]))
    assert values(copy) == values(memory["train"])


def test_joined_splits_keep_their_order_on_access(splits):
    joined = load_splits(
        f"folder:{splits}", train="val[:2]+train", test="val[2:]", max_memory_bytes=0
    )
    train = joined["train"]
    assert values(train)[2:] == [0, 1, 2, 100, 101, 102]
    assert train.labels.tolist()[2:] == [0, 0, 0, 1, 1, 1]
    assert values(train.subset(np.array([7, 2]))) == [102, 0]


@pytest.mark.parametrize("path", ["missing", "file.txt", "empty"])
def test_what_is_no_folder_of_images_is_refused(tmp_path, path):
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=path):
        load_splits(f"folder:{path}", data_dir=tmp_path)
