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


def test_folds_take_the_same_part_of_each_class():
    labels = np.array([0] * 10 + [1] * 20 + [2] * 31)
    fold = selection.folds_of(labels, 5, seed=1)
    assert set(fold) == {1, 2, 3, 4, 5}
    for number in range(1, 6):
        counts = np.bincount(labels[fold == number])
        assert counts[:2].tolist() == [2, 4] and counts[2] in (6, 7)
    assert np.bincount(fold)[1:].tolist() == [13, 12, 12, 12, 12]


def test_folds_depend_on_labels_and_seed_alone():
    labels = np.arange(40) % 4
    fold = selection.folds_of(labels, 4, seed=1)
    np.testing.assert_array_equal(fold, selection.folds_of(labels.astype(np.int64), 4, seed=1))
    assert (fold != selection.folds_of(labels, 4, seed=2)).any()
    # Recorded: folders of runs depend on it.
    assert "".join(map(str, selection.folds_of(np.arange(12) % 3, 3, seed=0))) == "212121333123"


def test_a_class_smaller_than_the_folds_is_in_some():
    fold = selection.folds_of(np.array([0] * 9 + [1]), 5, seed=0)
    assert np.bincount(fold)[1:].tolist() == [2] * 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"folds": 1}, "folds=1: expected 2 or more, or 0 for none"),
        ({"folds": -2}, "folds=-2: expected 2 or more"),
        ({"folds": 3, "fold": 4}, "fold=4 with folds=3: expected an integer from 1 to 3"),
        ({"folds": 3, "fold": 0}, "fold=0 with folds=3"),
        ({"fold": 2}, "fold=2 with folds=0: expected an integer from 1 to 1"),
        ({"train": "", "folds": 3}, "train='' with folds=3"),
    ],
)
def test_folds_that_cannot_be(given, message):
    with pytest.raises(InputError) as raised:
        selection.Selection(**given)
    assert message in str(raised.value)


@pytest.mark.parametrize("folds", [1, 5])
def test_more_folds_than_examples(folds):
    with pytest.raises(InputError, match=f"folds={folds}: expected an integer from 2 to 4"):
        selection.folds_of(np.zeros(4, int), folds, seed=0)


@pytest.mark.parametrize(("number", "said"), [(0, "0 examples"), (1, "1 example")])
def test_too_few_to_divide(number, said):
    with pytest.raises(InputError, match=f"^{said} cannot be divided in two; expected 2 or more$"):
        selection.hold_out(np.zeros(number, np.int64), 1, seed=0)
