import collections
import hashlib

import numpy as np
import pytest

from tl_jax.data import Arrays, Selection, arrays, load_splits
from tl_jax.errors import InputError


def test_digits_are_balanced_disjoint_and_complete():
    train, test = (arrays.Digits().split(name) for name in ("train", "test"))
    assert (len(train), len(test)) == (1297, 500)
    assert np.bincount(test.labels).tolist() == [50] * 10
    assert train.image_shape == test.image_shape == (32, 32, 3)
    assert train.class_names == tuple("0123456789")
    # Every stored example is in one of the two, once: no image of train is tested on.
    stored, labels = arrays._stored_digits()
    grey = np.round(stored * (255 / 16)).astype(np.uint8)
    parts = [content(split.images[:, ::4, ::4, 0], split.labels) for split in (train, test)]
    assert parts[0] + parts[1] == content(grey, labels)
    assert not parts[0] & parts[1]


def content(images, labels) -> collections.Counter:
    """Returns how often each image with its label occurs."""
    return collections.Counter(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def test_the_test_digits_are_the_same_ones_always():
    """Results with other test digits would not compare with earlier ones."""
    test = arrays.Digits().split("test")
    digest = hashlib.sha256(test.images.tobytes() + test.labels.tobytes()).hexdigest()
    assert digest[:16] == "c81455b1e4f7f224"


def test_digits_are_stored_pixels_in_squares_of_four():
    from sklearn.datasets import load_digits

    stored = load_digits()
    train = arrays.Digits().split("train")
    # Full brightness, 16, becomes 255; 8 becomes 127.5, rounded to even.
    small = train.images[:, ::4, ::4, 0]
    assert small.max() == 255
    np.testing.assert_array_equal(
        train.images, small.repeat(4, 1).repeat(4, 2)[..., None].repeat(3, 3)
    )
    values = {round(value * 255 / 16) for value in range(17)}
    assert set(np.unique(small)) == values
    grey = np.round(stored.images * 255 / 16).astype(np.uint8)
    whole = {
        (image.tobytes(), int(label)) for image, label in zip(grey, stored.target, strict=True)
    }
    assert {
        (image.tobytes(), int(label)) for image, label in zip(small, train.labels, strict=True)
    } < whole


def write(path, **content):
    np.savez(path, **content)
    return path


def test_npz_reads_pairs_and_names(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3)
    path = write(
        tmp_path / "a.npz",
        train_images=pixels,
        train_labels=np.array([0, 1, 1, 0]),
        val_images=pixels[:2],
        val_labels=np.array([1, 0]),
        names=np.array(["cat", "dog"]),
        wnids=np.array(["n1", "n2"]),
    )
    source = arrays.Npz(path)
    assert source.split_names == ("train", "val")
    split = source.split("val")
    assert split.class_names == ("cat", "dog")
    assert split.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(split.images, pixels[:2])


def test_npz_without_names_numbers_the_classes_of_all_splits(tmp_path):
    pixels = np.zeros((2, 2, 2, 3), np.uint8)
    path = write(
        tmp_path / "a.npz",
        train_images=pixels,
        train_labels=np.array([0, 1]),
        test_images=pixels,
        test_labels=np.array([0, 2]),
    )
    assert arrays.Npz(path).split("train").class_names == ("0", "1", "2")


def test_npz_problems_name_the_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz is not a file"):
        arrays.Npz(tmp_path / "none.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match=r"broken\.npz is not a readable \.npz"):
        arrays.Npz(broken)
    with pytest.raises(
        InputError, match=r"no pair of arrays SPLIT_images and SPLIT_labels, .*; it has x"
    ):
        arrays.Npz(write(tmp_path / "x.npz", x=np.zeros(3)))
    with pytest.raises(InputError, match=r"f\.npz train: images are float64"):
        arrays.Npz(
            write(
                tmp_path / "f.npz", train_images=np.zeros((1, 2, 2, 3)), train_labels=np.array([0])
            )
        ).split("train")


PIXELS = np.arange(4, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 2, 2, 3), np.uint8)
LABELS = np.array([0, 1, 0, 1])
WRONG_ARRAYS = {
    "fractions": ({"train_images": PIXELS / 255}, r"float64 .*: use \(images \* 255\)\.round"),
    "floats": ({"train_images": PIXELS * 1.0}, r"values in \[0\.0, 3\.0\]; expected uint8 in \[0, 255\]$"),
    "channels first": ({"train_images": PIXELS.transpose(0, 3, 1, 2)}, r"transpose\(0, 2, 3, 1\)"),
    "transparency": ({"train_images": PIXELS[..., [0, 0, 0, 0]]}, r"images\[\.\.\., :3\]"),
    "objects": ({"train_images": np.array([*PIXELS, None], object)[:4]}, "train_images is an array of Python"),
    "float labels": ({"train_labels": LABELS * 1.0}, r"float64 \[4\], .*labels\.astype"),
    "one-hot": ({"train_labels": np.eye(2)[LABELS]}, r"float64 \[4, 2\], .*labels\.argmax\(1\)"),
    "column": ({"train_labels": LABELS[:, None]}, r"int64 \[4, 1\], .*labels\[:, 0\]"),
    "text": ({"train_labels": np.array(["a", "b"])[LABELS]}, "np.unique"),
    "object labels": ({"train_labels": LABELS.astype(object)}, "train_labels is an array of Python"),
    "negative": ({"train_labels": LABELS - 1}, "2 of 4 train_labels are below 0, the lowest is -1"),
    "from one": ({"train_labels": LABELS + 1}, "labels go from 1 to 2; expected integers from 0. Subtract 1"),
    "table of names": ({"class_names": np.array([["a"], ["b"]])}, r"class_names has shape \[2, 1\]"),
    "empty": ({"train_images": PIXELS[:0], "train_labels": LABELS[:0]}, "split 'train' has no examples"),
    "one class": ({"train_labels": LABELS * 0}, r"one class only: '0' \(the data set has 2 classes\)"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
def test_arrays_of_another_form(tmp_path, changes, message):
    given = {"train_images": PIXELS, "train_labels": LABELS} | changes
    if "labels go" not in message:
        given |= {"test_images": PIXELS, "test_labels": LABELS}
    path = write(tmp_path / "a.npz", **given)
    test = "test" if "test_images" in given else "train[:50%]"
    with pytest.raises(InputError, match=message):
        load_splits(f"npz:{path}", Selection(test=test))


def test_images_without_labels_are_said(tmp_path):
    given = {"train_images": PIXELS, "train_labels": LABELS, "test_images": PIXELS}
    found = load_splits(
        f"npz:{write(tmp_path / 'a.npz', **given)}",
        Selection(train="train[:50%]", test="train[50%:]"),
    )
    assert found.notes[0].endswith("ignored test_images, which has no labels")


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    images, labels = arrays._stored_digits()
    np.testing.assert_array_equal(images, theirs.images)
    np.testing.assert_array_equal(labels, theirs.target)
    assert [str(name) for name in theirs.target_names] == list(
        arrays.Digits().split("test").class_names
    )


def few(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (20, 4, 4, 3), np.uint8), np.arange(20) % 2


def test_arrays_are_named_by_all_that_they_hold():
    images, labels = few()
    splits = {"train": (images[:12], labels[:12]), "test": (images[12:], labels[12:])}
    name = Arrays(splits).name
    assert name.startswith("arrays:") and name == Arrays(dict(splits)).name
    others = [
        Arrays(splits | {"train": (few(1)[0][:12], labels[:12])}),
        Arrays(splits | {"train": (images[:12], 1 - labels[:12])}),
        Arrays(splits, ("no", "yes")),
        Arrays({"train": splits["train"], "val": splits["test"]}),
    ]
    assert len({name, *(other.name for other in others)}) == 5


def test_a_test_split_is_taken_from_arrays():
    images, labels = few()
    source = Arrays.split_off_test(images, labels)
    train, test = source.split("train"), source.split("test")
    assert (len(train), len(test)) == (16, 4)
    assert np.bincount(test.labels).tolist() == [2, 2]  # a fifth of every class
    found = [image.tobytes() for split in (train, test) for image in split.images]
    assert sorted(found) == sorted(image.tobytes() for image in images)
    assert source.name == Arrays.split_off_test(images, labels).name


def test_arrays_of_one_split_that_are_wrong():
    images, labels = few()
    with pytest.raises(InputError, match="20 images but 19 labels"):
        Arrays({"train": (images, labels[1:])})
    with pytest.raises(InputError, match="arrays train"):
        Arrays({"train": (images, labels)}, ("one",))
    words = np.array(["cat", "dog"])[labels % 2]
    for wrong in (words, words.astype(object)):
        with pytest.raises(
            InputError, match=r"expected integers from 0: class_names, labels = np\.unique"
        ):
            Arrays.split_off_test(images, wrong)
        with pytest.raises(InputError, match="expected integers from 0"):
            Arrays({"train": (images, wrong)})
