"""Whatever the sizes: every example once an epoch, views in balance, processes side by side."""

import dataclasses
import types
from unittest import mock

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tl_jax.data import order
from tl_jax.data.order import Order
from tl_jax.parallel import sharding

SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def orders(draw, kinds=order.DRAWS):
    examples = draw(st.integers(1, 40))
    batch_size = draw(st.integers(1, examples))
    return Order(
        draw(SEEDS), batch_size, examples, draw(st.integers(1, 5)), draw(st.sampled_from(kinds))
    )


@st.composite
def all_orders(draw, kinds=order.ORDERS):
    """Orders of every kind, with repeats."""
    plain = draw(orders())
    kind, repeats = draw(st.sampled_from(kinds)), draw(st.integers(1, 4))
    labels = np.array(draw(st.lists(st.integers(0, 4), min_size=40, max_size=40)))
    classes = order.examples_by_class(labels[: plain.num_examples])
    return dataclasses.replace(
        plain, kind=kind, repeats=repeats, classes=classes if kind == "balanced" else ()
    )


def places(given, epochs):
    """Returns the rows of whole epochs, one after the other: [epochs * N]."""
    steps = -(-epochs * given.num_examples // given.batch_size)
    return np.concatenate([given.rows(step) for step in range(steps)])[
        : epochs * given.num_examples
    ]


@given(all_orders(), st.sampled_from(order.DRAWS), st.integers(0, 100), st.integers(1, 30))
def test_rows_of_several_updates_are_those_of_each(given, draw, step, updates):
    given = dataclasses.replace(given, draw=draw)
    expected = [given.rows(step + number) for number in range(updates)]
    np.testing.assert_array_equal(given.rows_of(step, updates), expected)


@given(orders())
def test_every_example_comes_once_an_epoch(given):
    for epoch in places(given, 3).reshape(3, -1) // given.views:
        assert sorted(epoch) == list(range(given.num_examples))


@given(orders(kinds=("cycle",)))
def test_in_as_many_epochs_as_views_every_view_comes_once(given):
    rows = places(given, given.views)
    assert sorted(rows) == list(range(given.num_examples * given.views))


@given(orders(kinds=("cycle",)))
def test_every_epoch_holds_all_views_alike(given):
    """Or training would see one augmentation of everything, then another one of everything."""
    for epoch in places(given, 2).reshape(2, -1):
        counts = np.bincount(epoch % given.views, minlength=given.views)
        assert counts.max() - counts.min() <= 1


@given(all_orders(), st.lists(st.integers(0, 200), min_size=1, max_size=6))
def test_an_update_depends_on_seed_and_step_alone(given, steps):
    first = [given.rows(step) for step in steps]
    order._permutation.cache_clear()
    order._class_permutation.cache_clear()
    again = {step: given.rows(step) for step in reversed(steps)}
    for step, rows in zip(steps, first, strict=True):
        np.testing.assert_array_equal(rows, again[step])
        np.testing.assert_array_equal(rows // given.views, given.examples(step))
        assert rows.dtype == np.int64 and rows.shape == (given.batch_size,)
        assert rows.min() >= 0 and rows.max() < given.num_examples * given.views


@given(all_orders(kinds=("shuffled", "stored")))
def test_in_as_many_epochs_as_repeats_every_example_comes_as_often(given):
    examples = places(given, given.repeats) // given.views
    np.testing.assert_array_equal(
        np.bincount(examples, minlength=given.num_examples), given.repeats
    )


@given(SEEDS, st.lists(st.integers(0, 9), min_size=4, max_size=60), st.data())
def test_every_batch_draws_classes_evenly(seed, labels, data):
    """Whatever the classes and the batch; repeats that divide the batch come together."""
    labels, repeats = np.array(labels), data.draw(st.integers(1, 3))
    batch_size = repeats * data.draw(st.integers(1, len(labels) // repeats))
    classes = order.examples_by_class(labels)
    given = Order(seed, batch_size, len(labels), kind="balanced", repeats=repeats, classes=classes)
    for step in data.draw(st.lists(st.integers(0, 500), min_size=1, max_size=5)):
        counts = np.bincount(labels[given.examples(step)], minlength=10)[np.unique(labels)]
        assert counts.max() - counts.min() <= repeats
        assert not (counts % repeats).any()


@given(SEEDS, st.integers(1, 4))
def test_a_class_in_balance_sees_all_its_views_in_turn(seed, views):
    """Of a class of two, in as many passes as views, every view once."""
    labels = np.array([0, 1, 0, 1])
    classes = order.examples_by_class(labels)
    given = Order(seed, 4, 4, views, kind="balanced", classes=classes)
    assert sorted(places(given, views)) == list(range(4 * views))


@given(SEEDS, st.integers(2, 4))
def test_random_views_are_drawn_anew_at_every_step_and_for_every_seed(seed, views):
    def drawn(seed, step):
        return tuple(Order(seed, 40, 40, views, "random").rows(step) % views)

    at_steps = {drawn(seed, step) for step in range(8)}
    of_seeds = {drawn(seed ^ other, 0) for other in range(8)}
    assert len(at_steps) == len(of_seeds) == 8


@given(SEEDS, st.integers(2, 4))
def test_random_views_are_equally_likely(seed, views):
    chosen = places(Order(seed, 50, 100, views, "random"), 20) % views
    share = 1 / views
    spread = np.sqrt(len(chosen) * share * (1 - share))
    counts = np.bincount(chosen, minlength=views)
    assert (np.abs(counts - len(chosen) * share) < 5 * spread).all()


@given(SEEDS, st.integers(20, 40))
def test_epochs_and_seeds_have_other_orders(seed, examples):
    def epoch(seed, number):
        return tuple(Order(seed, examples, examples).rows(number))

    assert len({epoch(seed, number) for number in range(4)}) == 4
    assert len({epoch(seed ^ other, 0) for other in range(4)}) == 4


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 6))
def test_the_rows_of_all_processes_are_the_batch(processes, devices_of_each, rows_of_each):
    batch_size = processes * devices_of_each * rows_of_each
    mesh = types.SimpleNamespace(size=processes * devices_of_each)
    found = []
    with mock.patch.object(jax, "process_count", lambda: processes):
        for process in range(processes):
            with mock.patch.object(jax, "process_index", lambda number=process: number):
                found += range(batch_size)[sharding.local_rows(mesh, batch_size)]
    assert found == list(range(batch_size))
