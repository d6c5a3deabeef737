"""BatchNorm against hand-computed numbers and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import errors
from tl_jax.models.batch_norm import BatchNorm

# One channel with mean 4, biased variance 5 and unbiased variance 20 / 3.
X = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(4, 1, 1, 1)
NORMALISED = np.array([-3.0, -1.0, 1.0, 3.0]).reshape(4, 1, 1, 1) / np.sqrt(5 + 1e-5)


def variables(features=1, mean=0.0, var=1.0):
    return {
        "params": {"scale": jnp.ones(features), "bias": jnp.zeros(features)},
        "batch_stats": {"mean": jnp.full(features, mean), "var": jnp.full(features, var)},
    }


def test_training():
    y, updated = BatchNorm().apply(variables(), X, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, NORMALISED, rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [0.4], rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], [0.9 + 2 / 3], rtol=1e-6)


def test_inference_uses_the_running_statistics():
    y = BatchNorm().apply(variables(mean=1.0, var=4.0), X, False)
    np.testing.assert_allclose(y, (X - 1) / np.sqrt(4 + 1e-5), rtol=1e-6)


def test_statistics_across_replicas_are_those_of_the_whole_batch():
    replicas = X.reshape(2, 2, 1, 1, 1)

    def apply(x):
        return BatchNorm(axis_name="data").apply(variables(), x, True, mutable=["batch_stats"])

    y, updated = jax.vmap(apply, axis_name="data")(replicas)
    np.testing.assert_allclose(y.reshape(X.shape), NORMALISED, rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], [[0.9 + 2 / 3]] * 2, rtol=1e-6)


def test_a_mean_far_above_the_spread_keeps_its_variance():
    """E[x²] - E[x]² in float32 would be off by a factor here: 1000² has an ulp of 0.06."""
    spread = jax.random.normal(jax.random.key(0), (64, 4, 4, 1)) * 0.01
    x = 1000.0 + spread
    expected = np.var(np.asarray(x, np.float64))
    _, updated = BatchNorm(momentum=0.0).apply(
        variables(mean=999.9), x, True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(updated["batch_stats"]["var"], [expected * 1024 / 1023], rtol=1e-2)


def test_a_constant_channel():
    def loss(x):
        y, _ = BatchNorm().apply(variables(), x, True, mutable=["batch_stats"])
        return jnp.sum(y)

    np.testing.assert_array_equal(jax.grad(loss)(jnp.ones_like(X)), jnp.zeros_like(X))


def test_bfloat16_inputs_are_averaged_in_float32():
    """300 + 1 is 300 in bfloat16, so sums in it would lose the small values."""
    x = jnp.concatenate([jnp.full((1, 1, 1, 1), 300.0), jnp.ones((299, 1, 1, 1))])
    module = BatchNorm(dtype=jnp.dtype("bfloat16"), momentum=0.0)
    y, updated = module.apply(variables(), x.astype(jnp.bfloat16), True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert updated["batch_stats"]["mean"].dtype == jnp.float32
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [599 / 300], rtol=1e-6)


def test_one_value_per_channel():
    with pytest.raises(errors.InputError, match=r"one value per channel .*\(1, 1, 1, 1\)"):
        BatchNorm().apply(variables(), X[:1], True, mutable=["batch_stats"])
    assert BatchNorm().apply(variables(), X[:1], False).shape == (1, 1, 1, 1)


def test_gradients_and_running_statistics_follow_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (3, 5, 4, 6)).astype(np.float32)
    weight = rng.normal(size=x.shape).astype(np.float32)

    reference = torch.nn.BatchNorm2d(6)
    source = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    for _ in range(3):
        y_reference = reference(source)
    (y_reference * torch.tensor(weight.transpose(0, 3, 1, 2))).sum().backward()

    def loss(x, state):
        y, updated = BatchNorm().apply(state, x, True, mutable=["batch_stats"])
        return jnp.vdot(y, weight), (y, updated)

    state = variables(6)
    for _ in range(3):
        (_, (y, updated)), grad = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(x), state)
        state = {**state, **updated}
    expected = {
        "y": y_reference.detach().numpy().transpose(0, 2, 3, 1),
        "grad": source.grad.numpy().transpose(0, 2, 3, 1),
        "mean": reference.running_mean.numpy(),
        "var": reference.running_var.numpy(),
    }
    found = {"y": y, "grad": grad, **state["batch_stats"]}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
