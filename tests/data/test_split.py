import numpy as np
import pytest

from tl_jax.data.split import InMemorySplit, Split
from tl_jax.errors import InputError


def images(num: int, *shape: int) -> np.ndarray:
    return np.arange(num * int(np.prod(shape))).reshape(num, *shape).astype(np.uint8)


def test_gather_and_subset_agree_with_indexing():
    pixels, labels = images(6, 2, 2, 3), np.array([0, 1, 2, 0, 1, 2])
    split = InMemorySplit(pixels, labels, "abc", "toy")
    assert isinstance(split, Split)
    part = split.subset(np.array([5, 1, 3])).subset(np.array([2, 0]), "part")
    assert part.labels.tolist() == [0, 2]
    assert part.labels.dtype == np.int32
    np.testing.assert_array_equal(part.images, pixels[[3, 5]])
    np.testing.assert_array_equal(part.gather(np.array([1])), pixels[[5]])
    assert (part.name, len(part), len(split)) == ("part", 2, 6)


def test_grey_becomes_rgb():
    for shape in ((2, 2), (2, 2, 1)):
        split = InMemorySplit(images(3, *shape), np.zeros(3, int), ["a"])
        assert split.image_shape == (2, 2, 3)
        assert split.gather(np.array([1]))[0, 0, 1].tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (
            np.full((2, 4, 4, 3), np.nan, np.float32),
            [0, 0],
            "float32, 96 not finite; expected uint8",
        ),
        (np.full((2, 4, 4, 3), 300), [0, 0], r"int64 with values in \[300, 300\]; expected uint8"),
        (images(2, 4, 4, 4), [0, 0], r"shape \[2, 4, 4, 4\]"),
        (images(2, 0, 4, 3), [0, 0], r"shape \[2, 0, 4, 3\]"),
        (images(2, 4, 4, 3), [0, 2], r"1 labels are outside \[0, 2\): the first is 2 at index 1"),
        (images(2, 4, 4, 3), [-1, 0], "the first is -1 at index 0"),
        (images(2, 4, 4, 3), [0.0, 1.0], "labels are float64"),
        (images(2, 4, 4, 3), [0, 1, 0], "2 images but 3 labels"),
    ],
    ids=["nan", "range", "channels", "empty", "label high", "label low", "label dtype", "lengths"],
)
def test_bad_arrays_are_named(pixels, labels, message):
    with pytest.raises(InputError, match="toy: .*" + message):
        InMemorySplit(pixels, np.array(labels), "ab", "toy")


def test_all_problems_come_in_one_message():
    with pytest.raises(InputError, match=r"expected uint8.*labels are outside"):
        InMemorySplit(np.zeros((2, 4, 4, 3)), np.array([5, 0]), "ab")
