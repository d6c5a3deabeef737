"""The contract of networks: boundaries, optional fields, and what is slow in loops on a CPU."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from tl_jax import models
from tl_jax.errors import InputError
from tl_jax.models.network import has_field, with_fields


class Bare(nn.Module):
    """A network without any optional field."""

    boundaries = ("body", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        if start is None:
            x = nn.Conv(2, (3, 3), name="body")(x).mean((1, 2))
        return x if stop == "body" else nn.Dense(3, name="head")(x)


SMALL = models.ResNet((1, 1), "basic", 3, "cifar", width=4)


def test_fields_are_set_where_there_are_some():
    assert not has_field(Bare(), "remat") and has_field(SMALL, "remat")
    assert with_fields(Bare(), remat="", axis_name="data") == Bare()
    assert with_fields(SMALL, remat="dots", nothing=1) == SMALL.clone(remat="dots")
    assert models.without_remat(SMALL.clone(remat="dots")) == SMALL


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (SMALL, False),
        (models.VGG((1,), 3), False),
        (SMALL.clone(block="bottleneck", groups=2), True),
        (Bare(), True),
    ],
    ids=["resnet", "vgg", "grouped", "own"],
)
def test_gradients_that_jax_derives(model, expected):
    assert models.own_convolutions(model) == expected


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(None, None, (0, 2)), ("body", None, (1, 2)), (None, "body", (0, 1)), ("head", None, (2, 2))],
)
def test_segments(start, stop, expected):
    assert models.segment(Bare(), start, stop) == expected


def test_a_network_without_statistics_is_a_function_of_plain_trees():
    variables = models.init_variables(Bare(), jax.random.key(0), (1, 8, 8, 3))
    assert variables["batch_stats"] == {} and models.norm_names(Bare()) == ()
    forward = models.make_forward(Bare(), norm_policy="frozen", axis_name="data")
    for train in (False, True):
        logits, statistics = forward(
            variables["params"], {}, jnp.ones((2, 8, 8, 3)), train=train, key=jax.random.key(1)
        )
        assert logits.shape == (2, 3) and statistics == {}


def test_what_needs_a_field_is_refused():
    with pytest.raises(
        InputError, match=r"'body' is no BatchNorm of the model(.|\n)*the model has none"
    ):
        models.make_forward(Bare(), frozen_norms={"body"})
    with pytest.raises(InputError, match="unknown boundary 'pool'"):
        models.make_forward(Bare(), stop="pool")
