"""The network: paddings, shortcuts, shapes, boundaries, dtypes and rejected inputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import errors, models, trees
from tl_jax.models import registry
from tl_jax.models.blocks import pad_shortcut
from tl_jax.models.convolution import Convolution
from tl_jax.models.resnet import ResNet

KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
TINY = {
    "basic": ResNet((1, 1), "basic", 3, "cifar", width=4, shortcut="pad"),
    "bottleneck": ResNet((1, 1), "bottleneck", 3, "imagenet", width=8, groups=2, base_width=32),
}


def test_stride_two_pads_symmetrically():
    """Symmetric padding sums x[0:2, 0:2] first (1 + 2 + 5 + 6); "SAME" would sum x[0:3, 0:3]."""
    x = jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    kernel = {"params": {"kernel": jnp.ones((3, 3, 1, 1))}}
    y = Convolution(1, 3, jnp.dtype("float32"), stride=2).apply(kernel, x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[14, 30], [57, 99]])


def tiny_keras():
    """Returns Keras' ResNet-50 with two stages of one block."""
    architecture = registry.ARCHITECTURES["keras_resnet50"]
    return dataclasses.replace(architecture, stage_sizes=(1, 1), width=4).make(3)


def test_the_first_convolution_of_a_block_of_keras_has_the_stride():
    """The 3x3 one sees every second pixel only: what lies between changes nothing, as it does in v1.5."""
    models_of = {"v1": tiny_keras(), "v1.5": ResNet((1, 1), "bottleneck", 3, width=4)}
    between = jnp.zeros((1, 8, 8, 16)).at[0, 1, 1].set(1.0)
    for version, model in models_of.items():
        variables = models.init_variables(model, KEY, (1, 32, 32, 3))
        outputs = [
            model.apply(variables, x, start="stage1", stop="stage2")
            for x in (jnp.zeros_like(between), between)
        ]
        assert (outputs[0] == outputs[1]).all() == (version == "v1")


def test_batch_norm_of_keras_has_its_own_epsilon_and_momentum():
    """Without variance, (bias - mean) / sqrt(epsilon); 0.99 of the running mean is kept."""
    model = tiny_keras()
    variables = models.init_variables(model, KEY, (1, 32, 32, 3))
    stem, norm = variables["params"]["stem"]["conv"], variables["batch_stats"]["stem"]["bn"]
    stem["kernel"] = jnp.zeros_like(stem["kernel"])
    stem["bias"] = jnp.full_like(stem["bias"], 2.0)
    norm["var"] = jnp.zeros_like(norm["var"])
    x = jnp.zeros((2, 8, 8, 3))
    y = model.apply(variables, x, stop="stem")
    np.testing.assert_allclose(y, 2 / 1.001e-5**0.5, rtol=1e-5)
    _, updated = model.apply(variables, x, train=True, stop="stem", mutable=["batch_stats"])
    mean = updated["batch_stats"]["stem"]["bn"]["mean"]
    np.testing.assert_allclose(mean, 0.01 * 2, rtol=1e-5)


def test_option_a_subsamples_and_pads_both_sides():
    x = jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1) * jnp.array([1.0, 10.0])
    y = pad_shortcut(x, 4, 2)
    np.testing.assert_array_equal(y[0, :, :, 1], [[1, 3], [9, 11]])
    np.testing.assert_array_equal(y[0, :, :, 2], [[10, 30], [90, 110]])
    np.testing.assert_array_equal(y[0, :, :, ::3], jnp.zeros((2, 2, 2)))


def test_imagenet_stem_pools_around_every_second_pixel():
    model = ResNet((1,), "basic", 0, "imagenet", width=1)
    variables = models.init_variables(model, KEY)
    kernel = jnp.zeros((7, 7, 3, 1)).at[3, 3, 0, 0].set(1.0)
    variables["params"]["stem"]["conv"]["kernel"] = kernel
    x = jnp.zeros((1, 8, 8, 3)).at[0, :, :, 0].set(jnp.arange(64.0).reshape(8, 8))
    # The convolution keeps rows and columns 0, 2, 4, 6; the pool looks one of them further.
    y = model.apply(variables, x, stop="stem")
    np.testing.assert_allclose(y[0, :, :, 0], [[18, 22], [50, 54]], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "stem", "image_size", "boundary", "expected"),
    [
        ("resnet18", "cifar", 32, "stem", (2, 32, 32, 64)),
        ("resnet18", "cifar", 32, "stage4", (2, 4, 4, 512)),
        ("resnet18", None, 224, "stem", (2, 56, 56, 64)),
        ("resnet18", None, 224, "stage4", (2, 7, 7, 512)),
        ("resnet50", "cifar", 32, "stage1", (2, 32, 32, 256)),
        ("resnet50", None, 224, "pool", (2, 2048)),
        ("wide_resnet50_2", None, 64, "stage2", (2, 8, 8, 512)),
        ("resnext50_32x4d", None, 64, None, (2, 10)),
        ("resnet20_cifar", None, 32, "stage1", (2, 32, 32, 16)),
        ("resnet20_cifar_b", None, 32, "stage3", (2, 8, 8, 64)),
    ],
)
def test_shapes(name, stem, image_size, boundary, expected):
    model = models.create_model(name, 10, stem=stem)
    variables = jax.eval_shape(lambda: models.init_variables(model, KEY))
    images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
    features = jax.eval_shape(lambda v, x: model.apply(v, x, stop=boundary), variables, images)
    assert features.shape == expected
    assert features.shape[-1] == model.features(boundary or "head")


@pytest.mark.parametrize(
    ("name", "dtype"), [("basic", "float32"), ("basic", "bfloat16"), ("bottleneck", "float32")]
)
def test_parts_compose_to_the_whole_at_every_boundary(name, dtype):
    model = TINY[name].clone(dtype=jnp.dtype(dtype))
    variables = models.init_variables(TINY[name], KEY)
    whole = model.apply(variables, IMAGES)
    assert model.boundaries == ("stem", "stage1", "stage2", "pool", "head")
    for boundary in model.boundaries:
        features = model.apply(variables, IMAGES, stop=boundary)
        rest = model.apply(variables, features, start=boundary)
        np.testing.assert_array_equal(rest, whole, err_msg=boundary)


def test_no_head_ends_with_pooled_features():
    variables = models.init_variables(TINY["basic"], KEY)
    model = TINY["basic"].clone(num_classes=0)
    assert model.boundaries[-1] == "pool"
    pooled = model.apply(variables, IMAGES)
    features = model.apply(variables, IMAGES, stop="stage2")
    np.testing.assert_allclose(pooled, features.mean((1, 2)), rtol=1e-6)


def test_bfloat16_computes_in_it_and_keeps_the_rest_in_float32():
    model = TINY["basic"].clone(dtype=jnp.dtype("bfloat16"))
    variables = models.init_variables(model, KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert model.apply(variables, IMAGES, stop="stage1").dtype == jnp.bfloat16
    logits, updated = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype("float32")}
    exact = TINY["basic"].apply(variables, IMAGES, train=True, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(logits, exact, atol=0.1)


@pytest.mark.parametrize(("name", "last"), [("basic", "bn2"), ("bottleneck", "bn3")])
def test_zero_init_residual(name, last):
    model = ResNet((1,), name, 0, "cifar", width=4, zero_init_residual=True)
    variables = models.init_variables(model, KEY)
    params = trees.flatten(variables["params"])
    for leaf, value in params.items():
        if leaf.endswith("/scale"):
            np.testing.assert_array_equal(value, 0.0 if f"/{last}/" in leaf else 1.0, err_msg=leaf)
    if name == "basic":
        stem = model.apply(variables, IMAGES, stop="stem")
        np.testing.assert_array_equal(
            model.apply(variables, stem, start="stem", stop="stage1"), stem
        )


def test_initialisation():
    """Kernels have standard deviation sqrt(2 / fan_out); the head is uniform in ±1 / sqrt(64)."""
    params = models.init_variables(models.create_model("resnet20_cifar", 100), KEY)["params"]
    kernel = np.asarray(params["stage3"]["block2"]["conv2"]["kernel"])
    assert kernel.std() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert abs(kernel.mean()) < 0.001
    head = np.abs(np.asarray(params["head"]["kernel"]))
    assert head.max() <= 0.125
    assert head.mean() == pytest.approx(0.0625, rel=0.02)
    assert 0 < np.abs(params["head"]["bias"]).max() <= 0.125


def test_initialisation_does_not_depend_on_the_image_size():
    small = models.init_variables(TINY["basic"], KEY, (2, 8, 8, 3))
    large = models.init_variables(TINY["basic"], KEY)
    jax.tree.map(np.testing.assert_array_equal, small, large)


@pytest.mark.parametrize(
    ("shape", "dtype", "arguments", "message"),
    [
        ((16, 16, 3), "float32", {}, r"images have shape \(16, 16, 3\), expected \[B, H, W, 3\]"),
        ((2, 16, 16, 1), "float32", {}, r"expected \[B, H, W, 3\]"),
        ((2, 16, 16, 3), "uint8", {}, "images have dtype uint8, expected floating point"),
        ((2, 8, 8, 3), "float32", {"start": "stage2"}, r"after 'stage2' have .*\[B, H, W, 8\]"),
        ((2, 8, 8, 8), "float32", {"start": "pool"}, r"after 'pool' have .* expected \[B, 8\]"),
        ((2, 8, 8, 4), "float32", {"start": "stage9"}, "unknown boundary 'stage9'; nearest: stage"),
        ((2, 8, 8, 4), "float32", {"stop": "poll"}, "unknown boundary 'poll'; nearest: pool"),
        ((2, 8), "float32", {"start": "pool", "stop": "stem"}, "'pool' comes after stop 'stem'"),
    ],
)
def test_wrong_inputs(shape, dtype, arguments, message):
    variables = models.init_variables(TINY["basic"], KEY)
    with pytest.raises(errors.InputError, match=message):
        TINY["basic"].apply(variables, jnp.zeros(shape, dtype), **arguments)
