"""Pooling against PyTorch's rules and XLA's own maxima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tl_jax.models.pooling import average_pool_to, max_pool


@pytest.mark.parametrize("length", [1, 2, 3, 7, 9, 14, 16])
def test_averages_are_over_pytorchs_regions(length):
    values = np.arange(length, dtype=np.float32) ** 2
    x = jnp.asarray(values).reshape(1, length, 1, 1)
    expected = [
        values[int(np.floor(i * length / 7)) : int(np.ceil((i + 1) * length / 7))].mean()
        for i in range(7)
    ]
    rows = average_pool_to(x, 7)[0, :, 3, 0]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    columns = average_pool_to(x.swapaxes(1, 2), 7)[0, 3, :, 0]
    np.testing.assert_allclose(columns, expected, rtol=1e-6)


def test_average_pool_against_pytorch():
    torch = pytest.importorskip("torch")
    for height, width in [(1, 1), (2, 5), (7, 7), (9, 14), (10, 13)]:
        x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
        theirs = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), 7)
        ours = average_pool_to(jnp.asarray(x), 7)
        np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).numpy(), atol=1e-6)


def test_max_pool_by_hand_and_its_gradient():
    x = jnp.asarray([[1.0, 5.0, 0.0], [2.0, 3.0, 0.0], [9.0, 9.0, 9.0]])[None, ..., None]
    assert max_pool(x).tolist() == [[[[5.0]]]]  # the odd row and column are dropped
    grad = jax.grad(lambda x: 3 * max_pool(x).sum())(x)[0, :, :, 0]
    assert grad.tolist() == [[0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (7, 8), (16, 9)])
def test_max_pool_of_a_stem_is_xlas(sides):
    """Values and gradient of 3x3 pixels at stride 2, padded by one, where no two values are equal."""
    x = jax.random.permutation(jax.random.key(0), sides[0] * sides[1] * 6) + 1.0
    x = x.reshape(2, *sides, 3)

    def xlas(x):
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

    def gradient(pool):
        return jax.grad(lambda x: jnp.square(pool(x)).sum())(x)

    def ours(x):
        return max_pool(x, 3, padding=1)

    np.testing.assert_array_equal(ours(x), xlas(x))
    assert jnp.isnan(ours(x.at[0, 0, 0, 0].set(jnp.nan))[0, 0, 0, 0])
    np.testing.assert_array_equal(gradient(ours), gradient(xlas))


def test_of_equal_pixels_the_first_gets_the_gradient():
    grad = jax.grad(lambda x: max_pool(x).sum())(jnp.ones((1, 2, 4, 1)))[0, :, :, 0]
    assert grad.tolist() == [[1.0, 0.0, 1.0, 0.0], [0.0] * 4]
