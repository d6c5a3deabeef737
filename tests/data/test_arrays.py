import numpy as np
import pytest

from tl_jax.data import arrays
from tl_jax.errors import InputError


def test_digits_are_balanced_disjoint_and_complete():
    train, test = (arrays.Digits().split(name) for name in ("train", "test"))
    assert (len(train), len(test)) == (1297, 500)
    assert np.bincount(test.labels).tolist() == [50] * 10
    assert train.image_shape == test.image_shape == (32, 32, 3)
    assert train.class_names == tuple("0123456789")


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
        InputError, match="no pair of arrays SPLIT_images and SPLIT_labels; it has x"
    ):
        arrays.Npz(write(tmp_path / "x.npz", x=np.zeros(3)))
    with pytest.raises(InputError, match=r"f\.npz train: images are float64"):
        arrays.Npz(
            write(
                tmp_path / "f.npz", train_images=np.zeros((1, 2, 2, 3)), train_labels=np.array([0])
            )
        ).split("train")


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    images, labels = arrays._stored_digits()
    np.testing.assert_array_equal(images, theirs.images)
    np.testing.assert_array_equal(labels, theirs.target)
    assert [str(name) for name in theirs.target_names] == list(
        arrays.Digits().split("test").class_names
    )
