"""Adapters against convolutions that are computed apart, their parameters, and what has none."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import models, trees
from tl_jax.errors import InputError
from tl_jax.models import adapters
from tl_jax.models.convolution import Convolution, convolve

RNG = np.random.default_rng(0)


class One(nn.Module):
    """A convolution, and a head on its mean."""

    stride: int = 1
    size: int = 3
    groups: int = 1

    boundaries = ("stem", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        conv = Convolution(
            8, self.size, jnp.dtype("float32"), self.stride, self.groups, name="conv"
        )
        if start is None:
            x = conv(x)
        return x if stop == "stem" else nn.Dense(3, name="head")(x.mean((1, 2)))


def variables_of(model, channels=6):
    images = jnp.asarray(RNG.normal(size=(2, 9, 9, channels)), jnp.float32)
    variables = model.init(jax.random.key(0), images)
    params = trees.flatten(variables["params"])
    drawn = {
        name: jnp.asarray(RNG.normal(size=leaf.shape), jnp.float32) for name, leaf in params.items()
    }
    return {"params": trees.unflatten(drawn)}, images


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_residual_adapters_are_1x1_convolutions_beside_the_others(stride, groups, size):
    model = models.Adapted(One(stride, size, groups), "residual")
    variables, images = variables_of(model)
    params = trees.flatten(variables["params"])
    assert params["conv/adapter"].shape == (6 // groups, 8)
    found = model.apply(variables, images, stop="stem")
    beside = params["conv/adapter"][None, None]
    expected = convolve(images, params["conv/kernel"], stride, groups)
    expected += convolve(images, beside, stride, groups)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_low_rank_adapters_are_two_convolutions_in_a_row(stride, size):
    model = models.Adapted(One(stride, size), "low_rank", rank=2)
    variables, images = variables_of(model)
    params = trees.flatten(variables["params"])
    assert params["conv/lora_a"].shape == (size, size, 6, 2)
    assert params["conv/lora_b"].shape == (2, 8)
    found = model.apply(variables, images, stop="stem")
    narrow = convolve(images, params["conv/lora_a"], stride)
    expected = convolve(images, params["conv/kernel"], stride) + narrow @ params["conv/lora_b"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", adapters.KINDS)
@pytest.mark.parametrize("name", ["resnet20_cifar", "small_cnn"])
def test_a_network_starts_as_the_one_inside(kind, name):
    inside = models.create_model(name, 10)
    model = models.Adapted(inside, kind)
    shape = (1, 32, 32, 3)
    variables = models.init_variables(model, jax.random.key(1), shape)
    plain = models.init_variables(inside, jax.random.key(1), shape)
    leaves = trees.flatten(variables["params"])
    for leaf, value in trees.flatten(plain["params"]).items():
        np.testing.assert_array_equal(leaves[leaf], value, err_msg=leaf)
    images = jnp.asarray(RNG.normal(size=(2, 32, 32, 3)), jnp.float32)
    outputs = [
        models.make_forward(one)(
            one_variables["params"], plain["batch_stats"], images, train=False
        )[0]
        for one, one_variables in ((model, variables), (inside, plain))
    ]
    np.testing.assert_array_equal(*outputs)


def test_merged_kernels_compute_what_adapters_do():
    model = models.Adapted(models.create_model("resnet20_cifar", 10), "low_rank")
    variables = models.init_variables(model, jax.random.key(0))
    leaves = trees.flatten(variables["params"])
    changed = {
        name: leaf + 0.1 * jax.random.normal(jax.random.key(number), leaf.shape)
        for number, (name, leaf) in enumerate(leaves.items())
    }
    variables["params"] = trees.unflatten(changed)
    merged = models.merged_variables(variables)
    assert not any(models.is_adapter(name) for name in trees.flatten(merged["params"]))
    images = jnp.asarray(RNG.normal(size=(2, 32, 32, 3)), jnp.float32)
    adapted, plain = (
        models.make_forward(one)(of["params"], of["batch_stats"], images, train=False)[0]
        for one, of in ((model, variables), (models.plain(model), merged))
    )
    np.testing.assert_allclose(adapted, plain, rtol=1e-6, atol=1e-6)


# ResNet-20: a 3x3 stem of 3 to 16 channels; 6 convolutions of 16 to 16; 16 to 32 and 5 of 32; 32 to 64 and 5 of 64.
RESIDUAL = 3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64
# Of rank 4: 9 C r and r D for each but the stem, whose 3 channels are fewer.
LOW_RANK = sum(
    count * (9 * inputs * 4 + 4 * outputs)
    for count, inputs, outputs in ((6, 16, 16), (1, 16, 32), (5, 32, 32), (1, 32, 64), (5, 64, 64))
)


@pytest.mark.parametrize(("kind", "expected"), [("residual", RESIDUAL), ("low_rank", LOW_RANK)])
def test_the_parameters_of_resnet20(kind, expected):
    model = models.Adapted(models.create_model("resnet20_cifar", 10), kind)
    shapes = jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0)))
    leaves = trees.flatten(shapes["params"])
    assert sum(leaf.size for name, leaf in leaves.items() if models.is_adapter(name)) == expected


def test_it_has_the_boundaries_fields_and_checks_of_the_network_inside():
    model = models.Adapted(models.create_model("resnet20_cifar", 10), "residual")
    assert model.boundaries == ("stem", "stage1", "stage2", "stage3", "pool", "head")
    assert models.norm_names(model) == models.norm_names(models.plain(model))
    assert models.boundary_shapes(model, 32) == models.boundary_shapes(models.plain(model), 32)
    models.check_network(model, 10, 32)
    assert models.without_stoch_norm(model) == model
    assert hash(model) == hash(models.Adapted(models.plain(model), "residual"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("residul",), r"^unknown adapters 'residul'; nearest: residual"),
        (("low_rank", 0), r"^adapter_rank is 0, expected 1 or more"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        models.Adapted(One(), *arguments)


@pytest.mark.parametrize(
    ("network", "arguments"), [(One(size=1), ("residual",)), (One(), ("low_rank", 6))]
)
def test_a_network_without_such_convolutions_is_refused(network, arguments):
    with pytest.raises(InputError, match="no convolution of the network has a kernel for them"):
        variables_of(models.Adapted(network, *arguments))
