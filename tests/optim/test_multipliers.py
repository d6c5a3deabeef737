"""Multipliers by pattern and by depth."""

import jax.numpy as jnp
import pytest

from tl_jax import optim, trees
from tl_jax.errors import InputError


def make_params():
    return {
        "head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "stage1": {"conv": {"kernel": jnp.ones((1, 1, 2, 2))}},
        "stage2": {"bn": {"scale": jnp.ones(2), "bias": jnp.ones(2)}},
        "stem": {"conv": {"kernel": jnp.ones((1, 1, 3, 2))}},
    }


LEAVES = [
    "stem/conv/kernel",
    "stage1/conv/kernel",
    "stage2/bn/scale",
    "stage2/bn/bias",
    "head/kernel",
    "head/bias",
]


@pytest.mark.parametrize(
    ("patterns", "decay", "expected"),
    [
        pytest.param([], 1.0, [1, 1, 1, 1, 1, 1], id="nothing asked"),
        pytest.param(["head/.*=10"], 1.0, [1, 1, 1, 1, 10, 10], id="head"),
        pytest.param(
            ["head/bias=3", "head/.*=10", ".*=1e-1"], 1.0, [0.1, 0.1, 0.1, 0.1, 10, 3], id="order"
        ),
        pytest.param([], 0.5, [0.125, 0.25, 0.5, 0.5, 1, 1], id="layer-wise"),
        pytest.param(["stem/.*=4", ".*/bias=2"], 0.5, [0.5, 0.25, 0.5, 1, 1, 2], id="both"),
    ],
)
def test_lr_multipliers(patterns, decay, expected):
    multipliers = trees.flatten(
        optim.lr_multipliers(
            make_params(), patterns, decay, boundaries=("stem", "stage1", "stage2", "head")
        )
    )
    assert {name: multipliers[name] for name in LEAVES} == dict(zip(LEAVES, expected, strict=True))
    assert len(multipliers) == len(LEAVES)


@pytest.mark.parametrize(
    ("patterns", "decay", "parts"),
    [
        pytest.param(["hed/.*=2"], 1, ["'hed/.*' matches no leaf", "nearest: head"], id="no match"),
        pytest.param(["head/.*"], 1, ["'head/.*'", "PATTERN=NUMBER"], id="no number"),
        pytest.param(["=2"], 1, ["'=2'"], id="no pattern"),
        pytest.param(["head/.*=two"], 1, ["'head/.*=two'"], id="a word"),
        pytest.param(["head/.*=-1"], 1, ["'head/.*=-1'", "above 0"], id="negative"),
        pytest.param(["head/.*=0"], 1, ["'head/.*=0'", "freeze them"], id="zero"),
        pytest.param(["head/.*=nan"], 1, ["'head/.*=nan'"], id="nan"),
        pytest.param(["(head=2"], 1, ["not a regular expression"], id="bad expression"),
        pytest.param(
            [".*=2", "head/.*=3"], 1, ["'head/.*' has no effect", "earlier"], id="shadowed"
        ),
        pytest.param(["a=x", "b=-1"], 1, ["'a=x'", "'b=-1'"], id="all listed"),
        pytest.param([], 0.0, ["layerwise_decay is 0.0", "(0, 1]"], id="decay 0"),
        pytest.param([], 1.5, ["layerwise_decay is 1.5"], id="decay above 1"),
    ],
)
def test_lr_multipliers_refuses(patterns, decay, parts):
    with pytest.raises(InputError) as caught:
        optim.lr_multipliers(
            make_params(), patterns, decay, boundaries=("stem", "stage1", "stage2", "head")
        )
    for part in parts:
        assert part in str(caught.value)
