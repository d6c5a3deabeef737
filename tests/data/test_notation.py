import pytest

from tl_jax.data import notation
from tl_jax.errors import InputError


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("train", (0, 1797)),
        ("train[:80%]", (0, 1438)),
        ("train[80%:]", (1438, 1797)),
        ("train[10:20]", (10, 20)),
        ("train[-100:]", (1697, 1797)),
        ("train[:-100]", (0, 1697)),
        ("train[-10%:]", (1617, 1797)),
    ],
)
def test_bounds(text, bounds):
    # 80% of 1797 is 1437.6 and 10% is 179.7, rounded to the nearest example.
    (part,) = notation.parse(text)
    assert part.bounds(1797) == bounds


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="split 'train' has no examples"):
        notation.parse("train")[0].bounds(0)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("train", "Training"),
        ("TRAIN", "Training"),
        ("val", "val"),
        ("validation", "validation"),
        ("valid", None),  # could be either
        ("testing", "test"),
        ("photos", "photos"),
        ("Photos", None),
    ],
)
def test_names_of_splits_that_stand_for_each_other(name, found):
    assert notation.find(name, ("Training", "val", "validation", "test", "photos")) == found


def test_parts_are_written_as_they_were():
    texts = ["train", "val[:50%]", "a[-3:]", "b[1:2]"]
    assert [str(part) for part in notation.parse("+".join(texts))] == texts


def test_a_sum_has_one_part_each():
    assert [part.name for part in notation.parse("train[:50%] + test")] == ["train", "test"]


@pytest.mark.parametrize(
    "text", ["", "train[", "train[1:2:3]", "train[:x]", "train[5]", "train++test"]
)
def test_what_is_no_notation_is_refused(text):
    with pytest.raises(InputError, match="not in tfds notation"):
        notation.parse(text)


@pytest.mark.parametrize("text", ["a[5:5]", "a[8:2]", "a[:11]", "a[-11:]", "a[:120%]", "a[:1%]"])
def test_empty_and_outlying_slices_are_refused(text):
    with pytest.raises(InputError, match="of the 10 in split 'a'"):
        notation.parse(text)[0].bounds(10)
