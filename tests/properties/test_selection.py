"""Whatever the labels: parts that share nothing, classes in proportion, the same choice for a seed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tl_jax.data import selection

SEEDS = st.integers(0, 2**31 - 1)
LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(np.array)


@given(LABELS, SEEDS, st.data())
def test_hold_out(labels, seed, data):
    count = data.draw(st.integers(1, len(labels) - 1))
    stay, held = selection.hold_out(labels, count, seed)
    assert len(held) == count
    assert sorted([*stay, *held]) == list(range(len(labels)))
    sizes = np.bincount(labels)
    shares = sizes * count / len(labels)
    taken = np.bincount(labels[held], minlength=len(sizes))
    assert (np.abs(taken - shares) < 1).all()
    # The remainders that are rounded up are the largest ones, among classes that this leaves some examples.
    keeps = np.floor(shares) + 1 < sizes
    up, down = keeps & (taken > shares + 1e-9), keeps & (taken < shares - 1e-9)
    if up.any() and down.any():
        assert (shares % 1)[up].min() >= (shares % 1)[down].max() - 1e-9
    for first, again in zip((stay, held), selection.hold_out(labels, count, seed), strict=True):
        np.testing.assert_array_equal(first, again)


@given(st.integers(1, 6), st.integers(1, 5), SEEDS, st.randoms(use_true_random=False))
def test_few_shot(each, classes, seed, random):
    labels = np.repeat(np.arange(classes), 6)
    random.shuffle(labels)
    names = "abcde"[:classes]
    chosen = selection.few_shot(labels, each, seed, names)
    assert np.bincount(labels[chosen]).tolist() == [each] * classes
    assert len(set(chosen)) == len(chosen)
    if each > 1:
        assert set(selection.few_shot(labels, each - 1, seed, names)) < set(chosen)
    np.testing.assert_array_equal(chosen, selection.few_shot(labels, each, seed, names))


@given(SEEDS)
def test_other_seeds_choose_others(seed):
    labels = np.tile(np.arange(4), 25)
    held = {tuple(selection.hold_out(labels, 20, seed ^ other)[1]) for other in range(4)}
    few = {tuple(selection.few_shot(labels, 5, seed ^ other, "abcd")) for other in range(4)}
    assert len(held) == len(few) == 4
    # What is held out and which few are taken are two choices.
    assert held.isdisjoint(few)
