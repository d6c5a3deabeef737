"""Batch Spectral Shrinkage against NumPy's singular values, its derivative, and where that is delicate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax.errors import InputError
from tl_jax.objectives import Outputs, SpectralShrinkage


def penalty(features, k=1):
    outputs = Outputs(
        logits=jnp.zeros((len(features), 2)),
        labels=jnp.zeros(len(features), jnp.int32),
        features={"pool": jnp.asarray(features, jnp.float32)},
    )
    return SpectralShrinkage("pool", k)(outputs)[0]


@pytest.mark.parametrize(("shape", "k"), [((6, 4), 1), ((4, 6), 1), ((6, 4), 3), ((5, 5), 2)])
def test_it_is_the_sum_of_the_smallest_squares(shape, k):
    features = np.random.default_rng(0).normal(1.0, 1.0, shape)
    exact = np.linalg.svd(features, compute_uv=False)[::-1][:k]
    assert float(penalty(features, k)) == pytest.approx((exact**2).sum(), rel=1e-6)


def test_maps_are_flattened():
    features = np.random.default_rng(1).normal(size=(3, 2, 2, 2))
    exact = np.linalg.svd(features.reshape(3, -1), compute_uv=False)[-1] ** 2
    assert float(penalty(features)) == pytest.approx(exact, rel=1e-6)


def test_the_derivative_against_differences():
    rng = np.random.default_rng(2)
    features, direction = rng.normal(size=(2, 5, 4))
    gradient = np.asarray(jax.grad(lambda f: penalty(f, 2))(jnp.asarray(features, jnp.float32)))

    def exact(step):
        return (np.linalg.svd(features + step * direction, compute_uv=False)[-2:] ** 2).sum()

    expected = (exact(1e-5) - exact(-1e-5)) / 2e-5
    assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "features",
    [np.zeros((4, 3)), np.ones((4, 3)), np.eye(4, 3), np.repeat(np.eye(2, 3), 2, 0)],
    ids=["zeros", "equal images", "equal singular values", "images twice"],
)
def test_the_derivative_is_finite_where_singular_values_are_equal_or_0(features):
    value, gradient = jax.value_and_grad(penalty)(jnp.asarray(features, jnp.float32))
    exact = np.linalg.svd(features, compute_uv=False)[-1] ** 2
    assert float(value) == pytest.approx(exact, abs=1e-6)
    assert np.isfinite(gradient).all()


def test_more_singular_values_than_there_are():
    with pytest.raises(
        InputError, match=r"^objective\.bss_k=4: features of 5 images with 3 values"
    ):
        penalty(np.ones((5, 3)), 4)
