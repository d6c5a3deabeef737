"""The learning rate at chosen updates, worked out by hand."""

import math

import jax
import jax.numpy as jnp
import pytest

from tl_jax import optim
from tl_jax.errors import InputError

SCHEDULE_CASES = [
    pytest.param("constant", {}, {0: 0.8, 99: 0.8}, id="constant"),
    pytest.param(
        "constant", {"warmup_steps": 4}, {0: 0.2, 1: 0.4, 3: 0.8, 4: 0.8, 99: 0.8}, id="warm-up"
    ),
    pytest.param(
        "step",
        {"boundaries": [50, 75]},
        {0: 0.8, 49: 0.8, 50: 0.08, 74: 0.08, 75: 0.008, 99: 0.008},
        id="step",
    ),
    pytest.param(
        "step", {"boundaries": [2], "decay": 0.5, "warmup_steps": 4}, {1: 0.4, 4: 0.4}, id="halved"
    ),
    pytest.param(
        "cosine", {}, {0: 0.8, 25: 0.8 * (2 + 2**0.5) / 4, 50: 0.4, 100: 0.0}, id="cosine"
    ),
    pytest.param(
        "cosine",
        {"warmup_steps": 20, "final_fraction": 0.25},
        {0: 0.04, 19: 0.8, 20: 0.8, 60: 0.5, 100: 0.2, 150: 0.2},
        id="cosine with warm-up to a quarter",
    ),
    pytest.param("cosine", {"warmup_steps": 100}, {0: 0.008, 99: 0.8}, id="warm-up only"),
    pytest.param(
        "exponential",
        {"decay": 0.25, "decay_steps": 10.0, "warmup_steps": 2},
        {0: 0.4, 1: 0.8, 2: 0.8, 7: 0.4, 12: 0.2, 22: 0.05},
        id="exponential",
    ),
    pytest.param("plateau", {"warmup_steps": 2}, {0: 0.4, 2: 0.8, 99: 0.8}, id="plateau"),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), SCHEDULE_CASES)
def test_schedule(name, arguments, expected):
    schedule = optim.make_schedule(name, 0.8, 100, **arguments)
    for step, rate in expected.items():
        found = jax.jit(schedule)(jnp.int32(step))
        assert found.dtype == jnp.float32
        assert float(found) == pytest.approx(rate, rel=1e-5, abs=1e-7)
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        pytest.param({"name": "cosin"}, ["unknown schedule 'cosin'", "nearest: cosine"], id="name"),
        pytest.param({"learning_rate": -0.1}, ["learning_rate is -0.1", "at least 0"], id="rate"),
        pytest.param({"learning_rate": math.nan}, ["learning_rate is nan"], id="nan"),
        pytest.param({"total_steps": 0}, ["total_steps is 0", "at least 1"], id="no step"),
        pytest.param({"total_steps": 2.5}, ["total_steps is 2.5", "whole"], id="fraction"),
        pytest.param({"warmup_steps": 101}, ["warmup_steps is 101", "[0, 100]"], id="warm-up"),
        pytest.param({"warmup_steps": -1}, ["warmup_steps is -1"], id="negative warm-up"),
        pytest.param(
            {"name": "exponential", "decay": 0.0, "decay_steps": 0.0},
            ["decay is 0.0", "decay_steps is 0.0"],
            id="exponential",
        ),
        pytest.param({"name": "step"}, ["boundaries is []", "one or more"], id="no boundary"),
        pytest.param({"name": "step", "boundaries": [9, 9]}, ["[9, 9]", "increasing"], id="twice"),
        pytest.param({"name": "step", "boundaries": [100]}, ["[1, 100)"], id="boundary too late"),
        pytest.param(
            {"name": "step", "boundaries": [9], "decay": 1.5},
            ["decay is 1.5", "(0, 1]"],
            id="decay",
        ),
        pytest.param({"name": "cosine", "final_fraction": 2}, ["final_fraction is 2"], id="final"),
        pytest.param(
            {"learning_rate": -1, "warmup_steps": -2, "total_steps": -3},
            ["learning_rate is -1", "warmup_steps is -2", "total_steps is -3"],
            id="all listed",
        ),
    ],
)
def test_make_schedule_refuses(arguments, parts):
    arguments = {"name": "constant", "learning_rate": 0.1, "total_steps": 100, **arguments}
    with pytest.raises(InputError) as caught:
        optim.make_schedule(**arguments)
    for part in parts:
        assert part in str(caught.value)
