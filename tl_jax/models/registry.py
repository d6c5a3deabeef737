"""The registered models, as a table of data."""

import dataclasses

import jax.numpy as jnp

from tl_jax.errors import InputError, unknown
from tl_jax.models.blocks import STEMS
from tl_jax.models.rematerialisation import REMATS
from tl_jax.models.resnet import ResNet


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What tells one registered model from another; see `ResNet` for the fields.

    Attributes:
        stems: the stems that may be asked for, the default first.
    """

    stage_sizes: tuple[int, ...]
    block: str
    width: int = 64
    groups: int = 1
    base_width: int = 64
    shortcut: str = "projection"
    stems: tuple[str, ...] = STEMS


def _cifar(depth: int, shortcut: str) -> Architecture:
    """Returns the network of He et al. 2015, section 4.2, with depth = 6n + 2 layers."""
    return Architecture(((depth - 2) // 6,) * 3, "basic", 16, shortcut=shortcut, stems=("cifar",))


# Source: torchvision `models/resnet.py`; for *_cifar (option-A shortcuts, no parameters) He et al.
# 2015, section 4.2, in the form of akamaster/pytorch_resnet_cifar10; *_cifar_b are the same with
# projections, in the form of chenyaofo/pytorch-cifar-models.
ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture((2, 2, 2, 2), "basic"),
    "resnet34": Architecture((3, 4, 6, 3), "basic"),
    "resnet50": Architecture((3, 4, 6, 3), "bottleneck"),
    "resnet101": Architecture((3, 4, 23, 3), "bottleneck"),
    "resnet152": Architecture((3, 8, 36, 3), "bottleneck"),
    "wide_resnet50_2": Architecture((3, 4, 6, 3), "bottleneck", base_width=128),
    "wide_resnet101_2": Architecture((3, 4, 23, 3), "bottleneck", base_width=128),
    "resnext50_32x4d": Architecture((3, 4, 6, 3), "bottleneck", groups=32, base_width=4),
    "resnext101_32x8d": Architecture((3, 4, 23, 3), "bottleneck", groups=32, base_width=8),
    **{f"resnet{depth}_cifar": _cifar(depth, "pad") for depth in (20, 32, 44, 56, 110)},
    **{f"resnet{depth}_cifar_b": _cifar(depth, "projection") for depth in (20, 32, 44, 56, 110)},
}

DTYPES = ("float32", "bfloat16")


def list_models() -> list[str]:
    """Returns the names that `create_model` knows."""
    return list(ARCHITECTURES)


def create_model(
    name: str,
    num_classes: int,
    *,
    stem: str | None = None,
    dtype=jnp.float32,
    zero_init_residual: bool = False,
    remat: str = "",
) -> ResNet:
    """Returns the registered model, a Linen module without variables.

    Args:
        name: one of `list_models()`.
        num_classes: of the head; 0 for no head, the model then returns pooled features.
        stem: "imagenet" (7x7 convolution of stride 2 and max-pool) or "cifar" (3x3 convolution of
            stride 1, for images of about 32 pixels); None for the architecture's own.
        dtype: float32 or bfloat16, of the computation; variables and logits are float32.
        zero_init_residual: whether the last BatchNorm of each block starts with scale 0.
        remat: what the backward pass computes again rather than keeps in memory: "" (nothing), "dots" (all
            but convolutions and statistics) or "blocks" (all but each block's input).

    Raises:
        InputError: if one of the arguments is none of the above.

    Example:
        >>> create_model("resnet50", 1000).boundaries
        ('stem', 'stage1', 'stage2', 'stage3', 'stage4', 'pool', 'head')
    """
    if name not in ARCHITECTURES:
        raise unknown("model", name, ARCHITECTURES)
    architecture = ARCHITECTURES[name]
    if num_classes < 0:
        raise InputError(
            f"num_classes is {num_classes}, expected a positive number, or 0 for no head"
        )
    stem = architecture.stems[0] if stem is None else stem
    if stem not in architecture.stems:
        raise unknown(f"stem of {name}", stem, architecture.stems)
    try:
        dtype_name = jnp.dtype(dtype).name
    except TypeError:
        dtype_name = str(dtype)
    if dtype_name not in DTYPES:
        raise unknown("dtype", dtype_name, DTYPES)
    if remat not in REMATS:
        raise unknown("remat", remat, REMATS)
    fields = dataclasses.asdict(architecture)
    del fields["stems"]
    return ResNet(
        **fields,
        num_classes=num_classes,
        stem_kind=stem,
        dtype=jnp.dtype(dtype_name),
        zero_init_residual=zero_init_residual,
        remat=remat,
    )
