"""Stochastic Normalization against NumPy and PyTorch, the channels that it draws, and where it does nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tl_jax
from tl_jax import models, trees
from tl_jax.errors import InputError
from tl_jax.models.batch_norm import BatchNorm

RNG = np.random.default_rng(0)
CHANNELS = 16
X = RNG.normal(1.0, 2.0, (6, 3, 3, CHANNELS)).astype(np.float32)
SCALE, BIAS, MEAN = RNG.normal(size=(3, CHANNELS)).astype(np.float32)
VAR = RNG.uniform(0.5, 2.0, CHANNELS).astype(np.float32)
VARIABLES = {
    "params": {"scale": jnp.array(SCALE), "bias": jnp.array(BIAS)},
    "batch_stats": {"mean": jnp.array(MEAN), "var": jnp.array(VAR)},
}


def apply(x, key=0, probability=0.5, variables=VARIABLES, **options):
    norm = BatchNorm(stoch_norm=probability, **options)
    rngs = {"dropout": jax.random.key(key)}
    return norm.apply(variables, x, True, mutable=["batch_stats"], rngs=rngs)


def branches(x):
    """Returns what the running statistics and those of the batch make of `x`, in float64."""
    wide = x.astype(np.float64)
    axes = (0, 1, 2)
    return [
        (wide - mean) / np.sqrt(var + 1e-5) * SCALE + BIAS
        for mean, var in ((MEAN, VAR), (wide.mean(axes), wide.var(axes)))
    ]


def chosen(y, x):
    """Returns for each channel whether it is the running branch; it has to be one of the two."""
    running, of_batch = (np.abs(y - branch).max((0, 1, 2)) for branch in branches(x))
    assert np.minimum(running, of_batch).max() < 1e-5
    return running < of_batch


def test_each_channel_is_one_of_the_two_branches_for_all_images():
    y, _ = apply(X)
    drawn = chosen(np.asarray(y), X)
    assert 0 < drawn.sum() < CHANNELS
    for branch, where in zip(branches(X), (drawn, ~drawn), strict=True):
        np.testing.assert_allclose(y[..., where], branch[..., where], rtol=1e-5, atol=1e-6)


def test_the_running_statistics_become_what_they_become_without_it():
    _, updated = apply(X)
    norm = BatchNorm()
    _, plain = norm.apply(VARIABLES, jnp.asarray(X), True, mutable=["batch_stats"])
    for name in ("mean", "var"):
        np.testing.assert_array_equal(updated["batch_stats"][name], plain["batch_stats"][name])


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
def test_as_many_channels_as_the_probability_says(probability):
    drawn = [chosen(np.asarray(apply(X, key, probability)[0]), X) for key in range(60)]
    spread = np.sqrt(probability * (1 - probability) / (60 * CHANNELS))
    assert np.mean(drawn) == pytest.approx(probability, abs=4 * spread)
    assert len({tuple(one) for one in drawn}) > 20  # anew for each key


@pytest.mark.parametrize("policy", ["frozen", "batch_stats_no_update"])
def test_frozen_modules_draw_nothing(policy):
    with_rng = apply(X, frozen_norms=frozenset({""}), norm_policy=policy)[0]
    plain = BatchNorm(frozen_norms=frozenset({""}), norm_policy=policy)
    without = plain.apply(VARIABLES, jnp.asarray(X), True, mutable=["batch_stats"])[0]
    np.testing.assert_array_equal(with_rng, without)


def test_gradients_follow_pytorch():
    torch = pytest.importorskip("torch")
    weight = RNG.normal(size=X.shape).astype(np.float32)
    y, _ = apply(X)
    drawn = chosen(np.asarray(y), X)

    def loss(params, x):
        variables = {**VARIABLES, "params": params}
        return jnp.sum(apply(x, variables=variables)[0] * weight)

    ours, of_x = jax.grad(loss, argnums=(0, 1))(VARIABLES["params"], jnp.asarray(X))

    def tensor(array):
        return torch.tensor(np.asarray(array, np.float64), requires_grad=True)

    x, scale, bias = tensor(X.transpose(0, 3, 1, 2)), tensor(SCALE), tensor(BIAS)
    running = [torch.tensor(np.asarray(value, np.float64)) for value in (MEAN, VAR)]
    zero = torch.nn.functional.batch_norm(x, *running, scale, bias, False, 0.1, 1e-5)
    # Of copies: updated in place, they would change the derivative of the other branch.
    copies = [value.clone() for value in running]
    one = torch.nn.functional.batch_norm(x, *copies, scale, bias, True, 0.1, 1e-5)
    picked = torch.tensor(drawn)[None, :, None, None]
    theirs = torch.where(picked, zero, one)
    (theirs * torch.tensor(weight.transpose(0, 3, 1, 2))).sum().backward()
    np.testing.assert_allclose(of_x, x.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours["scale"], scale.grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours["bias"], bias.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet20_cifar", "vgg11_bn"])
def test_networks_draw_for_every_module_by_itself(name):
    model = models.create_model(name, 10, stoch_norm=0.5)
    variables = models.init_variables(model, jax.random.key(0))
    images = jnp.asarray(RNG.normal(size=(4, 32, 32, 3)), jnp.float32)
    forward = models.make_forward(model)

    @jax.jit
    def logits(key):
        return forward(variables["params"], variables["batch_stats"], images, train=True, key=key)

    first, again, other = (logits(jax.random.key(key)) for key in (0, 0, 1))
    np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(first[0] - other[0]).max() > 1e-3
    plain = models.make_forward(models.without_stoch_norm(model))
    evaluated = [
        one(variables["params"], variables["batch_stats"], images, train=False)[0]
        for one in (forward, plain)
    ]
    np.testing.assert_array_equal(*evaluated)
    stem = "stem/bn/mean" if name == "resnet20_cifar" else "stage1/bn1/mean"
    statistics = [trees.flatten(made[1]) for made in (first, other)]
    first_module = next((one for one in statistics[0] if one == stem), min(statistics[0]))
    np.testing.assert_array_equal(statistics[0][first_module], statistics[1][first_module])


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^stoch_norm is 1\.0, expected a number in \[0, 1\)"):
        models.create_model("resnet18", 10, stoch_norm=1.0)
    with pytest.raises(InputError, match=r"stoch_norm=0\.5: vgg11 has no such option"):
        models.create_model("vgg11", 10, stoch_norm=0.5)
    config = tl_jax.default_config(
        data__name="digits", train__steps=2, model__stoch_norm=0.5, parallel__mode="pmap"
    )
    with pytest.raises(InputError, match=r"^model\.stoch_norm=0\.5 with parallel\.mode=pmap"):
        tl_jax.finetune(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
