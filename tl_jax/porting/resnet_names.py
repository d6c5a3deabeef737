"""The names that other libraries give to the tensors of ResNets.

Source: `torchvision/models/resnet.py` (timm's `timm/models/resnet.py` uses the same names);
`transformers/models/resnet/modeling_resnet.py`; for CIFAR https://github.com/akamaster/
pytorch_resnet_cifar10 `resnet.py` (option A, head `linear`) and https://github.com/kuangliu/
pytorch-cifar `models/resnet.py` (projections called `shortcut`, head `linear`).
"""

from tl_jax.porting.naming import CONV, COUNTERS, DENSE, NORM, Naming, Rule

_IMAGE = "stem/conv"
_BLOCK = r"stage(?P<stage>\d+)/block(?P<block>\d+)"


def _rules(stem, norm, conv, conv_norm, projection, projection_norm, head) -> tuple[Rule, ...]:
    return (
        Rule(r"stem/conv", stem, CONV),
        Rule(r"stem/bn", norm, NORM),
        Rule(_BLOCK + r"/conv(?P<conv>\d+)", conv, CONV),
        Rule(_BLOCK + r"/bn(?P<conv>\d+)", conv_norm, NORM),
        Rule(_BLOCK + r"/downsample/conv", projection, CONV),
        Rule(_BLOCK + r"/downsample/bn", projection_norm, NORM),
        Rule(r"head", head, DENSE),
    )


def _layer_rules(projection: str, head: str) -> tuple[Rule, ...]:
    block = "layer{stage}.{block}."
    return _rules(
        "conv1",
        "bn1",
        block + "conv{conv}",
        block + "bn{conv}",
        block + projection + ".0",
        block + projection + ".1",
        head,
    )


def _huggingface_rules(prefix: str) -> tuple[Rule, ...]:
    block = prefix + "encoder.stages.{stage0}.layers.{block}."
    return _rules(
        prefix + "embedder.embedder.convolution",
        prefix + "embedder.embedder.normalization",
        block + "layer.{conv0}.convolution",
        block + "layer.{conv0}.normalization",
        block + "shortcut.convolution",
        block + "shortcut.normalization",
        "classifier.1",
    )


# Looked at in this order: the first whose marker occurs is the naming. `conv1.weight` is last,
# since the CIFAR scheme has it too.
NAMINGS: tuple[Naming, ...] = (
    Naming(
        "huggingface",
        "ResNets",
        r"resnet\.embedder\.embedder\.convolution\.weight",
        _huggingface_rules("resnet."),
        COUNTERS,
        image=_IMAGE,
    ),
    Naming(
        "huggingface_backbone",
        "ResNets",
        r"embedder\.embedder\.convolution\.weight",
        _huggingface_rules(""),
        COUNTERS,
        image=_IMAGE,
    ),
    Naming(
        "cifar",
        "ResNets",
        r"linear\.weight|layer\d+\.\d+\.shortcut\.0\.weight",
        _layer_rules("shortcut", "linear"),
        COUNTERS,
        image=_IMAGE,
    ),
    Naming(
        "torchvision",
        "ResNets",
        r"conv1\.weight",
        _layer_rules("downsample", "fc"),
        COUNTERS,
        image=_IMAGE,
    ),
)
