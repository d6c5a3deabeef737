"""The name maps of Keras by hand, and what of a file is used, reversed and waived."""

import dataclasses

import jax
import numpy as np
import pytest
from fabricate import random_variables

from tl_jax import models, porting, trees
from tl_jax.errors import InputError
from tl_jax.models import registry
from tl_jax.porting import get_naming, name_map, recognise
from tl_jax.porting.naming import Entry

REVERSED = "BGR->RGB"
RESNET = {
    "params/stem/conv/kernel": ("conv1_conv/kernel", REVERSED),
    "params/stem/conv/bias": ("conv1_conv/bias", "none"),
    "params/stem/bn/scale": ("conv1_bn/gamma", "none"),
    "batch_stats/stem/bn/mean": ("conv1_bn/moving_mean", "none"),
    "params/stage1/block0/conv1/kernel": ("conv2_block1_1_conv/kernel", "none"),
    "params/stage1/block0/downsample/conv/bias": ("conv2_block1_0_conv/bias", "none"),
    "batch_stats/stage1/block0/downsample/bn/var": ("conv2_block1_0_bn/moving_variance", "none"),
    "params/stage3/block22/bn3/bias": ("conv4_block23_3_bn/beta", "none"),
    "params/head/kernel": ("predictions/kernel", "none"),
}
VGG = {
    "params/stage1/conv1/kernel": ("block1_conv1/kernel", REVERSED),
    "params/stage1/conv1/bias": ("block1_conv1/bias", "none"),
    "params/stage5/conv3/kernel": ("block5_conv3/kernel", "none"),
    "params/hidden/fc1/kernel": ("fc1/kernel", "none"),
    "params/hidden/fc2/bias": ("fc2/bias", "none"),
    "params/head/bias": ("predictions/bias", "none"),
}
# Of one stage of one block, then one of two: the shortcut is counted before the third convolution.
COUNTED_RESNET = {
    "params/stem/conv/kernel": ("conv2d/kernel", REVERSED),
    "params/stem/bn/scale": ("batch_normalization/gamma", "none"),
    "params/stage1/block0/conv1/kernel": ("conv2d_1/kernel", "none"),
    "params/stage1/block0/conv2/kernel": ("conv2d_2/kernel", "none"),
    "params/stage1/block0/downsample/conv/kernel": ("conv2d_3/kernel", "none"),
    "params/stage1/block0/conv3/kernel": ("conv2d_4/kernel", "none"),
    "params/stage2/block0/conv1/kernel": ("conv2d_5/kernel", "none"),
    "params/stage2/block1/conv1/kernel": ("conv2d_6/kernel", "none"),
    "params/stage1/block0/bn3/scale": ("batch_normalization_1/gamma", "none"),
}
COUNTED_VGG = {
    "params/stage1/conv1/kernel": ("conv2d/kernel", REVERSED),
    "params/stage1/conv2/kernel": ("conv2d_1/kernel", "none"),
    "params/stage2/conv1/kernel": ("conv2d_2/kernel", "none"),
    "params/hidden/fc1/kernel": ("dense/kernel", "none"),
    "params/hidden/fc2/kernel": ("dense_1/kernel", "none"),
}


@pytest.mark.parametrize(
    ("naming", "by_hand"),
    [
        ("keras", RESNET),
        ("keras", VGG),
        ("keras_counted", COUNTED_RESNET),
        ("keras_counted", COUNTED_VGG),
    ],
)
def test_names_written_out(naming, by_hand):
    expected = {leaf: Entry(*entry) for leaf, entry in by_hand.items()}
    assert name_map(get_naming(naming, expected), expected) == expected


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "keras_resnet50", "keras_resnet152"])
def test_every_leaf_has_one_source(name):
    shapes = jax.eval_shape(
        lambda: models.init_variables(models.create_model(name, 5), jax.random.key(0))
    )
    leaves = trees.flatten(shapes)
    tensors = {f"dense{number}/kernel": np.zeros((1, 1)) for number in ("", "_1", "_2")}
    for naming in ("keras", "keras_counted"):
        entries = name_map(get_naming(naming, leaves), leaves, tensors=tensors)
        assert len({entry.source for entry in entries.values()}) == len(leaves), naming


@pytest.mark.parametrize(
    ("names", "naming", "network"),
    [
        (["block1_conv1/kernel", "top/kernel"], "keras", "VGGs"),
        (["conv1_conv/kernel", "conv2_block1_0_bn/gamma"], "keras", "ResNets v1"),
        (["conv2d/kernel", "dense/kernel"], "keras_counted", "VGGs"),
        (["conv2d/kernel", "batch_normalization/gamma"], "keras_counted", "ResNets v1"),
    ],
)
def test_recognises(names, naming, network):
    scheme = recognise(names)
    assert (scheme.name, scheme.network) == (naming, network)


def test_resnet_v2_is_no_resnet_v1():
    with pytest.raises(InputError, match=r"not recognised.*conv2_block1_0_conv/kernel"):
        recognise(
            ["conv1_conv/kernel", "conv2_block1_preact_bn/gamma", "conv2_block1_0_conv/kernel"]
        )


def small(name, num_classes=4, **options):
    """Returns a network of one block (VGG: convolution) a stage and its variables."""
    architecture = registry.ARCHITECTURES[name]
    changes = {"stage_sizes": (1,) * len(architecture.stage_sizes), "width": 4}
    changes |= {"hidden_width": 16} if name == "vgg16" else {}
    model = dataclasses.replace(architecture, **changes).make(num_classes, **options)
    return model, random_variables(model)


def keras_tensors(variables, **others):
    """Returns a file's tensors; `top=array` for "top/kernel" in the place of "predictions"."""
    tensors = porting.export_state_dict(variables, naming="keras")
    return tensors | {f"{name}/kernel": array for name, array in others.items()}


def renamed(tensors, **names):
    return {
        "/".join(
            [names.get(name.partition("/")[0], name.partition("/")[0]), name.partition("/")[2]]
        ): array
        for name, array in tensors.items()
    }


def rules(report):
    return {row.source: row.rule for row in report.entries if row.status == "waived"}


@pytest.mark.parametrize("name", ["vgg16", "keras_resnet50"])
def test_out_and_back_is_the_identity(name):
    _, variables = small(name)
    ported, report = porting.port_state_dict(keras_tensors(variables), variables)
    jax.tree.map(np.testing.assert_array_equal, ported, variables)
    assert (report.naming, report.channel_order) == ("keras", "bgr")
    assert report.to_json()["channel_order"] == "bgr"


@pytest.mark.parametrize(
    ("name", "layer", "leaf"),
    [
        ("vgg16", "block1_conv1", ("stage1", "conv1")),
        ("keras_resnet50", "conv1_conv", ("stem", "conv")),
    ],
)
def test_channels_of_the_first_kernel_alone_are_reversed(name, layer, leaf):
    _, variables = small(name)
    tensors = keras_tensors(variables)
    marked = np.zeros_like(tensors[f"{layer}/kernel"])
    marked[:, :, 0] = 1  # blue in the file
    tensors[f"{layer}/kernel"] = marked
    for order, channel in ((None, 2), ("bgr", 2), ("rgb", 0)):
        ported, report = porting.port_state_dict(tensors, variables, channel_order=order)
        kernel = np.asarray(ported["params"][leaf[0]][leaf[1]]["kernel"])
        assert kernel[:, :, channel].all() and kernel.sum() == marked.sum()
        reversed_rows = [row.target for row in report.entries if REVERSED in row.layout]
        expected = [] if order == "rgb" else [f"params/{leaf[0]}/{leaf[1]}/kernel"]
        assert reversed_rows == expected
        assert report.channel_order == (order or "bgr")


def test_weights_of_pytorch_may_take_bgr_too():
    _, variables = small("vgg16")
    tensors = porting.export_state_dict(variables, naming="torchvision")
    ported, report = porting.port_state_dict(tensors, variables, channel_order="bgr")
    ours = variables["params"]["stage1"]["conv1"]["kernel"]
    np.testing.assert_array_equal(ported["params"]["stage1"]["conv1"]["kernel"], ours[:, :, ::-1])
    assert report.channel_order == "bgr"
    row = next(row for row in report.entries if row.target == "params/stage1/conv1/kernel")
    assert row.layout == "OIHW->HWIO, BGR->RGB"
    own = porting.export_state_dict(variables, naming="tl_jax")
    with pytest.raises(
        InputError, match="channel_order=bgr: weights named as in 'tl_jax' take rgb"
    ):
        porting.port_state_dict(own, variables, channel_order="bgr")
    with pytest.raises(InputError, match="unknown order of channels 'gbr'; nearest: rgb, bgr"):
        porting.port_state_dict(own, variables, channel_order="gbr")


@pytest.mark.parametrize("layer", ["probs", "dense", "my_classes"])
def test_a_head_of_any_name_is_kept_where_it_is_the_only_dense_layer(layer):
    for name, options in (
        ("keras_resnet50", {}),
        ("vgg16", {}),
        ("vgg16", {"classifier": "pooled"}),
    ):
        _, variables = small(name, **options)
        tensors = renamed(keras_tensors(variables), predictions=layer)
        ported, _ = porting.port_state_dict(tensors, variables, head="keep")
        jax.tree.map(np.testing.assert_array_equal, ported, variables)


def test_a_head_of_several_layers_is_reset_whole_and_kept_never():
    _, variables = small("keras_resnet50")
    tensors = renamed(keras_tensors(variables), predictions="dense_1")
    tensors |= {"dense/kernel": np.ones((128, 8), np.float32), "dense/bias": np.ones(8, np.float32)}
    tensors |= {"bn_top/gamma": np.ones(8, np.float32)}
    _, report = porting.port_state_dict(tensors, variables, head="reset")
    assert set(rules(report)) == {
        "bn_top/gamma",
        *(f"{layer}/{leaf}" for layer in ("dense", "dense_1") for leaf in ("kernel", "bias")),
    }
    assert set(rules(report).values()) == {"head=reset: the head starts fresh"}
    with pytest.raises(
        InputError, match=r"(?s)missing: predictions/kernel.*not expected: bn_top/gamma"
    ) as caught:
        porting.port_state_dict(tensors, variables, head="keep")
    assert "a head is kept where it is the one dense layer after the backbone; head=reset" in str(
        caught.value
    )


def test_weights_of_another_resnet_name_the_networks_of_keras():
    """ResNet-50 of torchvision has no biases."""
    _, variables = small("keras_resnet50")
    _, other = small("resnet50")
    with pytest.raises(InputError, match="are keras_resnet50, keras_resnet101 and") as caught:
        porting.port_state_dict(keras_tensors(variables), other)
    assert "not expected: conv1_conv/bias (4,)" in str(caught.value)


def test_other_classes_are_told():
    _, variables = small("keras_resnet50", 4)
    _, three = small("keras_resnet50", 3)
    with pytest.raises(
        InputError, match="other classes: predictions/kernel has 4 classes, the model has 3"
    ):
        porting.port_state_dict(keras_tensors(variables), three, head="keep")


def test_pooled_vgg_waives_the_hidden_layers_of_a_file_with_top():
    _, variables = small("vgg16")
    _, pooled = small("vgg16", classifier="pooled")
    _, report = porting.port_state_dict(keras_tensors(variables), pooled, head="reset")
    hidden = "model.classifier=pooled: the network has no hidden layers"
    head = "head=reset: the head starts fresh"
    assert rules(report) == {
        **{f"fc{number}/{leaf}": hidden for number in (1, 2) for leaf in ("kernel", "bias")},
        "predictions/kernel": head,
        "predictions/bias": head,
    }


def test_a_file_without_top_fits_the_pooled_classifier():
    _, variables = small("vgg16", 0, classifier="pooled")
    _, pooled = small("vgg16", classifier="pooled")
    _, hidden = small("vgg16")
    _, report = porting.port_state_dict(keras_tensors(variables), pooled, head="reset")
    assert report.counts() == {"filled": 10, "reset": 2, "waived": 0}
    with pytest.raises(InputError, match=r"missing: fc1/kernel") as caught:
        porting.port_state_dict(keras_tensors(variables), hidden, head="reset")
    assert str(caught.value).endswith("(notop) fits model.classifier=pooled")


def test_a_network_without_head_waives_every_layer_above_the_backbone():
    _, variables = small("keras_resnet50")
    _, headless = small("keras_resnet50", 0)
    tensors = renamed(keras_tensors(variables), predictions="mine")
    _, report = porting.port_state_dict(tensors, headless)
    assert rules(report) == dict.fromkeys(
        ("mine/kernel", "mine/bias"), "the model has no head (num_classes=0)"
    )


def test_state_that_is_no_weight_is_waived_by_name_and_backbones_are_not():
    _, variables = small("keras_resnet50")
    state = {
        "optimizer/vars/3": "variable of Keras' optimizer",
        "optimizer_weights/sgd/iter:0": "variable of Keras' optimizer",
        "layers/dropout/seed_generator/vars/0": "state of a random generator of Keras",
        "metrics/mean/vars/0": "state of a metric of Keras",
    }
    tensors = keras_tensors(variables) | {name: np.zeros(1, np.int32) for name in state}
    _, report = porting.port_state_dict(tensors, variables)
    assert rules(report) == state
    tensors["conv9_block1_1_conv/kernel"] = np.zeros((1, 1, 2, 2), np.float32)
    with pytest.raises(InputError, match="not expected: conv9_block1_1_conv/kernel"):
        porting.port_state_dict(tensors, variables, head="reset")


def test_counted_layers():
    """A file without names: the last dense layer is the head."""
    _, variables = small("vgg16")
    leaves = trees.flatten(variables)
    tensors = {f"dense{number}/kernel": np.zeros((1, 1)) for number in ("", "_1", "_2")}
    entries = name_map(get_naming("keras_counted", leaves), leaves, tensors=tensors)
    assert entries["params/head/kernel"].source == "dense_2/kernel"
    file = {
        entry.source: np.asarray(leaves[leaf])[..., ::-1, :]
        if REVERSED in entry.layout
        else leaves[leaf]
        for leaf, entry in entries.items()
    }
    ported, report = porting.port_state_dict(file, variables)
    jax.tree.map(np.testing.assert_array_equal, ported, variables)
    _, pooled = small("vgg16", classifier="pooled")
    _, report = porting.port_state_dict(file, pooled, head="reset")
    assert report.naming == "keras_counted"
    assert [rules(report)[f"{name}/bias"] for name in ("dense", "dense_2")] == [
        "model.classifier=pooled: the network has no hidden layers",
        "head=reset: the head starts fresh",
    ]
