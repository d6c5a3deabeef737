"""The names that Keras gives to the tensors of its VGGs and ResNets.

Layouts are ours: kernels are [H, W, I, O], flattened maps in the order H, W, C. The networks take BGR, so
the input channels of the first kernel are reversed.

Source: keras 3.15.1 `src/applications/vgg16.py`, `vgg19.py`, `resnet.py`. A file of Keras 3 without names of layers
counts them by class, in the order of `model.layers` (`src/models/functional.py`, `map_graph`): in the first
block of a stage, the shortcut's convolution comes between the second and the third.
"""

import functools
import re
from collections.abc import Iterable, Mapping

import numpy as np

from tl_jax.porting.naming import Leaves, Naming, Rule

_CONV: Leaves = {"kernel": ("kernel", "none"), "bias": ("bias", "none")}
_NORM: Leaves = {
    "scale": ("gamma", "none"),
    "bias": ("beta", "none"),
    "mean": ("moving_mean", "none"),
    "var": ("moving_variance", "none"),
}
_WAIVED = {
    r"(optimizer|optimizer_weights)/.*": "variable of Keras' optimizer",
    r"(.*/)?seed_generator.*": "state of a random generator of Keras",
    r"(_*(compile_)?metrics|_*loss_tracker)(/.*)?": "state of a metric of Keras",
}
_HIDDEN_ABSENT = "model.classifier=pooled: the network has no hidden layers"
_HINTS = {
    r"missing: (fc1|dense)/kernel, for params/hidden/.*": "a file without the hidden layers of VGG (notop) "
    "fits model.classifier=pooled",
    r"missing: .*, for params/head/kernel.*": "a head is kept where it is the one dense layer after the "
    "backbone; head=reset starts a fresh one and leaves out all that follows the backbone in the file",
    r"not expected: (conv1_conv|conv2d)/bias .*": "ResNets of Keras have biases, and stride elsewhere: "
    "their networks are keras_resnet50, keras_resnet101 and keras_resnet152 (model.name)",
}
_BLOCK = r"stage(?P<stage>\d+)/block(?P<block>\d+)"


def named_head(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the layer that is the head: "predictions" or "probs", else the only dense one besides fc1 and fc2.

    Args:
        tensors: {LAYER/VARIABLE: array} of a file.

    Example:
        >>> named_head({"fc1/kernel": np.zeros((8, 4)), "top/kernel": np.zeros((4, 2))})
        'top'
    """
    dense = _dense_layers(tensors) - {"fc1", "fc2"}
    known = dense & {"predictions", "probs"} or dense
    return known.pop() if len(known) == 1 else "predictions"


def counted_head(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the layer that is the head: the last of those called "dense", "dense_1" and so on.

    Args:
        tensors: {LAYER/VARIABLE: array} of a file.
    """
    counted = [re.fullmatch(r"dense(?:_(\d+))?", layer) for layer in _dense_layers(tensors)]
    last = max((int(layer[1] or 0) for layer in counted if layer), default=0)
    return f"dense{_suffix(last)}"


def _dense_layers(tensors: Mapping[str, np.ndarray]) -> set[str]:
    return {
        name.removesuffix("/kernel")
        for name, array in tensors.items()
        if name.endswith("/kernel") and np.ndim(array) == 2
    }


def counts(modules: Iterable[str]) -> dict[str, str]:
    """Returns the suffix of each of our modules where layers of a class are counted, "" for the first.

    Example:
        >>> counts(["stage1/conv1", "stage2/conv1", "stage1/conv2"])
        {'stage1/conv1': '', 'stage1/conv2': '_1', 'stage2/conv1': '_2'}
    """
    suffixes: dict[str, str] = {}
    modules = set(modules)
    for kind in ("conv", "bn"):
        of_kind = [module for module in modules if _place(module, kind)]
        for number, module in enumerate(sorted(of_kind, key=lambda name: _place(name, kind))):
            suffixes[module] = _suffix(number)
    return suffixes


def _place(module: str, kind: str) -> tuple[float, ...]:
    """Returns where a module stands among those of its kind, "conv" or "bn"; () for others."""
    if module == f"stem/{kind}":
        return (0,)
    found = re.fullmatch(rf"{_BLOCK}/(?:{kind}(?P<number>\d+)|downsample/{kind})", module)
    if found:
        return int(found["stage"]), int(found["block"]), float(found["number"] or 2.5)
    found = re.fullmatch(rf"stage(\d+)/{kind}(\d+)", module)
    return (int(found[1]), int(found[2])) if found else ()


def _suffix(number: int) -> str:
    return f"_{number}" if number else ""


def _resnet_rules(
    conv: str, norm: str, stem: tuple[str, str], shortcut: tuple[str, str]
) -> tuple[Rule, ...]:
    return (
        Rule(r"stem/conv", stem[0], _CONV),
        Rule(r"stem/bn", stem[1], _NORM),
        Rule(_BLOCK + r"/conv(?P<conv>\d+)", conv, _CONV),
        Rule(_BLOCK + r"/bn(?P<conv>\d+)", norm, _NORM),
        Rule(_BLOCK + r"/downsample/conv", shortcut[0], _CONV),
        Rule(_BLOCK + r"/downsample/bn", shortcut[1], _NORM),
        Rule(r"head", "{head}", _CONV),
    )


def _vgg_rules(conv: str, hidden: tuple[str, str]) -> tuple[Rule, ...]:
    return (
        Rule(r"stage(?P<stage>\d+)/conv(?P<conv>\d+)", conv, _CONV),
        Rule(r"hidden/fc1", hidden[0], _CONV),
        Rule(r"hidden/fc2", hidden[1], _CONV),
        Rule(r"head", "{head}", _CONV),
    )


_NAMED_BLOCK = "conv{stage1}_block{block1}_"
_COUNTED = ("conv2d{position}", "batch_normalization{position}")
_COUNTED_LAYERS = r"(conv2d|batch_normalization)(_\d+)?/.*"
_keras_naming = functools.partial(
    Naming, waived=_WAIVED, separator="/", channel_order="bgr", hints=_HINTS
)

# Looked at in this order: the first whose marker occurs is the naming. ResNet v2, without BatchNorm in its
# shortcuts, is not among them.
NAMINGS: tuple[Naming, ...] = (
    _keras_naming(
        "keras",
        "ResNets v1",
        r"conv2_block1_0_bn/gamma",
        _resnet_rules(
            _NAMED_BLOCK + "{conv}_conv",
            _NAMED_BLOCK + "{conv}_bn",
            ("conv1_conv", "conv1_bn"),
            (_NAMED_BLOCK + "0_conv", _NAMED_BLOCK + "0_bn"),
        ),
        image="stem/conv",
        head=named_head,
        backbone=r"(conv1|conv\d+_block\d+_\d)_(conv|bn)/.*",
    ),
    _keras_naming(
        "keras",
        "VGGs",
        r"block1_conv1/kernel",
        _vgg_rules("block{stage}_conv{conv}", ("fc1", "fc2")),
        waived_without={"hidden": (r"fc[12]/(kernel|bias)", _HIDDEN_ABSENT)},
        image="stage1/conv1",
        head=named_head,
        backbone=r"(block\d+_conv\d+|fc[12])/.*",
    ),
    _keras_naming(
        "keras_counted",
        "ResNets v1",
        r"batch_normalization/gamma",
        _resnet_rules(*_COUNTED, _COUNTED, _COUNTED),
        positions=counts,
        image="stem/conv",
        head=counted_head,
        backbone=_COUNTED_LAYERS,
    ),
    _keras_naming(
        "keras_counted",
        "VGGs",
        r"conv2d/kernel",
        _vgg_rules(_COUNTED[0], ("dense", "dense_1")),
        waived_without={"hidden": (r"dense(_1)?/(kernel|bias)", _HIDDEN_ABSENT)},
        positions=counts,
        image="stage1/conv1",
        head=counted_head,
        backbone=r"(conv2d(_\d+)?|dense|dense_1)/.*",
    ),
)
