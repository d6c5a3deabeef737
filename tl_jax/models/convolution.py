"""Square convolutions.

Shapes: B batch, H and W height and width, C input channels, D output channels, k the kernel's size.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from tl_jax.models import cpu

# What `jax.checkpoint` policies know the output of every convolution by.
OUTPUT_NAME = "convolution"


def kaiming_normal(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """Returns a kernel [size, size, C / groups, features] of standard deviation sqrt(2 / fan_out).

    Source: He et al. 2015 (arXiv 1502.01852); `torch.nn.init.kaiming_normal_` with mode="fan_out"
    and nonlinearity="relu", as in torchvision's `ResNet.__init__`.
    """
    height, width, _, features = shape
    # Drawn flat: XLA's CPU compiler takes twice as long over a draw in four dimensions.
    draws = jax.random.normal(key, (math.prod(shape),), dtype)
    return draws.reshape(shape) * (2.0 / (height * width * features)) ** 0.5


class Convolution(nn.Module):
    """A square convolution, padded symmetrically by half its size as PyTorch does.

    Attributes:
        features: D.
        size: k, odd.
        dtype: of the computation.
        stride: in both directions.
        groups: of channels.
        bias: whether a bias is added, which starts at 0.
    """

    features: int
    size: int
    dtype: jnp.dtype
    stride: int = 1
    groups: int = 1
    bias: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, scale: jax.Array | None = None, shift: jax.Array | None = None
    ) -> jax.Array:
        """Returns [B, H / stride, W / stride, D] of `x` [B, H, W, C].

        Args:
            x: the input.
            scale: float32 [D], of the output with its bias: it goes into the kernel; None: 1.
            shift: float32 [D], added to that; None: 0.
        """
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", kaiming_normal, shape, jnp.float32)
        bias = None
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        if scale is not None:
            kernel = kernel * scale
            bias = None if bias is None else bias * scale
        if shift is not None:
            bias = shift if bias is None else bias + shift
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.groups)
        if bias is not None:
            y = y + bias.astype(self.dtype)
        return checkpoint_name(y, OUTPUT_NAME)


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
    """Returns the convolution [B, H / stride, W / stride, D], padded by half the kernel's size.

    On a CPU it has no forward-mode derivative.

    Args:
        x: [B, H, W, C].
        kernel: [k, k, C / groups, D], of the same dtype; k is odd.
        stride: in both directions.
        groups: of channels.
    """
    if groups > 1 or not cpu.in_use():
        return cpu.native_convolution(x, kernel, stride, groups)
    return cpu.convolution(x, kernel, stride)
