import numpy as np
import pytest

from tl_jax.data import order
from tl_jax.errors import InputError


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(
    ("num_examples", "batch_size"), [(10, 3), (7, 7), (13, 1), (12, 5), (9, 8), (100, 33)]
)
def test_every_epoch_holds_each_example_once(seed, num_examples, batch_size):
    steps = 5 * num_examples // batch_size + 1
    places = np.concatenate(
        [order.Order(seed, batch_size, num_examples).examples(step) for step in range(steps)]
    )
    for epoch in range(5):
        chosen = places[epoch * num_examples : (epoch + 1) * num_examples]
        assert sorted(chosen) == list(range(num_examples))


def test_a_step_does_not_depend_on_the_steps_before_it():
    expected = [order.Order(3, 4, 10).examples(step) for step in range(30)]
    order._permutation.cache_clear()
    for step in (29, 0, 17, 3):
        np.testing.assert_array_equal(order.Order(3, 4, 10).examples(step), expected[step])


def test_epochs_and_seeds_differ():
    epochs = {tuple(order.Order(0, 20, 20).examples(step)) for step in range(5)}
    seeds = {tuple(order.Order(seed, 20, 20).examples(0)) for seed in range(5)}
    assert len(epochs) == len(seeds) == 5


def test_the_order_is_the_same_everywhere():
    assert order.Order(0, 8, 8).examples(0).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert order.Order(0, 8, 8).examples(0).dtype == np.int64


def test_the_result_may_be_changed_without_changing_the_order():
    order.Order(0, 4, 8).examples(0)[:] = -1
    assert (order.Order(0, 4, 8).examples(0) >= 0).all()


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_that_does_not_fit_is_refused(batch_size):
    with pytest.raises(InputError, match=f"batch size {batch_size} does not fit the split of 10"):
        order.Order(0, batch_size, 10).examples(0)


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (0, -1)])
def test_negative_seeds_and_steps_are_refused(seed, step):
    with pytest.raises(InputError, match="integers from 0"):
        order.Order(seed, 2, 10).examples(step)


def test_the_stored_order_is_the_same_in_every_epoch():
    stored = order.Order(5, 4, 6, kind="stored")
    assert [stored.examples(step).tolist() for step in (0, 1, 2, 3)] == [
        [0, 1, 2, 3],
        [4, 5, 0, 1],
        [2, 3, 4, 5],
        [0, 1, 2, 3],
    ]


def test_repeats_come_in_a_row_and_the_permutation_goes_on():
    """Three epochs of six places are one pass over six examples, three times each."""
    repeated = order.Order(0, 4, 6, repeats=3)
    rows = np.concatenate([repeated.rows(step) for step in range(9)])
    permutations = np.concatenate([order.Order(0, 6, 6).examples(step) for step in range(2)])
    np.testing.assert_array_equal(rows, permutations.repeat(3))


def test_repeats_of_an_example_see_its_views_in_turn():
    rows = order.Order(0, 6, 6, views=3, repeats=3, kind="stored").rows(0)
    examples, views = np.divmod(rows, 3)
    assert examples.tolist() == [0, 0, 0, 1, 1, 1]
    # Each begins with another one, and the next pass goes on where this one ended.
    assert views.tolist() == [0, 1, 2, 1, 2, 0]
    later = order.Order(0, 6, 6, views=3, repeats=2, kind="stored").rows(2)
    assert (later % 3).tolist() == [2, 0, 0, 1, 1, 2]


LABELS = np.array([0] * 12 + [1] * 3 + [4] * 5)


def balanced(batch_size, **options):
    classes = order.examples_by_class(LABELS)
    return order.Order(2, batch_size, len(LABELS), kind="balanced", classes=classes, **options)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 20])
def test_a_balanced_batch_holds_as_many_of_each_class(batch_size):
    given = balanced(batch_size)
    for step in range(30):
        counts = np.bincount(LABELS[given.examples(step)], minlength=5)[[0, 1, 4]]
        assert counts.max() - counts.min() <= 1


def test_a_class_draws_each_of_its_examples_before_one_comes_again():
    given = balanced(6)
    # 24 updates of two each: four passes over class 0, sixteen over class 1.
    drawn = np.concatenate([np.sort(given.examples(step)) for step in range(24)])
    for label, size in {0: 12, 1: 3, 4: 5}.items():
        own = drawn[LABELS[drawn] == label]
        assert len(own) == 48
        counts = np.unique(own, return_counts=True)[1]
        assert len(counts) == size and counts.max() - counts.min() <= (48 % size > 0)
    # Six updates are a pass over class 0, in pairs; the next pass has other pairs.
    pairs = np.array(
        [np.sort(examples[examples < 12]) for examples in map(given.examples, range(12))]
    )
    for one_pass in (pairs[:6], pairs[6:]):
        assert sorted(one_pass.ravel()) == list(range(12))
    assert pairs[:6].tolist() != pairs[6:].tolist()


def test_microbatches_of_a_balanced_batch_hold_several_classes():
    """They take every k-th row: classes strictly in turn would put one class into each."""
    labels = np.arange(40) % 2
    given = order.Order(0, 20, 40, kind="balanced", classes=order.examples_by_class(labels))
    assert all(len(set(labels[given.examples(step)[::2]])) == 2 for step in range(5))


def test_the_balanced_order_is_the_same_everywhere():
    assert balanced(6).examples(3).tolist() == [13, 10, 5, 14, 18, 17]
    assert balanced(6).examples(3).dtype == np.int64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "random"}, "unknown order of examples 'random'"),
        ({"kind": "balanced"}, "hold 0 examples, the split 10"),
        ({"repeats": 0}, "repeats=0: expected at least 1"),
    ],
)
def test_an_order_that_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        order.Order(0, 2, 10, **options)
