"""Auto-RGN by hand: multipliers over two epochs, layers of several leaves, and what is frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tl_jax import optim, trees
from tl_jax.optim.relative_gradients import by_relative_gradients


def tree(*values):
    names = ("stage1/conv/kernel", "head/kernel", "head/bias")
    return trees.unflatten(
        {name: jnp.array(value, jnp.float32) for name, value in zip(names, values, strict=True)}
    )


PARAMS = tree([3.0, 4.0], [0.0, 2.0], [0.0])
# |g| / |w| = 1 / 5 and 3 / 2, so that the first layer moves at 2 / 15 of the rate.
FIRST = tree([0.6, 0.8], [0.0, 0.0], [3.0])
# 10 / 5 and 1 / 2: the head at a quarter.
SECOND = tree([6.0, 8.0], [1.0, 0.0], [0.0])


def test_multipliers_by_hand_over_two_epochs():
    tx = by_relative_gradients(optax.sgd(1.0), every=2)
    state = tx.init(PARAMS)
    expected = [
        (FIRST, tree([-0.08, -0.08 * 4 / 3], [0.0, 0.0], [-3.0])),
        (SECOND, tree([-0.8, -0.8 * 4 / 3], [-1.0, 0.0], [0.0])),  # still those of the first batch
        (SECOND, tree([-6.0, -8.0], [-0.25, 0.0], [0.0])),
        (FIRST, tree([-0.6, -0.8], [0.0, 0.0], [-0.75])),
    ]
    for grads, wanted in expected:
        updates, state = jax.jit(tx.update)(grads, state, PARAMS)
        for name, leaf in trees.flatten(wanted).items():
            np.testing.assert_allclose(trees.flatten(updates)[name], leaf, rtol=1e-6, err_msg=name)
    assert int(state.step) == 4
    assert {layer: float(value) for layer, value in state.multipliers.items()} == pytest.approx(
        {"stage1/conv": 1.0, "head": 0.25}
    )


def test_a_layer_of_zeros_and_a_gradient_of_zeros():
    tx = by_relative_gradients(optax.sgd(1.0), every=1)
    flat = tree([3.0, 4.0], [0.0, 0.0], [0.0])
    updates, state = tx.update(FIRST, tx.init(flat), flat)
    np.testing.assert_allclose(updates["head"]["bias"], [-3.0], rtol=1e-6)
    np.testing.assert_allclose(updates["stage1"]["conv"]["kernel"], [-0.6, -0.8], rtol=1e-6)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = tx.update(zeros, state, PARAMS)
    assert all(not leaf.any() for leaf in jax.tree.leaves(updates))


def test_frozen_layers_count_nothing_and_momentum_is_that_of_the_gradient():
    mask = tree([0.0], [0.0], [0.0])
    mask = jax.tree.map(lambda _: False, mask) | {"head": {"kernel": True, "bias": True}}
    rule = optim.Rule(momentum=0.5)
    tx = optim.make_optimizer(PARAMS, lambda step: 1.0, rule, frozen_mask=mask, rgn_updates=3)
    state = tx.init(PARAMS)
    first, state = tx.update(FIRST, state, PARAMS)
    np.testing.assert_allclose(first["stage1"]["conv"]["kernel"], [-0.6, -0.8], rtol=1e-6)
    second, _ = tx.update(FIRST, state, PARAMS)
    np.testing.assert_allclose(second["stage1"]["conv"]["kernel"], [-0.9, -1.2], rtol=1e-6)
    for updates in (first, second):
        assert not np.any(updates["head"]["bias"])


def test_with_multipliers_of_the_config_both_count():
    scales = jax.tree.map(lambda _: 0.5, PARAMS)
    tx = optim.wrap_optimizer(
        optax.sgd(1.0),
        multipliers=scales,
        frozen_mask=jax.tree.map(lambda _: False, PARAMS),
        rgn_updates=1,
    )
    updates, _ = tx.update(FIRST, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["stage1"]["conv"]["kernel"][0], -0.04, rtol=1e-6)
    np.testing.assert_allclose(updates["head"]["bias"], [-1.5], rtol=1e-6)
