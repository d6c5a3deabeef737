"""Throughput measures what it says: both forms of our gradients, and steps that really train."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import networks, rounds, throughput, throughput_sides
from tl_jax.models import convolution

NETWORK = networks.Network("resnet20_cifar", None, 8, 10, {"cpu": 2}, 2)


def test_native_convolutions_have_the_gradients_of_jax():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))

    def traced():
        # A function of its own, or the trace before would be found.
        return str(jax.make_jaxpr(lambda *args: convolution.convolve(*args, 1))(x, kernel))

    assert "custom_vjp_call" in traced()
    with throughput_sides.native_convolutions():
        assert "custom_vjp_call" not in traced()
    assert "custom_vjp_call" in traced()


def test_both_forms_of_our_step_train_alike():
    variables = throughput_sides.random_variables(NETWORK)
    batch = throughput_sides.random_batch(NETWORK, 2)
    losses = []
    for native in (False, True):
        made = throughput_sides.make(
            NETWORK, "frozen_late", variables, batch, "float32", native_gradients=native
        )
        losses.append([made.mean(made.step()) for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[0][2] < losses[0][0]


def test_turns_go_round_and_begin_with_a_step_of_their_own(monkeypatch):
    calls = []

    def side(name):
        return throughput_sides.Side(np.zeros(1), lambda: calls.append(name), lambda: None, float)

    monkeypatch.setattr(rounds.time, "perf_counter", iter(np.arange(1000.0)).__next__)
    take = {name: functools.partial(rounds.turn, side(name)) for name in "ab"}
    turns = rounds.interleave(take, rounds=2, seconds=0.1)
    # Twice two to learn how long a step takes (one first, two timed), then a turn each, then b before a.
    assert "".join(calls) == "aaabbb" + "aabb" + "bbaa"
    assert [len(of) for of in turns.values()] == [2, 2]
    summary = rounds.summary(turns["a"], batch_size=8)
    assert summary["milliseconds_median"] == pytest.approx(1000.0)
    assert summary["images_per_second_median"] == pytest.approx(8.0)
    assert summary["milliseconds_first_of_turn"] == [1000.0, 1000.0]


def test_ratios_are_of_the_first_side_to_each_other():
    measured = {
        "jax": {"milliseconds_median": 200.0},
        "torch_eager": {"milliseconds_median": 100.0},
        "torch_compile": {"error": "no compiler"},
    }
    assert throughput._ratios(measured) == {"torch_eager": 0.5}


def test_sides_that_disagree_are_not_timed():
    sides = {
        name: throughput_sides.Side(np.array([1.0, value]), None, None, float)
        for name, value in (("jax", 2.0), ("torch_eager", 2.1))
    }
    measured = {name: {"first_value": 1.0} for name in sides}
    throughput._check_agreement("row", "jax", sides, measured, 1e-4)
    with pytest.raises(SystemExit, match=r"torch_eager and jax disagree: logits by 0\.05"):
        throughput._check_agreement("row", "torch_eager", sides, measured, 1e-4)
