import subprocess
import sys

import numpy as np
import pytest

from tl_jax.data import Decoding, InMemorySplit, Selection, Split, fingerprint, load_splits


def toy(num: int = 6) -> InMemorySplit:
    pixels = np.arange(num * 12, dtype=np.uint8).reshape(num, 2, 2, 3)
    return InMemorySplit(pixels, np.arange(num) % 3, "abc", "toy")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a",), (b"a", b"")),
        ((np.zeros(4, np.uint8),), (np.zeros((2, 2), np.uint8),)),
        ((np.zeros(2, np.int32),), (np.zeros(1, np.int64),)),
        ((np.array([1, 2]),), (np.array([2, 1]),)),
    ],
    ids=["boundary", "count", "shape", "dtype", "order"],
)
def test_different_content_has_different_fingerprints(first, second):
    assert fingerprint.combine(*first) != fingerprint.combine(*second)


def test_fingerprints_are_those_of_other_processes():
    code = "from tl_jax.data import fingerprint as f; print(f.combine('a', b'b'))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == fingerprint.combine("a", b"b")


def test_a_layout_in_memory_changes_nothing():
    array = np.arange(24).reshape(2, 3, 4)
    assert fingerprint.combine(np.asfortranarray(array)) == fingerprint.combine(array)
    assert fingerprint.combine(np.zeros((0, 2))) != fingerprint.combine(np.zeros((0, 3)))


def test_pixels_and_their_order_decide_and_labels_do_not():
    split = toy()
    assert split.fingerprint() == toy().fingerprint()
    relabelled = InMemorySplit(split.images, np.zeros(6, int), ["a"], "other")
    assert relabelled.fingerprint() == split.fingerprint()
    changed = split.images.copy()
    changed[3, 1, 1, 2] ^= 1
    assert InMemorySplit(changed, split.labels, "abc").fingerprint() != split.fingerprint()
    assert split.subset(np.arange(6)).fingerprint() == split.fingerprint()
    parts = [split.subset(np.array(rows)).fingerprint() for rows in ([0, 1], [1, 0], [0, 2])]
    assert len({*parts, split.fingerprint()}) == 4
    assert split.subset(np.array([2, 1, 0])).subset(np.array([2, 1])).fingerprint() == parts[0]


def test_parts_know_their_whole():
    split = toy()
    part = split.subset(np.array([5, 1, 3])).subset(np.array([2, 0]))
    whole, rows = part.whole()
    assert whole is split
    np.testing.assert_array_equal(whole.images[rows], part.images)
    assert split.whole()[0] is split
    assert split.whole()[1].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.fixture(params=["folder", "tfds"])
def source(request, tmp_path, write_image):
    """Arguments of `load_splits` for data that lie in files."""
    if request.param == "tfds":
        return {"name": "tfds:cifar10", "data_dir": request.getfixturevalue("prepared")}
    for label, name in enumerate(["cat", "dog"]):
        for number in range(10):
            write_image(tmp_path / name / f"{number}.png", 10 * label + number)
    return {"name": f"folder:{tmp_path}"}


def test_stored_and_decoded_splits_agree(source):
    memory = load_splits(
        selection=Selection(validation_fraction=0.25, examples_per_class=2), **source
    )
    access = load_splits(
        selection=Selection(validation_fraction=0.25, examples_per_class=2),
        decoding=Decoding(max_memory_bytes=0),
        **source,
    )
    for role, split in access.items():
        assert isinstance(split, Split)
        assert split.fingerprint() == memory[role].fingerprint()
        whole, rows = split.whole()
        assert whole.fingerprint() == memory[role].whole()[0].fingerprint()
        np.testing.assert_array_equal(whole.gather(rows), memory[role].images)
    assert access["train"].whole()[0].fingerprint() == access["validation"].whole()[0].fingerprint()
    assert len({split.fingerprint() for split in access.values()}) == 3


def test_a_changed_file_and_another_size_change_the_fingerprint(tmp_path, write_image):
    for number in range(5):
        write_image(tmp_path / "cat" / f"{number}.png", number)
        write_image(tmp_path / "dog" / f"{number}.png", number, (9, 9))
    first = load_splits(f"folder:{tmp_path}", decoding=Decoding(image_size=4))[
        "train"
    ].fingerprint()
    assert (
        load_splits(f"folder:{tmp_path}", decoding=Decoding(image_size=4))["train"].fingerprint()
        == first
    )
    assert (
        load_splits(f"folder:{tmp_path}", decoding=Decoding(image_size=6))["train"].fingerprint()
        != first
    )
    for number in range(5):
        write_image(tmp_path / "cat" / f"{number}.png", 100)
    assert (
        load_splits(f"folder:{tmp_path}", decoding=Decoding(image_size=4))["train"].fingerprint()
        != first
    )
