import os
import pathlib
import pickle
import shutil
import unicodedata

import numpy as np
import pytest

from tl_jax.data import Decoding, Selection, folder, load_splits, records
from tl_jax.data.broken import BrokenImages
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
    first, again = (
        load_splits(f"folder:{classes}"),
        load_splits(f"folder:{classes}", Selection(seed=9)),
    )
    assert np.bincount(first["train"].labels).tolist() == [8, 8]
    assert np.bincount(first["test"].labels).tolist() == [2, 2]
    assert sorted(values(first["train"]) + values(first["test"])) == list(range(20))
    assert values(first["test"]) == values(again["test"])
    assert first["train"].class_names == ("cat", "dog")
    assert all(
        value // 10 == label
        for value, label in zip(values(first["test"]), first["test"].labels, strict=True)
    )


def test_an_evaluation_says_that_a_fifth_is_test(classes):
    alone = load_splits(f"folder:{classes}", Selection(train=""))
    assert "4 of 20 images are test" in alone.notes[0] and "data.test_split=all" in alone.notes[0]
    assert not load_splits(f"folder:{classes}", Selection(train="", test="all")).notes


def test_splits_are_read_and_their_usual_names_stand_for_each_other(splits):
    found = load_splits(f"folder:{splits}", Selection(test="validation"))
    assert values(found["train"]) == [0, 1, 2, 100, 101, 102]
    assert values(found["test"]) == [0, 1, 100, 101]
    assert found["test"].labels.tolist() == [0, 0, 1, 1]


def test_a_missing_split_names_those_there_are(splits):
    with pytest.raises(InputError, match=r"unknown split of folder:.* 'tset'; .*known: train, val"):
        load_splits(f"folder:{splits}", Selection(test="tset"))


def test_val_is_reported_on_where_there_is_no_test_split(splits):
    found = load_splits(f"folder:{splits}", Selection(validation_fraction=0.34))
    assert values(found["test"]) == [0, 1, 100, 101]
    assert sorted(values(found["train"]) + values(found["validation"])) == [0, 1, 2, 100, 101, 102]
    assert found.reported == "val (there is no test split with labels)"
    assert any("its split 'val' is reported on as test" in note for note in found.notes)
    part = load_splits(f"folder:{splits}", Selection(test="test[:50%]"))
    assert (len(part["test"]), part.reported) == (
        2,
        "val[:50%] (there is no test split with labels)",
    )


def test_a_test_split_is_never_stood_in_for(splits, write_image):
    for name in "ab":
        write_image(splits / "test" / name / "0.png", 50)
    found = load_splits(f"folder:{splits}")
    assert (values(found["test"]), found.reported) == ([50, 50], "test")
    assert load_splits(f"folder:{splits}", Selection(test="val")).reported == "val"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"validation": "val"},
            "'val' would be reported on, were it not for data.validation_split",
        ),
        ({"train": "train+val"}, r"were it not for data.train_split=train\+val"),
    ],
)
def test_what_chooses_or_trains_is_not_reported_on(splits, options, message):
    with pytest.raises(InputError, match=f"unknown split of folder:.* 'test'.*{message}"):
        load_splits(f"folder:{splits}", Selection(**options))


def test_without_test_and_val_a_part_of_train_is_suggested(tmp_path, write_image):
    for name in "ab":
        write_image(tmp_path / "train" / name / "0.png")
    with pytest.raises(InputError, match=r"--config\.data\.train_split='train\[:80%\]'"):
        load_splits(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    "names", [("Train", "Test"), ("training", "TESTING"), ("TRAIN", "testing")]
)
def test_other_names_of_splits(tmp_path, write_image, names):
    for split, value in zip(names, (10, 20), strict=True):
        for name in "ab":
            write_image(tmp_path / split / name / "0.png", value)
    found = load_splits(f"folder:{tmp_path}")
    assert (values(found["train"]), values(found["test"])) == ([10, 10], [20, 20])
    assert load_splits(f"folder:{tmp_path}", Selection(test=names[1])).reported == names[1]


def test_folders_inside_class_folders_belong_to_the_class(tmp_path, write_image):
    for name in "ab":
        write_image(tmp_path / name / "images" / "0.png")
    write_image(tmp_path / "a" / "1.png")
    found = folder.Folder(tmp_path, 0)
    assert set(found.split_names) == {"all", "train", "test"}
    assert found.split("all").labels.tolist() == [0, 0, 1]


def test_class_folders_that_all_hold_one_folder(tmp_path, write_image):
    """As in the training split of Tiny ImageNet, given by itself."""
    for name in "ab":
        for number in range(3):
            write_image(tmp_path / name / "images" / f"{number}.png")
    assert folder.Folder(tmp_path, 0).split("all").class_names == ("a", "b")


def test_splits_with_names_of_their_own(tmp_path, write_image):
    for number, split in enumerate(("photos", "sketches")):
        for name in "ab":
            write_image(tmp_path / split / name / "0.png", number)
    found = load_splits(f"folder:{tmp_path}", Selection(train="photos", test="sketches"))
    assert (values(found["train"]), values(found["test"])) == ([0, 0], [1, 1])
    with pytest.raises(
        InputError, match="read as splits, as they hold no images: photos, sketches"
    ):
        load_splits(f"folder:{tmp_path}")


def test_classes_may_be_called_like_splits(tmp_path, write_image):
    for name in ("bus", "train", "valid"):
        write_image(tmp_path / name / "0.png")
    assert folder.Folder(tmp_path, 0).split("all").class_names == ("bus", "train", "valid")


def test_a_class_that_train_has_not_is_named(splits, write_image):
    write_image(splits / "val" / "c" / "0.png")
    (splits / "train" / "d").mkdir()
    with pytest.raises(InputError, match="train/d has no images; val/c is not a class of train"):
        load_splits(f"folder:{splits}", Selection(test="val"))


def test_slices_take_from_every_class(classes):
    found = load_splits(f"folder:{classes}", Selection(train="all[:50%]", test="all[50%:]"))
    assert len(np.unique(found["train"].labels)) == 2
    assert sorted(values(found["train"]) + values(found["test"])) == list(range(20))


def test_all_overlaps_its_parts(classes):
    with pytest.raises(InputError, match="share 4 examples"):
        load_splits(f"folder:{classes}", Selection(train="all", test="test"))


def test_sizes_that_differ_need_an_image_size(classes, write_image):
    write_image(classes / "cat" / "large.png", 7, (9, 16))
    with pytest.raises(InputError, match=r"2 different sizes, the most common 8x8 .*, 9x16 \(1\)"):
        load_splits(f"folder:{classes}")
    found = load_splits(f"folder:{classes}", decoding=Decoding(image_size=4))
    assert found["train"].image_shape == found["test"].image_shape == (4, 4, 3)


def test_equal_sizes_are_kept_whatever_the_image_size(classes):
    assert load_splits(f"folder:{classes}", decoding=Decoding(image_size=4))[
        "train"
    ].image_shape == (8, 8, 3)


def test_sizes_that_differ_between_splits(tmp_path, write_image):
    for split, side in (("train", 8), ("test", 6)):
        for name in "ab":
            write_image(tmp_path / split / name / "0.png", 5, (side, side))
    with pytest.raises(InputError, match="between splits: train 8x8, test 6x6"):
        load_splits(f"folder:{tmp_path}")
    found = load_splits(f"folder:{tmp_path}", decoding=Decoding(image_size=4))
    assert found["train"].image_shape == found["test"].image_shape == (4, 4, 3)
    assert values(found["test"]) == [5, 5]


def test_a_corrupt_image_is_named(classes):
    path = classes / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"dog/3\.png cannot be read as an image"):
        load_splits(f"folder:{classes}")


def test_a_large_split_is_decoded_on_access_and_equals_the_one_in_memory(classes):
    memory = load_splits(
        f"folder:{classes}", Selection(validation_fraction=0.25, examples_per_class=2)
    )
    access = load_splits(
        f"folder:{classes}",
        Selection(validation_fraction=0.25, examples_per_class=2),
        Decoding(max_memory_bytes=0),
    )
    for role in ("train", "validation", "test"):
        assert isinstance(access[role], records.LazySplit)
        assert values(access[role]) == values(memory[role])
        np.testing.assert_array_equal(access[role].labels, memory[role].labels)
    copy = pickle.loads(pickle.dumps(access["train"]))
    assert values(copy) == values(memory["train"])


def test_joined_splits_keep_their_order_on_access(splits):
    joined = load_splits(
        f"folder:{splits}",
        Selection(train="val[:2]+train", test="val[2:]"),
        Decoding(max_memory_bytes=0),
    )
    train = joined["train"]
    assert values(train)[2:] == [0, 1, 2, 100, 101, 102]
    assert train.labels.tolist()[2:] == [0, 0, 0, 1, 1, 1]
    assert values(train.subset(np.array([7, 2]))) == [102, 0]
    assert [train.file(7), train.file(2)] == [
        str(splits / name) for name in ("train/b/2.png", "train/a/0.png")
    ]


@pytest.mark.parametrize("max_memory_bytes", [2**30, 0])
def test_images_know_their_files(classes, max_memory_bytes):
    found = load_splits(
        f"folder:{classes}",
        Selection(validation_fraction=0.25),
        Decoding(max_memory_bytes=max_memory_bytes),
    )
    assert set(found) == {"train", "validation", "test"}
    for split in found.values():
        assert [split.file(index) for index in range(len(split))] == [
            str(classes / ["cat", "dog"][value // 10] / f"{value % 10}.png")
            for value in values(split)
        ]


def test_images_of_other_sources_have_no_files():
    assert load_splits("digits")["test"].file(3) == ""


@pytest.mark.parametrize("path", ["missing", "file.txt", "empty"])
def test_what_is_no_folder_of_images_is_refused(tmp_path, path):
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=path):
        load_splits(f"folder:{path}", data_dir=tmp_path)


ONE_CLASS = {
    "one class": (["cat/0.png"], "has one class only, 'cat'; expected two or more"),
    "one class of train": (["train/cat/0.png", "test/cat/1.png"], "train has one class only, 'cat'"),
    "images beside it": (["train/cat/0.png", "train/1.png"], "1 images are beside 'cat'"),
    "the folder above": (["mine/cat/0.png", "mine/dog/0.png"], "give --config.data.name=folder:"),
    "the folder above splits": (["mine/train/a/0.png", "mine/test/a/0.png"], "mine, which holds test, train"),
    "train without labels": (["train/images/0.png", "val/a/0.png"], "train has one class only, 'images'"),
    "no class folders": (["0.png", "1.png"], "holds 2 images itself, such as 0.png; expected one folder"),
    "flat splits": (["train/0.png", "test/0.png"], "train has no class folders: its 1 images"),
    "flat train": (["train/0.png", "test/a/0.png", "test/b/0.png"], "train has no class folders"),
    "a class of other files": (["cat/0.png", "dog/0.heic"], r"dog has no images.*1 \.heic \(convert"),
    "another case": (["train/cat/0.png", "train/dog/0.png", "test/Cat/0.png"], r"nearest: cat\)"),
}  # fmt: skip


@pytest.mark.parametrize(("paths", "message"), ONE_CLASS.values(), ids=ONE_CLASS)
def test_layouts_that_are_refused(tmp_path, write_image, paths, message):
    for path in paths:
        if path.endswith(".png"):
            write_image(tmp_path / path)
        else:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text("not an image")
    with pytest.raises(InputError, match=message):
        load_splits(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("photos.7z", r"photos\.7z is an archive of a kind that is not read .*folder:photos"),
        ("photos.csv", r"photos\.csv is a table: give --config\.data\.name=csv:.*photos\.csv"),
    ],
)
def test_files_in_place_of_a_folder(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(InputError, match=message):
        load_splits(f"folder:{tmp_path / name}")


def test_what_is_ignored_is_said(classes, write_image):
    for path in ("cat/a.heic", "dog/b.HEIC", "dog/notes.txt", "cat/Thumbs.db", "cat/._0.png"):
        (classes / path).write_text("not an image")
    for name in ("__MACOSX", "@eaDir", "lost+found", ".ipynb_checkpoints", "cat/@eaDir"):
        write_image(classes / name / "0.png")
    found = load_splits(f"folder:{classes}")
    assert len(found["train"]) + len(found["test"]) == 20
    assert found["train"].class_names == ("cat", "dog")
    (note,) = found.notes
    for part in (
        f"folder:{classes}: ignored files of types that are not read (3): 2 .heic, 1 .txt",
        "(convert .heic to .jpg or .png)",
        "system files (2): Thumbs.db, ._0.png",
        "folders (5): .ipynb_checkpoints, @eaDir, __MACOSX, lost+found",
    ):
        assert part in note


def test_a_clean_folder_has_no_notes(classes):
    assert load_splits(f"folder:{classes}").notes == ()


def tiny_imagenet(path: pathlib.Path, write_image) -> pathlib.Path:
    """Writes two classes laid out as Tiny ImageNet is published; returns val's table of labels."""
    for label, name in enumerate(("n01", "n02")):
        for number in range(3):
            write_image(path / f"train/{name}/images/{name}_{number}.JPEG", 50 * label)
    for number in range(4):
        write_image(path / f"val/images/val_{number}.JPEG", 10 + number)
        write_image(path / f"test/images/test_{number}.JPEG", 90)
        (path / f"train/{name}/{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t7\t7\n")
    (path / "wnids.txt").write_text("n02\nn01\n")
    table = path / "val/val_annotations.txt"
    table.write_text("".join(f"val_{n}.JPEG\tn0{2 - n % 2}\t0\t0\t7\t7\n" for n in range(4)))
    return table


def test_tiny_imagenet_as_published(tmp_path, write_image):
    tiny_imagenet(tmp_path, write_image)
    found = load_splits(f"folder:{tmp_path}")
    assert found["train"].class_names == ("n01", "n02")
    assert found["train"].labels.tolist() == [0] * 3 + [1] * 3
    shown = values(found["test"])
    assert sorted(shown) == pytest.approx([10, 11, 12, 13], abs=2)
    labels = dict(zip(shown, found["test"].labels.tolist(), strict=True))
    assert [labels[value] for value in sorted(labels)] == [1, 0, 1, 0]
    assert found.reported == "val (there is no test split with labels)"
    assert any("test has no labels: test/images" in note for note in found.notes)
    assert not any("ignored" in note for note in found.notes)
    with pytest.raises(InputError, match="'val' would be reported on"):
        load_splits(f"folder:{tmp_path}", Selection(validation="val"))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("n02\tgoldfish, Carassius auratus\nn01\tEgyptian cat\nn09\towl\n",
         ("Egyptian cat", "goldfish, Carassius auratus")),
        ("n01\tcrane\nn02\tcrane\n", ("crane (n01)", "crane (n02)")),
        ("n01\tEgyptian cat\n", ("n01", "n02")),
    ],
    ids=["in the order of the folders", "one word for two", "not all"],
)  # fmt: skip
def test_classes_are_called_as_words_says(tmp_path, write_image, words, names):
    tiny_imagenet(tmp_path, write_image)
    (tmp_path / "words.txt").write_text(words)
    found = load_splits(f"folder:{tmp_path}")
    assert found["train"].class_names == found["test"].class_names == names
    assert found["train"].labels.tolist() == [0] * 3 + [1] * 3
    said = any("classes are called as words.txt says" in note for note in found.notes)
    assert said == (names != ("n01", "n02"))


@pytest.mark.parametrize("line", ["val_0.JPEG n01", "val_9.JPEG\tn01", "val_0.JPEG\t"])
def test_a_table_of_labels_of_another_form(tmp_path, write_image, line):
    tiny_imagenet(tmp_path, write_image).write_text(line + "\n")
    with pytest.raises(
        InputError, match=r"val_annotations\.txt line 1: expected the name of an image"
    ):
        load_splits(f"folder:{tmp_path}")


def test_labels_of_a_table_are_classes_of_train(tmp_path, write_image):
    table = tiny_imagenet(tmp_path, write_image)
    table.write_text(table.read_text().replace("n02", "n03"))
    with pytest.raises(InputError, match="val/n03 is not a class of train"):
        load_splits(f"folder:{tmp_path}")


def test_a_test_split_without_labels_is_not_used(splits, write_image):
    write_image(splits / "test" / "0.png")
    found = load_splits(f"folder:{splits}")
    assert found.reported.startswith("val")
    assert any("test has no class folders: its 1 images have no labels" in n for n in found.notes)


def test_all_broken_images_are_named_at_once(splits):
    """Those with a broken header, cut short or missing, of train and of val."""
    header, cut = splits / "train" / "a" / "0.png", splits / "train" / "b" / "1.png"
    header.write_text("<html>")
    cut.write_bytes(cut.read_bytes()[:50])
    late = splits / "val" / "b" / "0.png"
    late.write_bytes(late.read_bytes()[:50])
    gone = splits / "val" / "a" / "gone.png"
    gone.symlink_to("nowhere.png")
    with pytest.raises(InputError) as raised:
        load_splits(f"folder:{splits}")
    message = str(raised.value)
    assert message.startswith("4 images cannot be used:")
    assert all(str(path) in message for path in (header, cut, late, gone))
    header.unlink()
    gone.unlink()
    with pytest.raises(InputError) as raised:
        load_splits(f"folder:{splits}")
    message = str(raised.value)
    assert message.startswith("2 images cannot be used:")
    assert str(cut) in message and str(late) in message


def test_of_many_broken_images_twenty_are_shown(classes, write_image):
    for number in range(10, 15):
        for name in ("cat", "dog"):
            write_image(classes / name / f"{number}.png", number)
    for path in classes.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError) as raised:
        load_splits(f"folder:{classes}")
    message = str(raised.value)
    assert message.startswith("30 images cannot be used:")
    assert len(message.splitlines()) == 23
    assert "\n  and 10 more\n" in message
    assert message.endswith("or leave them out: --config.data.unreadable=skip")
    copied = pickle.loads(pickle.dumps(raised.value))
    assert len(copied.problems) == 30 and str(copied) == message


def test_an_image_that_cannot_be_opened_does_not_hide_others(classes):
    """As for a file without permission: reading a chunk of files fails as a whole."""
    split = folder.Folder(classes, 0).split("all")
    assert split.image_shape == (8, 8, 3)
    (classes / "dog" / "9.png").unlink()
    cut = classes / "cat" / "3.png"
    cut.write_bytes(cut.read_bytes()[:50])
    with pytest.raises(InputError) as raised:
        split.gather(np.arange(20))
    assert str(raised.value).startswith("2 images cannot be used:")
    assert "\n  " + str(classes / "dog" / "9.png") + " cannot be read: No such file" in str(
        raised.value
    )
    with pytest.raises(BrokenImages, match=r"9\.png cannot be read"):
        split.encoded(np.arange(20))
    assert values(split.subset(np.array([0, 0, 5]))) == [0, 0, 5]


def test_names_in_other_unicode_forms_are_one_class(tmp_path, write_image):
    for split, form in (("train", "NFD"), ("test", "NFC")):
        for name in ("café", "猫 cat"):
            write_image(tmp_path / split / unicodedata.normalize(form, name) / "ü 1.png")
    found = load_splits(f"folder:{tmp_path}")
    assert found["test"].class_names == (unicodedata.normalize("NFC", "café"), "猫 cat")
    assert found["test"].labels.tolist() == [0, 1]


def test_names_that_differ_in_case_are_said(classes, write_image):
    for number in range(10):
        write_image(classes / "Cat" / f"{number}.png", 100 + number)
    (note,) = load_splits(f"folder:{classes}").notes
    assert "differ in case, spaces or leading zeros only: 'Cat' and 'cat'" in note


def test_symbolic_links_are_followed_but_not_round_and_round(tmp_path, write_image):
    for name in "ab":
        for number in range(5):
            write_image(tmp_path / "stored" / name / f"{number}.png", number)
    (tmp_path / "data").mkdir()
    for name in "ab":
        (tmp_path / "data" / name).symlink_to(tmp_path / "stored" / name)
    (tmp_path / "stored" / "a" / "up").symlink_to("..")
    (tmp_path / "data" / "self").symlink_to(".")
    found = folder.Folder(tmp_path / "data", 0)
    assert found.split("all").class_names == ("a", "b")
    assert len(found.split("all")) == 10
    assert any(
        "links to folders that are read already (2): self, up" in note for note in found.notes
    )
    (tmp_path / "data" / "owl").symlink_to("nowhere")
    with pytest.raises(InputError, match="owl is a symbolic link to nowhere, which does not exist"):
        folder.Folder(tmp_path / "data", 0)


def test_images_of_train_among_those_of_test_are_counted(splits):
    for path in (splits / "val").rglob("*.png"):
        path.unlink()
    shutil.copy(splits / "train/a/0.png", splits / "val/a/copy.png")
    shutil.copy(splits / "train/a/1.png", splits / "val/b/copy.png")
    note = load_splits(f"folder:{splits}").notes[-1]
    assert "2 of 2 images" in note and "1 of them with another class" in note
    assert str(splits / "val/a/copy.png") in note and str(splits / "train/a/0.png") in note


def test_images_of_train_in_any_other_split_are_counted(splits, write_image):
    """Three of them in the test split, one under another class; one in the validation split."""
    for path in (splits / "val").rglob("*.png"):
        write_image(path, 240)
    shutil.copy(splits / "train/b/0.png", splits / "val/b/copy.png")
    for number, name in enumerate("aab"):
        write_image(splits / "test" / name / f"own{number}.png", 200 + number)
        shutil.copy(splits / f"train/a/{number}.png", splits / "test" / name / f"copy{number}.png")
    for wanted in ({"validation": "val"}, {"test": "val", "validation": "test"}):
        notes = load_splits(f"folder:{splits}", Selection(**wanted)).notes
        (test,) = [note for note in notes if note.startswith("3 of 6 images of")]
        assert " test are in the training split" in test
        assert ", 1 of them with another class" in test
        (val,) = [note for note in notes if note.startswith("1 of 5 images of")]
        assert " val are in the training split" in val and "another class" not in val


def test_folders_without_permission(classes, monkeypatch):
    def refuse(path):
        if os.fspath(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"dog cannot be read: .*Permission denied"):
        load_splits(f"folder:{classes}")


@pytest.mark.parametrize("image_size", [0, 8])
def test_a_link_to_nothing_is_an_image_that_cannot_be_used(classes, image_size, tmp_path):
    """As any other one: with all that are broken, and what leaves them out; with a cache and without."""
    (classes / "dog" / "link.png").symlink_to("nowhere.png")
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(
            BrokenImages, match=r"1 image cannot be used:\n.*dog/link\.png"
        ) as raised:
            load_splits(f"folder:{classes}", decoding=Decoding(image_size, cache_dir=cache))
        assert str(raised.value).endswith("leave them out: --config.data.unreadable=skip")
    records = folder.Folder(classes, image_size).split("all").records
    with pytest.raises(BrokenImages, match=r"link\.png cannot be read: No such file"):
        records.fingerprint()


def test_classes_that_train_lacks_are_named_with_those_it_has(tmp_path, write_image):
    for split, names in (("train", ("cat", "dog")), ("test", ("cat", "owl"))):
        for name in names:
            write_image(tmp_path / split / name / "0.png", 1)
    with pytest.raises(InputError) as raised:
        load_splits(f"folder:{tmp_path}")
    assert str(raised.value).endswith(
        "test/owl is not a class of train; the classes of train are cat, dog: rename or remove the folders that "
        "are not among them, or add them to train"
    )
