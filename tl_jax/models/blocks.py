"""Stem, residual blocks and stages of the ResNet family.

Shapes: B batch, H and W height and width, C channels. All convolutions pad symmetrically by half their
size, as PyTorch does: with stride 2, "SAME" would pad only below and to the right, giving equal shapes
and different numbers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from tl_jax.models.pooling import max_pool

# `conv(features, size, stride=1, groups=1, name=...)` makes a `Convolution`, `norm(name=...)` a `BatchNorm`.
Conv = Callable[..., nn.Module]
Norm = Callable[..., nn.Module]

STEMS = ("imagenet", "cifar")


class Stem(nn.Module):
    """The first convolution, and for "imagenet" the max-pool.

    Attributes:
        kind: "imagenet" (7x7 with stride 2, then 3x3 max-pool with stride 2: [B, H, W, 3] to
            [B, H/4, W/4, features]) or "cifar" (3x3 with stride 1, no pool: size kept).
        features: output channels.
        conv: makes a convolution.
        norm: makes a BatchNorm.
    """

    kind: str
    features: int
    conv: Conv
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the features [B, H', W', features] of images `x` [B, H, W, 3]."""
        size, stride = (7, 2) if self.kind == "imagenet" else (3, 1)
        conv = self.conv(self.features, size, stride=stride, name="conv")
        x = nn.relu(self.norm(name="bn")(x, train, conv))
        if self.kind == "imagenet":
            # PyTorch pads with -inf: zero is never above a ReLU's output.
            x = max_pool(x, 3, padding=1)
        return x


class Projection(nn.Module):
    """The shortcut of He et al. 2015, option B: a strided 1x1 convolution and a BatchNorm."""

    features: int
    stride: int
    conv: Conv
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns `x` [B, H, W, C] as [B, H/stride, W/stride, features]."""
        conv = self.conv(self.features, 1, stride=self.stride, name="conv")
        return self.norm(name="bn")(x, train, conv)


def pad_shortcut(x: jax.Array, features: int, stride: int) -> jax.Array:
    """Returns `x` [B, H, W, C] subsampled, with zero channels on both sides to make up `features`.

    Source: He et al. 2015, section 4.2, option A, in the form of akamaster/pytorch_resnet_cifar10
    (`x[:, :, ::2, ::2]`, then planes // 4 zero channels before and as many after).
    """
    before = (features - x.shape[-1]) // 2
    after = features - x.shape[-1] - before
    return jnp.pad(x[:, ::stride, ::stride, :], ((0, 0), (0, 0), (0, 0), (before, after)))


class _Block(nn.Module):
    """What basic and bottleneck blocks share.

    Attributes:
        planes: the nominal width; a bottleneck puts out four times as many channels.
        stride: of the block, spatially.
        shortcut: where shapes differ, "projection" (option B) or "pad" (option A).
        groups: groups of the 3x3 convolution (bottleneck only).
        base_width: channels of the 3x3 convolution per group and 64 planes (bottleneck only).
        strided: which convolution of a bottleneck carries the stride, 1 or 2.
        zero_init_residual: whether the last BatchNorm starts with scale 0, the block as identity.
        conv: makes a convolution.
        norm: makes a BatchNorm.
    """

    planes: int
    stride: int
    shortcut: str
    groups: int
    base_width: int
    strided: int
    zero_init_residual: bool
    conv: Conv
    norm: Norm

    expansion = 1

    def last_norm(self, name: str) -> nn.Module:
        """Returns the BatchNorm before the addition."""
        if self.zero_init_residual:
            return self.norm(scale_init=nn.initializers.zeros, name=name)
        return self.norm(name=name)

    def residual(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the shortcut of the block's input, shaped as its output."""
        features = self.planes * self.expansion
        if self.stride == 1 and x.shape[-1] == features:
            return x
        if self.shortcut == "pad":
            return pad_shortcut(x, features, self.stride)
        return Projection(features, self.stride, self.conv, self.norm, name="downsample")(x, train)


class BasicBlock(_Block):
    """Two 3x3 convolutions.

    Source: He et al. 2015, figure 5 left; torchvision's `BasicBlock`.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns [B, H/stride, W/stride, planes]."""
        conv = self.conv(self.planes, 3, stride=self.stride, name="conv1")
        y = nn.relu(self.norm(name="bn1")(x, train, conv))
        conv = self.conv(self.planes, 3, name="conv2")
        y = self.last_norm("bn2")(y, train, conv)
        return nn.relu(y + self.residual(x, train))


class Bottleneck(_Block):
    """1x1, 3x3 and 1x1 convolutions.

    Source: He et al. 2015, figure 5 right; the paper's first 1x1 convolution carries the stride, as
    Keras' does (v1), the 3x3 one in torchvision's `Bottleneck` (v1.5); its groups and base width as in
    Xie et al. 2017 (ResNeXt) and Zagoruyko and Komodakis 2016 (wide).
    """

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns [B, H/stride, W/stride, 4 * planes]."""
        width = self.planes * self.base_width // 64 * self.groups
        first, second = (self.stride if self.strided == number else 1 for number in (1, 2))
        conv = self.conv(width, 1, stride=first, name="conv1")
        y = nn.relu(self.norm(name="bn1")(x, train, conv))
        conv = self.conv(width, 3, stride=second, groups=self.groups, name="conv2")
        y = nn.relu(self.norm(name="bn2")(y, train, conv))
        conv = self.conv(self.planes * self.expansion, 1, name="conv3")
        y = self.last_norm("bn3")(y, train, conv)
        return nn.relu(y + self.residual(x, train))


BLOCKS: dict[str, type[_Block]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class Stage(nn.Module):
    """A row of blocks named block0, block1, ...; the first may stride.

    Attributes:
        blocks: makes block `i` given its stride and name.
        size: the number of blocks.
        stride: of the first block.
    """

    blocks: Callable[..., nn.Module]
    size: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the features after the last block."""
        for index in range(self.size):
            stride = self.stride if index == 0 else 1
            x = self.blocks(stride=stride, name=f"block{index}")(x, train)
        return x
