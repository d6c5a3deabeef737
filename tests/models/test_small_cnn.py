"""The small network of tutorials: its numbers against NumPy, its shapes, its dropout, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import models, trees
from tl_jax.errors import InputError
from tl_jax.models.small_cnn import SmallCNN

SMALL = SmallCNN(3, widths=(4, 5), hidden_width=6)
IMAGES = jax.random.normal(jax.random.key(1), (2, 9, 12, 3))


@pytest.fixture(scope="module")
def variables():
    """Random variables, biases too."""
    fresh = models.init_variables(SMALL, jax.random.key(0), IMAGES.shape)
    leaves = trees.flatten(fresh["params"])
    keys = jax.random.split(jax.random.key(2), len(leaves))
    drawn = {
        name: leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for key, (name, leaf) in zip(keys, leaves.items(), strict=True)
    }
    return {"params": trees.unflatten(drawn), "batch_stats": {}}


def _convolved_and_pooled(x, kernel, bias):
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = sum(
        padded[:, row : row + height, column : column + width] @ kernel[row, column]
        for row in range(3)
        for column in range(3)
    )
    y = np.maximum(y + bias, 0)[:, : height // 2 * 2, : width // 2 * 2]
    return y.reshape(len(x), height // 2, 2, width // 2, 2, -1).max((2, 4))


def test_the_numbers_are_those_of_numpy(variables):
    params = jax.tree.map(np.float64, variables["params"])
    x = np.float64(IMAGES)
    for stage in ("stage1", "stage2"):
        x = _convolved_and_pooled(x, *(params[stage]["conv"][leaf] for leaf in ("kernel", "bias")))
    x = x.reshape(len(x), -1)
    hidden = np.maximum(x @ params["hidden"]["fc"]["kernel"] + params["hidden"]["fc"]["bias"], 0)
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    found = SMALL.apply(variables, IMAGES, train=False)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("boundary", "shape"),
    [("stage1", (2, 4, 6, 4)), ("stage2", (2, 2, 3, 5)), ("hidden", (2, 6)), ("head", (2, 3))],
)
def test_it_is_left_and_entered_at_its_boundaries(boundary, shape, variables):
    features = SMALL.apply(variables, IMAGES, train=False, stop=boundary)
    assert features.shape == shape and features.shape[-1] == SMALL.features(boundary)
    if boundary != "head":
        rest = SMALL.apply(variables, features, train=False, start=boundary)
        np.testing.assert_array_equal(rest, SMALL.apply(variables, IMAGES, train=False))


def test_dropout_is_before_the_head(variables):
    dropping = SMALL.clone(dropout=0.5)
    rngs = {"dropout": jax.random.key(3)}
    assert (
        dropping.apply(variables, IMAGES, train=True, rngs=rngs, stop="hidden")
        == (SMALL.apply(variables, IMAGES, stop="hidden"))
    ).all()
    dropped = dropping.apply(variables, IMAGES, train=True, rngs=rngs)
    assert not jnp.allclose(dropped, SMALL.apply(variables, IMAGES))
    assert (dropping.apply(variables, IMAGES) == SMALL.apply(variables, IMAGES)).all()


def test_images_that_vanish_are_refused():
    with pytest.raises(InputError, match="expected images of 4 pixels or more"):
        SMALL.init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))
