import dataclasses
import io
import json
import shutil

import broken_files
import numpy as np
import pytest
from PIL import Image

from tl_jax import data, default_config
from tl_jax.data import Arrays, Decoding, Selection, inspection, load_splits, open_undecoded
from tl_jax.errors import InputError
from tl_jax.runs.splits import make_undecoded_splits


def photo(seed: int) -> Image.Image:
    """A smooth image, 48x40, so that it is nearly the same when it is stored again."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """{train,val,test}/{a,b}/*.png, six images each, and images of train in the others.

    In test: one byte for byte under another class, one as a BMP, one as a JPEG. In val: a copy of an image of test.
    In train: one twice. Of b in val one cannot be read.
    """
    path = tmp_path_factory.mktemp("data")
    for number, split in enumerate(("train", "val", "test")):
        for label, name in enumerate("ab"):
            (path / split / name).mkdir(parents=True)
            for place in range(6):
                photo(100 * number + 10 * label + place).save(path / split / name / f"{place}.png")
    train, test = path / "train", path / "test"
    shutil.copy(train / "a/0.png", test / "b/copy.png")
    photo(1).save(test / "a/same.bmp")
    photo(12).save(test / "b/near.jpg", quality=60)
    shutil.copy(test / "a/4.png", path / "val/a/other.png")
    shutil.copy(train / "b/3.png", train / "b/twice.png")
    (path / "val/b/page.png").write_text("<html>")
    return path


@pytest.fixture(scope="module")
def found(folder):
    splits = open_undecoded(f"folder:{folder}", Selection(validation="val"))
    return data.inspect(splits, "mine")


def test_what_is_in_two_splits_is_counted_by_kind(found):
    rows = {(row["first"], row["second"]): row for row in found.repeated()}
    counted = {
        splits: [row[name] for name in (*inspection.KINDS, "images", "other_class")]
        for splits, row in rows.items()
        if row["images"]
    }
    assert counted == {
        ("train", "test"): [1, 1, 1, 3, 1],
        ("test", "validation"): [1, 0, 0, 1, 0],
        ("train", "train"): [1, 0, 0, 1, 0],
    }
    assert found.leakage() == (
        "leakage: 2 of 15 test images are in train too (1 byte for byte, 1 the same pixels; 1 with another class); "
        "1 of 14 validation images are in test too (1 byte for byte)"
    )
    assert found.nearly_the_same() == (
        "nearly the same (stored again, or only alike; look at them): 1 of 15 test images are like some of train"
    )


def test_images_that_are_only_alike_are_no_leakage(found):
    """Two test images are like one of train, with another label; one of them is in train too, with its label."""
    near = (
        inspection.Pair("near", ("train", 1), ("test", 2), True),
        inspection.Pair("near", ("train", 1), ("test", 3), True),
    )
    alike = dataclasses.replace(found, pairs=near)
    assert alike.leakage() == "no leakage: no image is in two of train, test, validation"
    assert "2 of 15 test images are like some of train (2 with another class)" in alike.summary()[4]
    assert alike.to_json()["conflicts"] == 0
    same = inspection.Pair("bytes", ("train", 4), ("test", 2), False)
    row = dataclasses.replace(found, pairs=(*near, same)).repeated()[0]
    assert (row["other_class"], row["near_other_class"]) == (0, 1)
    assert "are there twice" not in " ".join(alike.summary())


def test_an_image_counts_once_as_its_strongest_kind(found):
    """One of test is near one of train and, under another label, byte for byte another of train."""
    near = inspection.Pair("near", ("train", 0), ("test", 2), False)
    equal = inspection.Pair("bytes", ("train", 1), ("test", 2), True)
    for pairs in ((near, equal), (equal, near)):
        row = dataclasses.replace(found, pairs=pairs).repeated()[0]
        assert (row["first"], row["second"]) == ("train", "test")
        assert [row[name] for name in (*inspection.KINDS, "images", "other_class")] == [
            1,
            0,
            0,
            1,
            1,
        ]


def test_pairs_name_files_and_classes(found, folder):
    (pair,) = [pair for pair in found.pairs if pair.other_class]
    assert found.describe(pair) == {
        "kind": "bytes",
        "other_class": True,
        "first": {
            "split": "train",
            "index": 0,
            "file": str(folder / "train/a/0.png"),
            "class": "a",
        },
        "second": {
            "split": "test",
            "index": 13,
            "file": str(folder / "test/b/copy.png"),
            "class": "b",
        },
    }


def test_counts_sizes_and_kinds(found):
    assert {name: counts.tolist() for name, counts in found.counts().items()} == {
        "train": [6, 7], "test": [7, 8], "validation": [7, 7],
    }  # fmt: skip
    assert found.sizes["test"] == {(40, 48): 15}
    assert found.kinds["test"] == {"PNG RGB": 13, "BMP RGB": 1, "JPEG RGB": 1}


def test_an_image_that_cannot_be_read_is_listed_and_stops_nothing(found):
    ((place, reason),) = found.problems.items()
    assert place == ("validation", 13) and reason.endswith("it is an HTML page")
    assert found.to_json()["unreadable"] == [{"split": "validation", "index": 13, "reason": reason}]


def test_mean_and_std_are_those_of_the_training_pixels(found, folder):
    pixels = (
        np.stack([np.asarray(Image.open(path)) for path in (folder / "train").rglob("*.png")]) / 255
    )
    np.testing.assert_allclose(found.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std((0, 1, 2)), rtol=1e-9)


def test_leakage_is_said_first(found):
    lines = found.summary()
    assert lines[0] == found.leakage()
    assert lines[1] == "1 image cannot be read:"
    assert "1 train image is there twice (1 byte for byte)" in lines
    assert any(line.startswith("pixels of train: preprocess.mean=(0.") for line in lines)


def test_all_of_it_is_plain(found):
    facts = json.loads(json.dumps(found.to_json()))
    assert facts["splits"]["test"]["per_class"] == {"a": 7, "b": 8}
    assert len(facts["pairs"]) == facts["number_of_pairs"] == 5 and facts["conflicts"] == 1


def test_the_strongest_pairs_are_listed_and_all_are_counted(found, monkeypatch):
    monkeypatch.setattr(inspection, "_PAIRS_LISTED", 4)
    facts = found.to_json()
    assert [pair["kind"] for pair in facts["pairs"]] == ["bytes", "bytes", "bytes", "pixels"]
    assert facts["number_of_pairs"] == 5


def test_arrays_are_inspected_as_files_are(found, folder):
    """In memory, resized to nothing: the same pixels, but no bytes of a file."""
    whole = load_splits(
        f"folder:{folder}", Selection(validation="val"), Decoding(unreadable="skip")
    )
    other = data.inspect(whole, "decoded")
    assert {row["second"]: row["images"] for row in other.repeated() if row["first"] == "train"} == {
        "test": 3, "validation": 0, "train": 1,
    }  # fmt: skip
    assert all(row["bytes"] == 0 for row in other.repeated())
    assert other.mean == found.mean and other.kinds["test"] == {"array RGB": 15}


def test_what_is_held_out_is_a_split_of_its_own(tmp_path):
    broken_files.write(tmp_path, broken=False, good=20)
    splits = open_undecoded(f"folder:{tmp_path}", Selection(validation_fraction=0.25))
    assert set(splits) == {"train", "test", "validation"}
    used = load_splits(f"folder:{tmp_path}", Selection(validation_fraction=0.25))
    for role, split in splits.items():
        assert [split.file(row) for row in range(len(split))] == [
            used[role].file(row) for row in range(len(split))
        ]


def test_splits_that_no_role_uses_are_looked_at_too(folder):
    assert set(open_undecoded(f"folder:{folder}")) == {"train", "test", "val"}


def test_folds_are_looked_at_and_the_test_split_under_a_name_of_its_own(folder):
    """The fold that is reported on is `test`, as of a run."""
    selection = Selection(folds=3, fold=2, examples_per_class=2)
    found = open_undecoded(f"folder:{folder}", selection, Decoding(16))
    used = load_splits(f"folder:{folder}", selection, Decoding(16))
    assert set(found) == {"train", "test", "val", "test, unused"}
    assert (len(found["train"]), len(found["test, unused"])) == (4, 15)
    for role in ("train", "test"):
        assert [found[role].file(row) for row in range(len(found[role]))] == [
            used[role].file(row) for row in range(len(used[role]))
        ]


def test_the_splits_of_a_config_are_those_of_its_run(folder):
    config = default_config(
        data__name=f"folder:{folder}", data__folds=3, data__fold=2, data__examples_per_class=2,
        data__validation_fraction=0.0, data__image_size=16,
    )  # fmt: skip
    found = make_undecoded_splits(config)
    assert (len(found["train"]), len(found["test"])) == (4, 4)


def test_data_without_a_test_split_are_looked_at(tmp_path, folder):
    shutil.copytree(folder / "train", tmp_path / "train")
    splits = open_undecoded(f"folder:{tmp_path}")
    assert set(splits) == {"train"}
    assert any("unknown split of folder:" in note for note in splits.notes)
    assert data.inspect(splits, "x").leakage() == "leakage: there is one split only"
    with pytest.raises(InputError, match="unknown split"):
        open_undecoded(f"folder:{tmp_path}", Selection(train="trian"))


def test_large_photos_are_shrunk_and_still_told_apart(tmp_path):
    """By the size they are stored at, too."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (700, 600, 3), np.uint8)
    for name, image in (("a", pixels), ("b", pixels), ("b", pixels[1:])):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / name / f"{len(image)}.bmp")
    source = data.sources.open_source(f"folder:{tmp_path}")
    found = data.inspect(data.Splits({"all": source.split("all")}, "", ()), "x")
    assert [(pair.kind, pair.first[1], pair.second[1]) for pair in found.pairs] == [("bytes", 0, 2)]
    assert found.sizes["all"] == {(700, 600): 2, (699, 600): 1}


def test_examples_are_the_first_of_every_class_that_can_be_read(found):
    shown = inspection.examples(found.splits["validation"], 3, side=20)
    assert {label: len(pictures) for label, pictures in shown.items()} == {0: 3, 1: 3}
    assert all(picture.shape == (20, 20, 3) for pictures in shown.values() for picture in pictures)
    images = np.arange(4 * 8 * 8 * 3).reshape(4, 8, 8, 3).astype(np.uint8)
    arrays = Arrays({"train": (images, np.array([0, 1, 0, 1]))}).split("train")
    assert {label: len(shown) for label, shown in inspection.examples(arrays, 9).items()} == {
        0: 2,
        1: 2,
    }
    np.testing.assert_array_equal(inspection.picture(arrays, 1, 8), images[1])


def test_jpegs_of_one_picture_are_near_but_not_equal():
    contents = [io.BytesIO() for _ in range(2)]
    for buffer, quality in zip(contents, (90, 50), strict=True):
        photo(3).save(buffer, "JPEG", quality=quality)
    images = np.stack([np.asarray(Image.open(buffer)) for buffer in contents])
    arrays = Arrays(
        {"train": (images[:1], np.array([0])), "test": (images[1:], np.array([0]))}, ("a", "b")
    )
    splits = data.Splits({name: arrays.split(name) for name in ("train", "test")}, "test", ())
    assert [pair.kind for pair in data.inspect(splits, "x").pairs] == ["near"]
