"""The registered models: their parameter counts, and the messages about wrong arguments."""

import jax
import jax.numpy as jnp
import pytest

from tl_jax import errors, models, trees

# Published by torchvision, for 1000 classes (`num_params` of the weights of each model).
IMAGENET_COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
}

# For 10 classes; 20 layers by hand: stem 432; stages 13_824, 50_688 and 202_752; BatchNorm
# 2 * (7 * 16 + 6 * 32 + 6 * 64) = 1_376; head 650. Six more layers are one block more per stage:
# 18 * (16² + 32² + 64²) + 4 * (16 + 32 + 64) = 97_216. Option B adds two projections:
# 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64 = 2_752.
CIFAR_COUNTS = {
    "resnet20_cifar": 269_722,
    "resnet32_cifar": 464_154,
    "resnet44_cifar": 658_586,
    "resnet56_cifar": 853_018,
    "resnet110_cifar": 1_727_962,
    "resnet20_cifar_b": 272_474,
    "resnet32_cifar_b": 466_906,
    "resnet44_cifar_b": 661_338,
    "resnet56_cifar_b": 855_770,
    "resnet110_cifar_b": 1_730_714,
}


# Published by torchvision, for 1000 classes.
VGG_COUNTS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


# For 10 classes, 32 px, by hand: 3 * 9 * 32 + 32, 32 * 9 * 64 + 64, 8 * 8 * 64 * 64 + 64, 64 * 10 + 10.
SMALL_COUNTS = {"small_cnn": 282_250}

# Published by Keras, for 1000 classes: "Trainable params" of `summary()`.
KERAS_COUNTS = {
    "keras_resnet50": 25_583_592,
    "keras_resnet101": 44_601_832,
    "keras_resnet152": 60_268_520,
}


def shapes_of(model):
    return jax.eval_shape(lambda key: models.init_variables(model, key), jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [(name, 1000, count) for name, count in (IMAGENET_COUNTS | VGG_COUNTS | KERAS_COUNTS).items()]
    + [(name, 10, count) for name, count in (CIFAR_COUNTS | SMALL_COUNTS).items()],
)
def test_parameter_count(name, num_classes, expected):
    assert trees.count(shapes_of(models.create_model(name, num_classes))["params"]) == expected


def test_every_model_has_a_golden_count():
    golden = IMAGENET_COUNTS | CIFAR_COUNTS | VGG_COUNTS | KERAS_COUNTS | SMALL_COUNTS
    assert set(models.list_models()) == set(golden)


def test_leaf_names():
    shapes = shapes_of(models.create_model("resnet50", 7))
    params = {name: leaf.shape for name, leaf in trees.flatten(shapes["params"]).items()}
    assert params["stem/conv/kernel"] == (7, 7, 3, 64)
    assert params["stem/bn/scale"] == (64,)
    assert params["stage1/block0/conv1/kernel"] == (1, 1, 64, 64)
    assert params["stage2/block0/conv2/kernel"] == (3, 3, 128, 128)
    assert params["stage2/block0/downsample/conv/kernel"] == (1, 1, 256, 512)
    assert params["stage2/block0/downsample/bn/bias"] == (512,)
    assert params["stage4/block2/conv3/kernel"] == (1, 1, 512, 2048)
    assert params["head/kernel"] == (2048, 7)
    assert params["head/bias"] == (7,)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    norms = {name.rsplit("/", 1)[0] for name in trees.flatten(shapes["batch_stats"])}
    assert norms == {name.removesuffix("/scale") for name in params if name.endswith("/scale")}


def test_grouped_kernels_and_option_a():
    grouped = trees.flatten(shapes_of(models.create_model("resnext50_32x4d", 7))["params"])
    assert grouped["stage1/block0/conv2/kernel"].shape == (3, 3, 4, 128)
    padded = trees.flatten(shapes_of(models.create_model("resnet20_cifar", 10))["params"])
    assert not [name for name in padded if "downsample" in name]


def test_no_head():
    assert "head" not in shapes_of(models.create_model("resnet18", 0))["params"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5O"}, "unknown model 'resnet5O'; nearest: resnet50"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"stem": "imagnet"}, "unknown stem of resnet18 'imagnet'; nearest: imagenet"),
        ({"name": "resnet20_cifar", "stem": "imagenet"}, "known: cifar"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"dtype": "bf16"}, "known: bfloat16, float32"),
        (
            {"classifier": "hidden"},
            "classifier='hidden': resnet18 has no such option; its options: ",
        ),
        (
            {"name": "vgg16", "stem": "cifar"},
            "stem='cifar': vgg16 has no such option; its options: ",
        ),
        (
            {"name": "vgg16", "classifier": "pool"},
            "unknown classifier of vgg16 'pool'; nearest: pooled",
        ),
        ({"dropout": 1.0}, r"dropout is 1.0, expected a number in \[0, 1\)"),
        ({"name": "vgg11", "dropout": -0.5}, "dropout is -0.5"),
        ({"batch_norm_rows": -1}, "batch_norm_rows is -1, expected a positive number, or 0"),
        ({"name": "small_cnn", "batch_norm_rows": 8}, "batch_norm_rows=8: small_cnn has no such"),
        ({"name": "vgg11", "batch_norm_rows": 8}, "batch_norm_rows=8: vgg11 has no such option"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(errors.InputError, match=message):
        models.create_model(**({"name": "resnet18", "num_classes": 10} | arguments))
