import numpy as np
import pytest

from tl_jax import data
from tl_jax.data import Arrays, Selection, load_splits, sources
from tl_jax.errors import InputError


@pytest.fixture
def npz(tmp_path):
    """Splits train (20, by class) and val (4) of two classes."""
    pixels = np.arange(20, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 2, 2, 3), np.uint8)
    np.savez(
        tmp_path / "toy.npz",
        train_images=pixels,
        train_labels=np.repeat([0, 1], 10),
        val_images=pixels[:4],
        val_labels=np.array([0, 1, 0, 1]),
    )
    return tmp_path


def pixels(split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_a_balanced_validation_split_is_held_out(npz):
    splits = load_splits(
        "npz:toy.npz", Selection(test="val", validation_fraction=0.2, seed=4), data_dir=npz
    )
    assert np.bincount(splits["validation"].labels).tolist() == [2, 2]
    assert sorted(pixels(splits["train"]) + pixels(splits["validation"])) == list(range(20))
    assert pixels(splits["test"]) == [0, 1, 2, 3]
    again = load_splits(
        "npz:toy.npz", Selection(test="val", validation_fraction=0.2, seed=4), data_dir=npz
    )
    assert pixels(again["validation"]) == pixels(splits["validation"])


def test_few_examples_leave_the_validation_split_as_it_is(npz):
    options = {"test": "val", "validation_fraction": 0.2}
    full = load_splits("npz:toy.npz", Selection(**options), data_dir=npz)
    few = load_splits("npz:toy.npz", Selection(examples_per_class=3, **options), data_dir=npz)
    assert np.bincount(few["train"].labels).tolist() == [3, 3]
    assert pixels(few["validation"]) == pixels(full["validation"])
    assert not set(pixels(few["train"])) & set(pixels(few["validation"]))


def test_there_is_no_validation_split_unless_asked_for(npz):
    assert set(load_splits("npz:toy.npz", Selection(test="val"), data_dir=npz)) == {"train", "test"}
    named = load_splits(
        "npz:toy.npz", Selection(test="val[:50%]", validation="val[50%:]"), data_dir=npz
    )
    assert len(named["validation"]) == len(named["test"]) == 2


def test_a_slice_of_data_stored_by_class_has_every_class(npz):
    splits = load_splits(
        "npz:toy.npz", Selection(train="train[:50%]", test="train[50%:]"), data_dir=npz
    )
    assert set(splits["train"].labels) == {0, 1}
    assert sorted(pixels(splits["train"]) + pixels(splits["test"])) == list(range(20))


def test_splits_can_be_joined(npz):
    splits = load_splits(
        "npz:toy.npz", Selection(train="train[:90%]+val", test="train[90%:]"), data_dir=npz
    )
    assert (len(splits["train"]), len(splits["test"])) == (22, 2)
    assert splits["train"].labels[-4:].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": "train[:10%]"}, r"train='train' and test='train\[:10%\]' .* share 2 examples"),
        ({"test": "val", "validation": "val[:1]"}, "share 1 example;"),
        ({"test": "tset"}, "unknown split of npz:.* 'tset'; .*known: train, val"),
        (
            {"validation": "val"},
            "'val' would be reported on, were it not for data.validation_split",
        ),
        ({"train": "trian"}, "unknown split of npz:.* 'trian'; nearest: train"),
        ({"test": "val", "train": "train[:1]"}, "train_split='train.*' .* one class only: '[01]'"),
        ({"test": "val", "validation_fraction": 1.0}, r"not in \[0, 1\)"),
        ({"test": "val", "validation_fraction": 0.01}, "holds 0 of 20 training images out"),
        ({"test": "val", "validation_fraction": 0.1, "validation": "val"}, "give one"),
        ({"test": "val", "examples_per_class": 11}, "from 1 to 10; classes with fewer examples"),
        ({"test": "val", "seed": -1}, "integers from 0"),
        ({"test": "val", "train": "", "validation_fraction": 0.1}, "both choose from train"),
        ({"test": "val", "train": "", "examples_per_class": 1}, "both choose from train"),
    ],
)
def test_wrong_options_are_refused(npz, options, message):
    with pytest.raises(InputError, match=message):
        load_splits("npz:toy.npz", Selection(**options), data_dir=npz)


def test_classes_without_examples_are_said(tmp_path):
    """Classes 1 and 3 are not in train, class 2 not in test."""
    images = np.zeros((4, 2, 2, 3), np.uint8)
    arrays = {"train_images": images, "train_labels": np.array([0, 0, 2, 2])}
    arrays |= {"test_images": images[:3], "test_labels": np.array([0, 1, 1])}
    np.savez(tmp_path / "some.npz", class_names=np.array(["ant", "bee", "cat", "dog"]), **arrays)
    notes = load_splits(f"npz:{tmp_path / 'some.npz'}").notes
    assert notes == (
        f"npz:{tmp_path / 'some.npz'}: train has no examples of 2 of 4 classes (bee, dog): they cannot be "
        "learned, and 2 of 3 test images are of them",
        f"npz:{tmp_path / 'some.npz'}: test has no examples of 1 of 4 classes (cat)",
    )


def test_no_train_split_need_exist_where_none_is_wanted(tmp_path):
    images = np.zeros((2, 2, 2, 3), np.uint8)
    np.savez(tmp_path / "some.npz", test_images=images, test_labels=np.array([0, 1]))
    found = load_splits(f"npz:{tmp_path / 'some.npz'}", Selection(train=""))
    assert (set(found), found.reported, found.notes) == ({"test"}, "test", ())


@pytest.mark.parametrize("name", ["digit", "cifar10", "tfds:", "folder:", "npz:", "", "http:x"])
def test_unknown_names_say_what_there_is(name):
    with pytest.raises(
        InputError, match=r"unknown data set .*known: csv:PATH, digits, folder:PATH"
    ):
        load_splits(name)


def test_kinds_of_data_sets_are_registered(monkeypatch, npz):
    monkeypatch.setattr(sources, "_REGISTERED", {})

    def toy(rest):
        return sources.open_source(f"npz:{rest}.npz", data_dir=npz)

    data.register("toy", toy)
    data.register("toy", toy)  # the same one again
    assert len(load_splits("toy:toy", Selection(test="val"))["train"]) == 20
    with pytest.raises(InputError, match=r"a kind of data set 'toy' is registered .*replace"):
        data.register("toy", lambda rest: toy(rest))
    data.register("toy", lambda rest: toy("toy"), replace=True)
    assert len(load_splits("toy:other", Selection(test="val"))["train"]) == 20
    for kind in ("npz", "a:b", ""):
        with pytest.raises(InputError, match="expected a name without a colon"):
            data.register(kind, toy, replace=True)


def fold_of(npz, fold, **options):
    selection = Selection(folds=4, fold=fold, seed=4, **options)
    return load_splits("npz:toy.npz", selection, data_dir=npz)


def test_each_fold_is_the_test_split_once(npz):
    found = [fold_of(npz, fold) for fold in (1, 2, 3, 4)]
    held = [pixels(splits["test"]) for splits in found]
    assert sorted(np.concatenate(held)) == list(range(20))
    for splits, own in zip(found, held, strict=True):
        assert set(splits) == {"train", "test"}
        assert own == sorted(own)
        assert sorted(pixels(splits["train"]) + own) == list(range(20))
        # 10 of each class over 4 folds.
        assert set(np.bincount(splits["test"].labels)) <= {2, 3}
    assert found[1].reported == "fold 2 of 4 of train"
    assert found[1].notes[-1].endswith("fold 2 of 4 of train is reported on; no test split is read")


def test_no_test_split_is_opened_where_there_are_folds(npz):
    assert len(fold_of(npz, 1, test="val")["test"]) == 5
    # Neither is one that does not exist.
    assert len(fold_of(npz, 1, test="tset")["test"]) == 5
    with pytest.raises(InputError, match=r"unknown split of npz:.* 'trian'"):
        fold_of(npz, 1, train="trian")


def test_validation_and_few_examples_are_chosen_from_the_other_folds(npz):
    plain = fold_of(npz, 3)
    splits = fold_of(npz, 3, validation_fraction=0.2, examples_per_class=2)
    assert pixels(splits["test"]) == pixels(plain["test"])
    assert np.bincount(splits["train"].labels).tolist() == [2, 2]
    assert len(splits["validation"]) == 3
    chosen = pixels(splits["train"]) + pixels(splits["validation"])
    assert set(chosen) <= set(pixels(plain["train"])) and len(set(chosen)) == 7


def test_a_separate_validation_split_is_the_same_for_all_folds(npz):
    assert pixels(fold_of(npz, 2, validation="val")["validation"]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("photos", "folder:photos"),
        ("photos.csv", "csv:photos.csv"),
        ("photos.npz", "npz:photos.npz"),
        ("photos.zip", "folder:photos.zip"),
        ("foldr:photos", "folder:photos"),
        ("digit", "digits"),
        ("photos.txt", ""),
    ],
)
def test_names_of_data_that_are_nearly_right(tmp_path, monkeypatch, given, near):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for ending in ("csv", "npz", "zip", "txt"):
        (tmp_path / f"photos.{ending}").touch()
    places = [given] if ":" in given or given == "digit" else [given, str(tmp_path / given)]
    for name in places:
        with pytest.raises(InputError) as raised:
            load_splits(name)
        expected = f"nearest: {near.replace(given, name)};" if near else f"{name!r}; known:"
        assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (
            0.999,
            "validation_fraction=0.999 holds 10 of 10 training images out; expected a smaller fraction, .*, or 0",
        ),
        (
            0.01,
            "holds 0 of 10 training images out; expected a fraction that is at least one image, or 0",
        ),
    ],
)
def test_fractions_that_leave_nothing_on_one_side(fraction, message):
    images, labels = np.zeros((10, 4, 4, 3), np.uint8), np.arange(10) % 2
    source = Arrays({"train": (images, labels), "test": (images, labels)})
    with pytest.raises(InputError, match=message):
        load_splits(source, Selection(validation_fraction=fraction))
