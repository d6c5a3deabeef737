"""The name maps, against names written out by hand."""

import jax
import numpy as np
import pytest

from tl_jax import models, trees
from tl_jax.errors import InputError
from tl_jax.porting import get_naming, name_map, recognise, vgg_names
from tl_jax.porting.naming import Entry, to_ours, to_theirs

CONV, DENSE = "OIHW->HWIO", "transpose"
# Of VGG-11 with BatchNorm: two stages of one convolution, one of two.
VGG_FEATURES = {
    "params/stage1/conv1/kernel": ("features.0.weight", CONV),
    "params/stage1/conv1/bias": ("features.0.bias", "none"),
    "params/stage1/bn1/scale": ("features.1.weight", "none"),
    "params/stage2/conv1/kernel": ("features.4.weight", CONV),
    "batch_stats/stage2/bn1/mean": ("features.5.running_mean", "none"),
    "params/stage3/conv1/kernel": ("features.8.weight", CONV),
    "batch_stats/stage3/bn1/var": ("features.9.running_var", "none"),
    "params/stage3/conv2/kernel": ("features.11.weight", CONV),
    "params/stage3/bn2/bias": ("features.12.bias", "none"),
}
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
    "timm": VGG_FEATURES
    | {
        "params/hidden/fc1/kernel": ("pre_logits.fc1.weight", "OI77->(77I)O"),
        "params/hidden/fc2/kernel": ("pre_logits.fc2.weight", "OI11->IO"),
        "params/hidden/fc2/bias": ("pre_logits.fc2.bias", "none"),
        "params/head/kernel": ("head.fc.weight", DENSE),
    },
    "tl_jax": {"params/stem/conv/kernel": ("params/stem/conv/kernel", "none")},
}


@pytest.mark.parametrize("naming", BY_HAND)
def test_names_written_out(naming):
    expected = {leaf: Entry(*entry) for leaf, entry in BY_HAND[naming].items()}
    assert name_map(get_naming(naming), expected) == expected


def test_names_of_vgg_written_out():
    expected = VGG_FEATURES | {
        "params/hidden/fc1/kernel": ("classifier.0.weight", "O(I77)->(77I)O"),
        "params/hidden/fc2/kernel": ("classifier.3.weight", DENSE),
        "params/hidden/fc2/bias": ("classifier.3.bias", "none"),
        "params/head/kernel": ("classifier.6.weight", DENSE),
    }
    entries = {leaf: Entry(*entry) for leaf, entry in expected.items()}
    assert name_map(get_naming("torchvision", entries), entries) == entries
    wrapped = name_map(get_naming("huggingface", entries), entries)
    assert wrapped["params/stage2/conv1/kernel"] == Entry("timm_model.features.4.weight", CONV)
    assert wrapped["params/head/kernel"] == Entry("timm_model.head.fc.weight", DENSE)


@pytest.mark.parametrize("name", sorted(set(models.list_models()) - {"small_cnn"}))
def test_every_leaf_of_every_model_has_one_source(name):
    model = models.create_model(name, 5)
    shapes = jax.eval_shape(
        lambda key: models.init_variables(model, key, (1, 32, 32, 3)), jax.random.key(0)
    )
    leaves = trees.flatten(shapes)
    namings = set(BY_HAND)
    if name.startswith("vgg"):
        namings -= {"cifar", "huggingface_backbone"}
    if name.startswith("keras"):
        namings = {"tl_jax"}  # Keras' own: test_keras_names.py
    for naming in namings:
        scheme = get_naming(naming, leaves)
        sources = [entry.source for entry in name_map(scheme, leaves).values()]
        assert len(set(sources)) == len(leaves), naming


def test_a_naming_of_two_families_is_that_of_the_leaves():
    vgg = ["params/stage1/conv1/kernel", "params/head/kernel"]
    assert get_naming("torchvision", vgg).network == "VGGs"
    assert get_naming("torchvision", ["params/stem/conv/kernel"]).network == "ResNets"
    assert get_naming("timm", ["params/stem/conv/kernel"]).name == "torchvision"  # an alias


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
@pytest.mark.parametrize("norm", ["", "_bn"])
def test_layers_of_vgg_are_counted_as_torchvision_counts_them(name, norm):
    """Written out from torchvision's `cfgs`: one or two modules after each convolution, one after a stage."""
    cfgs = {
        "vgg11": [1, 1, 2, 2, 2],
        "vgg13": [2, 2, 2, 2, 2],
        "vgg16": [2, 2, 3, 3, 3],
        "vgg19": [2, 2, 4, 4, 4],
    }
    expected, count = {}, 0
    for stage, size in enumerate(cfgs[name], 1):
        for number in range(1, size + 1):
            expected[f"stage{stage}/conv{number}"] = count
            count += 1
            if norm:
                expected[f"stage{stage}/bn{number}"] = count
                count += 1
            count += 1
        count += 1
    model = models.create_model(name + norm, 5)
    shapes = jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0)))
    modules = {leaf.rpartition("/")[0] for leaf in trees.flatten(shapes["params"])}
    assert vgg_names.positions(modules) == expected


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
        (["params/encoder/Dense_0/kernel"], "tl_jax"),
        (["features.0.weight", "classifier.6.weight"], "torchvision"),
        (["features.0.weight", "features.1.running_mean"], "torchvision"),
        (["features.0.weight", "pre_logits.fc1.weight"], "timm"),
        (["timm_model.features.0.weight", "timm_model.head.fc.weight"], "huggingface"),
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
    # A map of 7x7 with two channels, flattened: channel, row, column; ours row, column, channel.
    flat = np.arange(3 * 2 * 49).reshape(3, 98)
    ours = to_ours(flat, "O(I77)->(77I)O")
    assert ours.shape == (98, 3)
    assert ours[(4 * 7 + 5) * 2 + 1, 2] == flat[2, 49 + 4 * 7 + 5]
    np.testing.assert_array_equal(to_ours(flat.reshape(3, 2, 7, 7), "OI77->(77I)O"), ours)
    for layout, theirs in [
        ("O(I77)->(77I)O", flat),
        ("OI77->(77I)O", flat.reshape(3, 2, 7, 7)),
        ("OI11->IO", flat.reshape(3, 98, 1, 1)),
    ]:
        np.testing.assert_array_equal(to_theirs(to_ours(theirs, layout), layout), theirs)
        wrong = np.zeros((3, 5) if theirs.ndim == 2 else (3, 5, 2, 2))
        assert to_ours(wrong, layout) is wrong  # for the message about its shape
    dense = np.arange(6).reshape(2, 3)
    assert to_ours(dense, "transpose")[2, 1] == dense[1, 2]
    assert to_theirs(to_ours(dense, "transpose"), "transpose").flags.c_contiguous
