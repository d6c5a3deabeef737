"""BatchNorm against hand-computed numbers and PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import errors, models, trees
from tl_jax.models.batch_norm import BatchNorm
from tl_jax.models.convolution import Convolution
from tl_jax.models.resnet import ResNet
from tl_jax.models.vgg import VGG

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


def test_groups_have_statistics_of_their_own():
    """Means 2 and 6, biased variances 1, unbiased ones 2."""
    y, updated = BatchNorm(rows=2).apply(variables(), X, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.ravel(), np.array([-1, 1, -1, 1]) / np.sqrt(1 + 1e-5), rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [0.1 * 4], rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], [0.9 + 0.1 * 2], rtol=1e-6)


@pytest.mark.parametrize("shape", [(12, 3, 4, 5), (12, 5)], ids=["maps", "vectors"])
@pytest.mark.parametrize("rows", [2, 3, 12])
def test_a_group_is_normalised_as_if_it_were_alone(shape, rows):
    x = 3 + 2 * jax.random.normal(jax.random.key(0), shape)
    state = variables(5, mean=2.5) | {"params": {"scale": jnp.arange(5.0), "bias": jnp.ones(5)}}
    module = BatchNorm(rows=rows, momentum=0.75)
    found, updated = module.apply(state, x, True, mutable=["batch_stats"])
    groups = x.reshape(-1, rows, *shape[1:])
    alone = [BatchNorm().apply(state, group, True, mutable=["batch_stats"])[0] for group in groups]
    np.testing.assert_allclose(found, np.concatenate(alone), rtol=1e-5, atol=2e-6)
    values = np.asarray(groups, np.float64).reshape(len(groups), -1, 5)
    mean, var = values.mean(1).mean(0), values.var(1, ddof=1).mean(0)
    expected = {"mean": 0.75 * 2.5 + 0.25 * mean, "var": 0.75 + 0.25 * var}
    for name, value in expected.items():
        np.testing.assert_allclose(updated["batch_stats"][name], value, rtol=1e-5, err_msg=name)


def test_groups_of_replicas_are_groups_of_the_whole_batch():
    """Each of two devices has two groups; the running statistics are those of all four."""
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (8, 3, 3, 5))

    def apply(x, axis_name=None):
        module = BatchNorm(rows=2, axis_name=axis_name)
        return module.apply(variables(5), x, True, mutable=["batch_stats"])

    expected, running = apply(x)
    apply_to_share = functools.partial(apply, axis_name="data")
    found, updated = jax.vmap(apply_to_share, axis_name="data")(x.reshape(2, 4, 3, 3, 5))
    np.testing.assert_allclose(found.reshape(x.shape), expected, rtol=1e-5, atol=2e-6)
    for name, leaf in running["batch_stats"].items():
        for share in updated["batch_stats"][name]:
            np.testing.assert_allclose(share, leaf, rtol=1e-6, err_msg=name)


def test_groups_of_members_that_train_at_once():
    """Parameters of each, the same inputs, as in a sweep."""
    x = jax.random.normal(jax.random.key(0), (6, 3, 3, 5))
    scales = jax.random.normal(jax.random.key(1), (4, 5))

    def gradient(scale):
        def loss(scale, x):
            state = variables(5) | {"params": {"scale": scale, "bias": scale}}
            y, updated = BatchNorm(rows=3).apply(state, x, True, mutable=["batch_stats"])
            return jnp.sin(y).sum(), updated

        return jax.grad(loss, (0, 1), has_aux=True)(scale, x)

    together = jax.vmap(gradient)(scales)
    for number, scale in enumerate(scales):
        for found, alone in zip(
            jax.tree.leaves(together), jax.tree.leaves(gradient(scale)), strict=True
        ):
            np.testing.assert_allclose(found[number], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "size", "near"), [(3, 8, "1, 2, 4"), (12, 8, "2, 4, 8"), (-1, 4, "1, 2, 4")]
)
def test_groups_that_do_not_divide_the_batch(rows, size, near):
    message = (
        rf"batch_norm_rows={rows}: {size} examples in a batch do not .*; nearest: {near}, or 0"
    )
    with pytest.raises(errors.InputError, match=message):
        BatchNorm(rows=rows).apply(variables(), jnp.ones((size, 1)), True, mutable=["batch_stats"])
    x = jnp.ones((size, 1))
    assert BatchNorm(rows=rows).apply(variables(), x, False).shape == (size, 1)


def test_one_value_per_channel():
    with pytest.raises(errors.InputError, match=r"one value per channel .*\(1, 1, 1, 1\)"):
        BatchNorm().apply(variables(), X[:1], True, mutable=["batch_stats"])
    assert BatchNorm().apply(variables(), X[:1], False).shape == (1, 1, 1, 1)
    with pytest.raises(errors.InputError, match=r"one value per channel .*model\.batch_norm_rows"):
        BatchNorm(rows=1).apply(variables(), X, True, mutable=["batch_stats"])


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


def plain(x, scale, bias, axis_name=None, epsilon=1e-5):
    """Returns `x` normalised by its statistics, as the paper writes it."""
    axes = tuple(range(x.ndim - 1))
    mean, square = x.mean(axes), jnp.square(x).mean(axes)
    if axis_name:
        mean, square = jax.lax.pmean((mean, square), axis_name)
    return (x - mean) / jnp.sqrt(square - jnp.square(mean) + epsilon) * scale + bias


def plain_groups(rows, x, scale, bias):
    """Returns each group of rows as `plain` normalises it."""
    groups = [plain(x[i : i + rows], scale, bias) for i in range(0, len(x), rows)]
    return jnp.concatenate(groups)


@pytest.mark.parametrize("rows", [0, 2, 3, 6])
@pytest.mark.parametrize("axis_name", [None, "data"])
def test_the_derivative_is_that_which_jax_derives(axis_name, rows):
    """In float64, also of a loss that is not linear, and of the rows on other devices, or of each group."""
    with jax.enable_x64(True):
        keys = iter(jax.random.split(jax.random.key(0), 4))
        x = 3 + 2 * jax.random.normal(next(keys), (2, 6, 5, 4, 7), jnp.float64)
        x = x if axis_name else x[0]
        scale, bias = jax.random.normal(next(keys), (2, 7), jnp.float64)
        weight = jax.random.normal(next(keys), x.shape, jnp.float64)
        module = BatchNorm(dtype=jnp.dtype("float64"), axis_name=axis_name, rows=rows)

        def ours(x, scale, bias):
            state = variables(7) | {"params": {"scale": scale, "bias": bias}}
            return module.apply(state, x, True, mutable=["batch_stats"])[0]

        def gradients(normalise):
            def loss(x, scale, bias, weight):
                return jnp.sum(jnp.sin(normalise(x, scale, bias)) * weight)

            gradient = jax.grad(loss, (0, 1, 2))
            if axis_name is not None:  # each replica's own loss, as under pmap
                gradient = jax.vmap(gradient, (0, None, None, 0), axis_name=axis_name)
            return gradient(x, scale, bias, weight)

        derived = functools.partial(plain, axis_name=axis_name)
        expected = gradients(functools.partial(plain_groups, rows) if rows else derived)
        for found, value in zip(gradients(ours), expected, strict=True):
            assert found.dtype == jnp.float64
            np.testing.assert_allclose(found, value, rtol=1e-10, atol=1e-10)


def test_running_statistics_are_float32_whatever_comes():
    with jax.enable_x64(True):
        module = BatchNorm(dtype=jnp.dtype("float64"))
        x = X.astype(jnp.float64)
        y, updated = module.apply(variables(), x, True, mutable=["batch_stats"])
        assert y.dtype == jnp.float64
        assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype("float32")}
        still = module.apply(variables(), x + 1e-12, False) - module.apply(variables(), x, False)
        assert (still > 0).all()  # float32 would not see it


def test_the_running_statistics_are_constants_of_the_derivative():
    def loss(x):
        _, updated = BatchNorm().apply(variables(), x, True, mutable=["batch_stats"])
        return jnp.sum(updated["batch_stats"]["mean"] + updated["batch_stats"]["var"])

    np.testing.assert_array_equal(jax.grad(loss)(X), jnp.zeros_like(X))


NETWORKS = {
    "basic, pad": ResNet((1, 2), "basic", 10, "cifar", width=8, shortcut="pad"),
    "basic, 16 channels": ResNet((1, 1), "basic", 10, "cifar", width=16),
    "bottleneck, imagenet": ResNet((1, 1), "bottleneck", 10, "imagenet", width=8),
    "bottleneck, biases": ResNet((1, 1), "bottleneck", 10, "imagenet", width=8, conv_bias=True),
    "groups": ResNet((1, 1), "bottleneck", 10, "cifar", width=8, groups=4),
    "vgg": VGG((2, 1), 10, batch_norm=True, classifier="pooled", width=8),
}


def used(model):
    """Returns variables as of a trained network: no scale is 1, no mean 0."""
    fresh = models.init_variables(model, jax.random.key(0))

    def draw(name, leaf):
        values = jax.random.normal(jax.random.key(sum(map(ord, name))), leaf.shape)
        if name.endswith(("var", "scale")):
            return jnp.exp(0.4 * values)
        return leaf if name.endswith("kernel") else 0.5 * values

    flat = {name: draw(name, leaf) for name, leaf in trees.flatten(fresh).items()}
    return trees.unflatten(flat)


def unfolded(monkeypatch):
    """Applies running statistics to the output of the convolution, as if there were none before."""
    call = BatchNorm.__call__

    def apart(self, x, train, convolution=None):
        return call(self, x if convolution is None else convolution(x), train)

    monkeypatch.setattr(BatchNorm, "__call__", apart)


def evaluated(model):
    """Returns the logits of some images, compiled."""
    state, images = used(model), jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    forward = jax.jit(models.make_forward(model), static_argnames="train")
    return forward(state["params"], state["batch_stats"], images, train=False)[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_into_the_convolution_it_is_the_same(name, monkeypatch):
    found = evaluated(NETWORKS[name])
    unfolded(monkeypatch)
    expected = evaluated(NETWORKS[name])
    assert (found != expected).any()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * float(abs(expected).max()))


@pytest.mark.parametrize("name", ["basic, 16 channels", "bottleneck, imagenet", "vgg"])
def test_a_compiled_network_in_bfloat16_is_that_in_float32(name):
    """XLA for CPU has made NaN of one without float32 between its convolutions."""
    model = NETWORKS[name]
    found, expected = evaluated(model.clone(dtype=jnp.dtype("bfloat16"))), evaluated(model)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.03 * float(abs(expected).max()))


@pytest.mark.parametrize("name", ["basic, pad", "bottleneck, biases"])
def test_gradients_through_frozen_statistics_are_the_same(name, monkeypatch):
    """Kernels, scales and biases are trained, the statistics are not."""
    model = NETWORKS[name]
    state, images = used(model), jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    forward = models.make_forward(model, frozen_norms=frozenset(models.norm_names(model)))

    def gradient(params):
        def loss(params):
            logits, stats = forward(params, state["batch_stats"], images, train=True)
            return jnp.square(logits).sum(), stats

        return jax.grad(loss, has_aux=True)(params)

    found, stats = jax.jit(gradient)(state["params"])
    jax.tree.map(np.testing.assert_array_equal, stats, state["batch_stats"])
    unfolded(monkeypatch)
    expected = trees.flatten(jax.jit(gradient)(state["params"])[0])
    for leaf, value in trees.flatten(found).items():
        scale = float(abs(expected[leaf]).max())
        np.testing.assert_allclose(value, expected[leaf], rtol=0, atol=2e-5 * scale, err_msg=leaf)


def test_folded_in_bfloat16_it_is_scaled_in_float32():
    """Kernel and scale are 1 in bfloat16, their product is not."""
    bfloat16 = jnp.dtype("bfloat16")
    convolution = Convolution(1, 1, bfloat16)
    x = jnp.ones((1, 2, 2, 1), bfloat16)
    state = {"params": {"kernel": jnp.full((1, 1, 1, 1), 1 + 2**-9)}}
    assert convolution.apply(state, x).max() == 1
    y = convolution.apply(state, x, jnp.full(1, 1 + 2**-8), jnp.zeros(1))
    assert y.dtype == bfloat16 and y.max() == 1 + 2**-7
