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
        [order.batch_indices(seed, step, batch_size, num_examples) for step in range(steps)]
    )
    for epoch in range(5):
        chosen = places[epoch * num_examples : (epoch + 1) * num_examples]
        assert sorted(chosen) == list(range(num_examples))


def test_a_step_does_not_depend_on_the_steps_before_it():
    expected = [order.batch_indices(3, step, 4, 10) for step in range(30)]
    order._permutation.cache_clear()
    for step in (29, 0, 17, 3):
        np.testing.assert_array_equal(order.batch_indices(3, step, 4, 10), expected[step])


def test_epochs_and_seeds_differ():
    epochs = {tuple(order.batch_indices(0, step, 20, 20)) for step in range(5)}
    seeds = {tuple(order.batch_indices(seed, 0, 20, 20)) for seed in range(5)}
    assert len(epochs) == len(seeds) == 5


def test_the_order_is_the_same_everywhere():
    assert order.batch_indices(0, 0, 8, 8).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert order.batch_indices(0, 0, 8, 8).dtype == np.int64


def test_the_result_may_be_changed_without_changing_the_order():
    order.batch_indices(0, 0, 4, 8)[:] = -1
    assert (order.batch_indices(0, 0, 4, 8) >= 0).all()


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_that_does_not_fit_is_refused(batch_size):
    with pytest.raises(InputError, match=f"batch size {batch_size} does not fit the split of 10"):
        order.batch_indices(0, 0, batch_size, 10)


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (0, -1)])
def test_negative_seeds_and_steps_are_refused(seed, step):
    with pytest.raises(InputError, match="integers from 0"):
        order.batch_indices(seed, step, 2, 10)
