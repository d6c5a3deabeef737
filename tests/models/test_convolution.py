"""Our convolution is JAX's own: values, gradients, in loops, over devices and over members."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tl_jax.models import convolution, cpu
from tl_jax.parallel import sharding

CASES = list(itertools.product((8, 9), (1, 3, 7), (1, 2)))


def drawn(key, shape):
    return jax.random.normal(jax.random.key(key), shape)


def gradients(function, x, kernel, cotangent):
    _, pullback = jax.vjp(function, x, kernel)
    return pullback(cotangent)


@pytest.mark.parametrize(("height", "size", "stride"), CASES)
def test_values_and_gradients_are_those_of_jax(height, size, stride):
    x, kernel = drawn(0, (2, height, height + 1, 3)), drawn(1, (size, size, 3, 5))

    def ours(x, kernel):
        return convolution.convolve(x, kernel, stride)

    def native(x, kernel):
        return cpu.native_convolution(x, kernel, stride)

    expected = native(x, kernel)
    np.testing.assert_allclose(ours(x, kernel), expected, rtol=1e-5, atol=1e-5)
    cotangent = drawn(2, expected.shape)
    for mine, reference in zip(
        gradients(ours, x, kernel, cotangent),
        gradients(native, x, kernel, cotangent),
        strict=True,
    ):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=2e-5)


def test_hand_computed_gradient():
    """A 3x3 kernel of ones on one row of pixels 1, 2, 3: each output is the sum of its neighbours."""
    x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    kernel = jnp.ones((3, 3, 1, 1))
    y, pullback = jax.vjp(convolution.convolve, x, kernel)
    np.testing.assert_array_equal(y.ravel(), [3, 6, 5])
    x_grad, kernel_grad = pullback(jnp.array([1.0, 10.0, 100.0]).reshape(1, 1, 3, 1))
    np.testing.assert_array_equal(x_grad.ravel(), [11, 111, 110])
    np.testing.assert_array_equal(kernel_grad[1].ravel(), [10 * 1 + 100 * 2, 321, 1 * 2 + 10 * 3])
    assert not kernel_grad[0].any() and not kernel_grad[2].any()


def test_a_loop_gives_the_same_bits_as_single_calls():
    xs, kernel = drawn(0, (3, 4, 8, 8, 4)), drawn(1, (3, 3, 4, 4))

    def gradient(kernel, x):
        return jax.grad(lambda k: jnp.square(convolution.convolve(x, k)).sum())(kernel)

    _, looped = jax.lax.scan(lambda _, x: (None, gradient(kernel, x)), None, xs)
    single = jax.jit(gradient)
    np.testing.assert_array_equal(looped, jnp.stack([single(kernel, x) for x in xs]))


@pytest.mark.parametrize("size", [1, 3])
def test_members_and_devices_agree_with_one_alone(size):
    x, kernels = drawn(0, (8, 8, 8, 4)), drawn(1, (3, size, size, 4, 2))

    def gradient(kernel, x):
        return jax.grad(lambda k: jnp.square(convolution.convolve(x, k, 2)).mean())(kernel)

    alone = jnp.stack([gradient(kernel, x) for kernel in kernels])
    members = jax.vmap(gradient, in_axes=(0, None))(kernels, x)
    np.testing.assert_allclose(members, alone, rtol=1e-5, atol=1e-6)

    mesh = sharding.make_mesh(8)
    spread = jax.jit(
        gradient,
        in_shardings=(sharding.replicated(mesh), NamedSharding(mesh, PartitionSpec("data"))),
        out_shardings=sharding.replicated(mesh),
    )
    np.testing.assert_allclose(spread(kernels[0], x), alone[0], rtol=1e-5, atol=1e-6)


def test_groups_see_their_own_channels():
    x, kernel = drawn(0, (2, 8, 8, 4)), drawn(1, (3, 3, 2, 6))
    grouped = convolution.convolve(x, kernel, groups=2)
    apart = [
        convolution.convolve(x[..., part : part + 2], kernel[..., 3 * part // 2 :][..., :3])
        for part in (0, 2)
    ]
    np.testing.assert_allclose(grouped, jnp.concatenate(apart, -1), rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_bfloat16():
    x, kernel = drawn(0, (2, 8, 8, 4)), drawn(1, (3, 3, 4, 4))
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    y, pullback = jax.vjp(convolution.convolve, x, kernel)
    assert {array.dtype for array in (y, *pullback(y))} == {jnp.dtype("bfloat16")}
