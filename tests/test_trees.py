"""Leaf names, patterns over them, and the comparison of two trees."""

import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import trees
from tl_jax.errors import InputError

TREE = {"stem": {"conv": {"kernel": 1}}, "head": {"kernel": 2, "bias": 3}}
NAMES = ["stem/conv/kernel", "head/kernel", "head/bias"]


def test_flatten_names_leaves_in_the_order_of_the_tree():
    assert list(trees.flatten(TREE).items()) == list(zip(NAMES, [1, 2, 3], strict=True))


def test_parts_of_names_are_joined_by_the_separator_that_is_given():
    tree = {"optim": {"name": "sgd"}, "seed": 1, "empty": {}}
    assert trees.flatten(tree, ".") == {"optim.name": "sgd", "seed": 1}


def test_unflatten_undoes_flatten():
    assert trees.unflatten(trees.flatten(TREE)) == TREE


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("head/.*", ["head/kernel", "head/bias"], id="a module"),
        pytest.param(".*/kernel", ["stem/conv/kernel", "head/kernel"], id="a kind of leaf"),
        pytest.param("head/bias", ["head/bias"], id="one leaf"),
        pytest.param("(stem|head)/.*", NAMES, id="alternatives"),
    ],
)
def test_match(pattern, expected):
    assert trees.match([pattern], NAMES) == {pattern: expected}


@pytest.mark.parametrize(
    ("patterns", "parts"),
    [
        pytest.param(["head"], ["pattern 'head' matches no leaf", "nearest: head"], id="in full"),
        pytest.param(["stm/.*"], ["'stm/.*'", "nearest: stem"], id="typo"),
        pytest.param(["(head"], ["'(head' is not a regular expression"], id="malformed"),
        pytest.param(["hed/.*", "[a", "head/.*"], ["'hed/.*'", "'[a'"], id="all listed"),
    ],
)
def test_match_lists_every_useless_pattern(patterns, parts):
    with pytest.raises(InputError) as caught:
        trees.match(patterns, NAMES)
    for part in parts:
        assert part in str(caught.value)
    assert "pattern 'head/.*'" not in str(caught.value)
    assert "there are 3 leaves named like 'stem/conv/kernel'" in str(caught.value)


def test_differences_lists_missing_extra_misshapen_and_wrongly_typed_leaves():
    expected = {
        "a": {"kernel": np.zeros((2, 3), np.float32), "bias": np.zeros(3, np.float32)},
        "b": np.zeros(1, np.float32),
        "same": jnp.zeros(4),
    }
    given = {
        "a": {"kernel": np.zeros((3, 2), np.float32), "bias": np.zeros(3, np.float16)},
        "c": np.zeros(1, np.float32),
        "same": np.ones(4, np.float32),
    }
    assert trees.differences(given, expected) == [
        "a/bias: dtype float16, expected float32",
        "a/kernel: shape (3, 2), expected (2, 3)",
        "b: missing",
        "c: not expected",
    ]


def test_count_and_bytes():
    tree = {"a": np.zeros((2, 3), np.float32), "b": {"c": np.zeros(5, np.float16), "d": np.int8(1)}}
    assert trees.count(tree) == 6 + 5 + 1
    assert trees.num_bytes(tree) == 24 + 10 + 1
