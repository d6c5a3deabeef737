"""The name maps, against names written out by hand."""

import jax
import numpy as np
import pytest

from tl_jax import models, trees
from tl_jax.errors import InputError
from tl_jax.porting import get_naming, name_map, recognise
from tl_jax.porting.naming import Entry, to_ours, to_theirs

CONV, DENSE = "OIHW->HWIO", "transpose"
BY_HAND = {
    "torchvision": {
        "params/stem/conv/kernel": ("conv1.weight", CONV),
        "params/stem/bn/scale": ("bn1.weight", "none"),
        "batch_stats/stem/bn/mean": ("bn1.running_mean", "none"),
        "params/stage1/block0/conv1/kernel": ("layer1.0.conv1.weight", CONV),
        "params/stage3/block22/bn3/bias": ("layer3.22.bn3.bias", "none"),
        "params/stage4/block0/downsample/conv/kernel": ("layer4.0.downsample.0.weight", CONV),
        "batch_stats/stage4/block0/downsample/bn/var": (
            "layer4.0.downsample.1.running_var",
            "none",
        ),
        "params/head/kernel": ("fc.weight", DENSE),
        "params/head/bias": ("fc.bias", "none"),
    },
    "cifar": {
        "params/stem/conv/kernel": ("conv1.weight", CONV),
        "params/stage3/block2/conv2/kernel": ("layer3.2.conv2.weight", CONV),
        "params/stage2/block0/downsample/conv/kernel": ("layer2.0.shortcut.0.weight", CONV),
        "params/stage2/block0/downsample/bn/scale": ("layer2.0.shortcut.1.weight", "none"),
        "params/head/kernel": ("linear.weight", DENSE),
    },
    "huggingface": {
        "params/stem/conv/kernel": ("resnet.embedder.embedder.convolution.weight", CONV),
        "batch_stats/stem/bn/var": ("resnet.embedder.embedder.normalization.running_var", "none"),
        "params/stage1/block0/conv1/kernel": (
            "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
            CONV,
        ),
        "params/stage4/block2/bn3/scale": (
            "resnet.encoder.stages.3.layers.2.layer.2.normalization.weight",
            "none",
        ),
        "params/stage2/block0/downsample/conv/kernel": (
            "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight",
            CONV,
        ),
        "params/stage2/block0/downsample/bn/bias": (
            "resnet.encoder.stages.1.layers.0.shortcut.normalization.bias",
            "none",
        ),
        "params/head/kernel": ("classifier.1.weight", DENSE),
    },
    "huggingface_backbone": {
        "params/stem/conv/kernel": ("embedder.embedder.convolution.weight", CONV),
        "params/stage1/block1/conv2/kernel": (
            "encoder.stages.0.layers.1.layer.1.convolution.weight",
            CONV,
        ),
    },
    "tl_jax": {"params/stem/conv/kernel": ("params/stem/conv/kernel", "none")},
}


@pytest.mark.parametrize("naming", BY_HAND)
def test_names_written_out(naming):
    expected = {leaf: Entry(*entry) for leaf, entry in BY_HAND[naming].items()}
    assert name_map(get_naming(naming), expected) == expected


@pytest.mark.parametrize("name", models.list_models())
def test_every_leaf_of_every_model_has_one_source(name):
    model = models.create_model(name, 5)
    shapes = jax.eval_shape(
        lambda key: models.init_variables(model, key, (1, 32, 32, 3)), jax.random.key(0)
    )
    leaves = trees.flatten(shapes)
    for naming in BY_HAND:
        sources = [entry.source for entry in name_map(get_naming(naming), leaves).values()]
        assert len(set(sources)) == len(leaves), naming


def test_leaves_without_a_rule_are_all_named():
    with pytest.raises(InputError, match="params/head/gain, params/neck/conv/kernel"):
        name_map(get_naming("cifar"), ["params/neck/conv/kernel", "params/head/gain"])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["conv1.weight", "fc.weight"], "torchvision"),
        (["conv1.weight", "layer1.0.bn1.weight"], "torchvision"),
        (["conv1.weight", "linear.weight"], "cifar"),
        (["conv1.weight", "layer2.0.shortcut.0.weight"], "cifar"),
        (["resnet.embedder.embedder.convolution.weight"], "huggingface"),
        (["embedder.embedder.convolution.weight"], "huggingface_backbone"),
        (["params/stem/conv/kernel"], "tl_jax"),
    ],
)
def test_recognises(names, expected):
    assert recognise(names).name == expected


def test_an_unknown_naming_is_refused_with_what_was_seen():
    with pytest.raises(InputError, match=r"not recognised.*'conv1.0.weight'.*torchvision"):
        recognise(["conv1.0.weight", "conv1.1.weight"])
    with pytest.raises(InputError, match="unknown naming 'torchvison'; nearest: torchvision"):
        get_naming("torchvison")


def test_layouts():
    # A 1x2 kernel from 3 to 4 channels: out, in, height, width.
    oihw = np.arange(24).reshape(4, 3, 1, 2)
    hwio = to_ours(oihw, "OIHW->HWIO")
    assert hwio.shape == (1, 2, 3, 4)
    assert hwio[0, 1, 2, 3] == oihw[3, 2, 0, 1]
    np.testing.assert_array_equal(to_theirs(hwio, "OIHW->HWIO"), oihw)
    dense = np.arange(6).reshape(2, 3)
    assert to_ours(dense, "transpose")[2, 1] == dense[1, 2]
    assert to_theirs(to_ours(dense, "transpose"), "transpose").flags.c_contiguous
