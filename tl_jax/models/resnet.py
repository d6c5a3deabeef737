"""The ResNet family: the network, and the table of its architectures."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tl_jax.models.batch_norm import BatchNorm
from tl_jax.models.blocks import BLOCKS, STEMS, Conv, Norm, Stage, Stem
from tl_jax.models.convolution import Convolution
from tl_jax.models.network import check_input, segment
from tl_jax.models.pooling import average_pool
from tl_jax.models.rematerialisation import REMATS, kept_apart, rematerialised


class ResNet(nn.Module):
    """A residual network that can be entered and left at any boundary.

    Shapes: B batch, H and W height and width, C channels, F pooled features, K classes.

    Attributes:
        stage_sizes: blocks per stage.
        block: "basic" or "bottleneck".
        num_classes: K; 0 for no head, the network then ends with "pool".
        stem_kind: "imagenet" or "cifar".
        width: channels of the stem, doubled (as planes) from stage to stage.
        groups: groups of the bottleneck's 3x3 convolution.
        base_width: channels of that convolution per group and 64 planes.
        shortcut: "projection" or "pad" (options B and A of He et al. 2015).
        strided: which convolution of a bottleneck carries the stride: 2 (v1.5) or 1 (v1).
        conv_bias: whether convolutions add a bias, before their BatchNorm.
        norm_momentum, norm_epsilon: of every BatchNorm; see `BatchNorm`.
        zero_init_residual: whether every block starts as the identity.
        dropout: share of the pooled features that the head drops in training.
        dtype: dtype of the computation; parameters and statistics are float32.
        frozen_norms: names of BatchNorm modules that `norm_policy` applies to in training.
        norm_policy: see `BatchNorm`.
        axis_name: named axis over which BatchNorm averages its statistics, None under `jit`.
        batch_norm_rows: examples that BatchNorm normalises together in training; 0 for the whole batch.
        stoch_norm: see `BatchNorm`.
        remat: what the backward pass computes again rather than keeps; see `rematerialised`.

    Source: He et al. 2015 (arXiv 1512.03385); torchvision `models/resnet.py`, v1.5 bottlenecks;
    keras `src/applications/resnet.py`, v1 bottlenecks.
    """

    stage_sizes: tuple[int, ...]
    block: str
    num_classes: int
    stem_kind: str = "imagenet"
    width: int = 64
    groups: int = 1
    base_width: int = 64
    shortcut: str = "projection"
    strided: int = 2
    conv_bias: bool = False
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5
    zero_init_residual: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")
    frozen_norms: frozenset[str] = frozenset()
    norm_policy: str = "frozen"
    axis_name: str | None = None
    batch_norm_rows: int = 0
    stoch_norm: float = 0.0
    remat: str = ""

    @property
    def boundaries(self) -> tuple[str, ...]:
        """The parts of the network in order: stem, stage1, ..., pool, and head if there is one."""
        stages = [f"stage{number}" for number in range(1, len(self.stage_sizes) + 1)]
        return ("stem", *stages, "pool", *(["head"] if self.num_classes else []))

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, start: str | None = None, stop: str | None = None
    ) -> jax.Array:
        """Returns the features after boundary `stop`.

        Args:
            x: normalised images [B, H, W, 3] or the features after boundary `start`; floating
                point.
            train: whether BatchNorm uses and records the statistics of the batch, for which `batch_stats`
                must be mutable, and whether dropout drops, for which there must be an rng `dropout`.
            start: the boundary whose features `x` is; None for images.
            stop: the boundary to stop after; None for the whole network.

        Returns:
            float32 logits [B, K] after "head", float32 [B, F] after "pool", else [B, H', W', C] in
            the model's dtype.

        Raises:
            InputError: if a boundary is unknown, `start` comes after `stop`, or `x` is not what the
                part after `start` takes.
        """
        first, last = segment(self, start, stop)
        check_input(x, start, self.features(start), spatial=start not in ("pool", "head"))
        conv = functools.partial(Convolution, dtype=self.dtype, bias=self.conv_bias)
        norm = functools.partial(
            BatchNorm,
            dtype=self.dtype,
            axis_name=self.axis_name,
            rows=self.batch_norm_rows,
            stoch_norm=self.stoch_norm,
            frozen_norms=self.frozen_norms,
            norm_policy=self.norm_policy,
            momentum=self.norm_momentum,
            epsilon=self.norm_epsilon,
        )
        for part in self.boundaries[first:last]:
            if part == "stem":
                x = Stem(self.stem_kind, self.width, conv, norm, name="stem")(x, train)
            elif part == "pool":
                x = average_pool(x)
            elif part == "head":
                if self.dropout:
                    x = nn.Dropout(self.dropout)(x, deterministic=not train)
                x = _head(self.num_classes, x.shape[-1])(x.astype(jnp.float32))
            else:
                stage = self._stage(int(part.removeprefix("stage")) - 1, conv, norm)
                with kept_apart(self.remat):
                    x = stage(x, train)
        return x

    def features(self, boundary: str | None) -> int:
        """Returns the channels after a boundary; those of an image (3) for None."""
        if boundary is None:
            return 3
        if boundary == "stem":
            return self.width
        if boundary == "head":
            return self.num_classes
        stage = len(self.stage_sizes) if boundary == "pool" else int(boundary.removeprefix("stage"))
        return self.width * 2 ** (stage - 1) * BLOCKS[self.block].expansion

    def _stage(self, index: int, conv: Conv, norm: Norm) -> Stage:
        blocks = functools.partial(
            rematerialised(BLOCKS[self.block], self.remat),
            planes=self.width * 2**index,
            shortcut=self.shortcut,
            groups=self.groups,
            base_width=self.base_width,
            strided=self.strided,
            zero_init_residual=self.zero_init_residual,
            conv=conv,
            norm=norm,
        )
        stride = 1 if index == 0 else 2
        return Stage(blocks, self.stage_sizes[index], stride, name=f"stage{index + 1}")


def _head(num_classes: int, features: int) -> nn.Dense:
    """Returns the linear classifier, in float32 whatever the dtype of the backbone.

    Source: `torch.nn.Linear`: kernel and bias uniform in ±1 / sqrt(features).
    """
    bound = features**-0.5

    def uniform(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return nn.Dense(num_classes, kernel_init=uniform, bias_init=uniform, name="head")


@dataclasses.dataclass(frozen=True)
class ResNetArchitecture:
    """What tells one registered ResNet from another; see `ResNet` for the fields.

    Attributes:
        stems: the stems that may be asked for, the default first.
    """

    stage_sizes: tuple[int, ...]
    block: str
    width: int = 64
    groups: int = 1
    base_width: int = 64
    shortcut: str = "projection"
    strided: int = 2
    conv_bias: bool = False
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5
    stems: tuple[str, ...] = STEMS

    @property
    def options(self) -> dict[str, tuple[str, ...]]:
        """What may be asked for besides the number of classes; see `registry.Architecture`."""
        free = dict.fromkeys(
            ("batch_norm_rows", "dropout", "dtype", "stoch_norm", "zero_init_residual"), ()
        )
        return {**free, "stem": self.stems, "remat": REMATS}

    @property
    def naming(self) -> str:
        """The naming in which its weights are exported; see `porting.NAMINGS`."""
        if self.conv_bias:
            return "tl_jax"  # torchvision's ResNets have no such biases
        return "cifar" if self.shortcut == "pad" else "torchvision"

    def make(self, num_classes: int, *, stem: str | None = None, **options: Any) -> ResNet:
        """Returns the module.

        Args:
            num_classes: K.
            stem: one of `stems`; None for the first.
            **options: `batch_norm_rows`, `dropout`, `dtype`, `remat`, `stoch_norm` and `zero_init_residual` of
                `ResNet`.
        """
        fields = dataclasses.asdict(self)
        del fields["stems"]
        stem = stem or self.stems[0]
        return ResNet(**fields, num_classes=num_classes, stem_kind=stem, **options)


def _cifar(depth: int, shortcut: str) -> ResNetArchitecture:
    """Returns the network of He et al. 2015, section 4.2, with depth = 6n + 2 layers."""
    sizes = ((depth - 2) // 6,) * 3
    return ResNetArchitecture(sizes, "basic", 16, shortcut=shortcut, stems=("cifar",))


def _keras(stage_sizes: tuple[int, ...]) -> ResNetArchitecture:
    """Returns a network of keras.applications (ResNet v1, the weights of its authors).

    In training its BatchNorm records the unbiased variance of a batch, as everywhere here; Keras' the biased.

    Source: keras 3.15.1 `src/applications/resnet.py`; momentum: `src/layers/normalization/batch_normalization.py`.
    """
    return ResNetArchitecture(
        stage_sizes,
        "bottleneck",
        strided=1,
        conv_bias=True,
        norm_momentum=0.99,
        norm_epsilon=1.001e-5,
        stems=("imagenet",),
    )


# Source: torchvision `models/resnet.py`; for *_cifar (option-A shortcuts, no parameters) He et al.
# 2015, section 4.2, in the form of akamaster/pytorch_resnet_cifar10; *_cifar_b are the same with
# projections, in the form of chenyaofo/pytorch-cifar-models.
ARCHITECTURES: dict[str, ResNetArchitecture] = {
    "resnet18": ResNetArchitecture((2, 2, 2, 2), "basic"),
    "resnet34": ResNetArchitecture((3, 4, 6, 3), "basic"),
    "resnet50": ResNetArchitecture((3, 4, 6, 3), "bottleneck"),
    "resnet101": ResNetArchitecture((3, 4, 23, 3), "bottleneck"),
    "resnet152": ResNetArchitecture((3, 8, 36, 3), "bottleneck"),
    "wide_resnet50_2": ResNetArchitecture((3, 4, 6, 3), "bottleneck", base_width=128),
    "wide_resnet101_2": ResNetArchitecture((3, 4, 23, 3), "bottleneck", base_width=128),
    "resnext50_32x4d": ResNetArchitecture((3, 4, 6, 3), "bottleneck", groups=32, base_width=4),
    "resnext101_32x8d": ResNetArchitecture((3, 4, 23, 3), "bottleneck", groups=32, base_width=8),
    "keras_resnet50": _keras((3, 4, 6, 3)),
    "keras_resnet101": _keras((3, 4, 23, 3)),
    "keras_resnet152": _keras((3, 8, 36, 3)),
    **{f"resnet{depth}_cifar": _cifar(depth, "pad") for depth in (20, 32, 44, 56, 110)},
    **{f"resnet{depth}_cifar_b": _cifar(depth, "projection") for depth in (20, 32, 44, 56, 110)},
}
