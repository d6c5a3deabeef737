import numpy as np
import pytest

from tl_jax.data import selection
from tl_jax.errors import InputError


def test_hold_out_takes_the_same_part_of_each_class():
    labels = np.array([0] * 10 + [1] * 20 + [2] * 30)
    stay, held = selection.hold_out(labels, 12, seed=1)
    assert np.bincount(labels[held]).tolist() == [2, 4, 6]
    assert sorted([*stay, *held]) == list(range(60))
    assert (np.diff(held) > 0).all()
    assert (np.diff(stay) > 0).all()


def test_hold_out_rounds_by_largest_remainder():
    # Shares of 5 among 7, 2 and 1 are 3.5, 1 and 0.5: the first of the two largest remainders wins.
    labels = np.array([0] * 7 + [1] * 2 + [2])
    assert np.bincount(labels[selection.hold_out(labels, 5, seed=0)[1]]).tolist() == [4, 1]


@pytest.mark.parametrize(
    ("sizes", "count", "held"),
    [
        # Shares 0.44, 1.33 and 2.22: the first class has the largest remainder and one example only.
        ([1, 3, 5], 4, [0, 2, 2]),
        # Shares 0.5, 0.5 and 2: the last class, whose share is whole, is not rounded up instead.
        ([1, 1, 4], 3, [1, 0, 2]),
        ([1, 1], 1, [1, 0]),
    ],
)
def test_hold_out_leaves_small_classes_an_example_where_it_can(sizes, count, held):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    _, places = selection.hold_out(labels, count, seed=0)
    assert np.bincount(labels[places], minlength=len(sizes)).tolist() == held


def test_hold_out_depends_on_the_seed_alone():
    labels = np.tile(np.arange(10), 50)
    first, again, other = (selection.hold_out(labels, 100, seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


@pytest.mark.parametrize("count", [0, 4])
def test_hold_out_leaves_neither_part_empty(count):
    with pytest.raises(InputError, match=f"{count} of 4 examples"):
        selection.hold_out(np.array([0, 0, 1, 1]), count, seed=0)


def test_few_shot_takes_as_many_of_each_class_and_grows():
    labels = np.tile(np.arange(4), 25)
    five = selection.few_shot(labels, 5, 0, "abcd")
    ten = selection.few_shot(labels, 10, 0, "abcd")
    assert np.bincount(labels[five]).tolist() == [5] * 4
    assert set(five) < set(ten)


def test_few_shot_names_the_classes_that_are_short():
    labels = np.array([0, 0, 0, 1, 2, 2])
    with pytest.raises(
        InputError, match=r"from 1 to 1; classes with fewer examples: owl \(1\), fox \(2\)"
    ):
        selection.few_shot(labels, 3, 0, ["cat", "owl", "fox"])


def test_few_shot_names_the_classes_without_examples():
    with pytest.raises(InputError, match="as 1 of 3 classes have no examples: owl"):
        selection.few_shot(np.array([0, 0, 2, 2]), 1, 0, ["cat", "owl", "fox"])
