"""Square convolutions, written so that XLA compiles their backward pass well on a CPU too.

Shapes: B batch, H and W height and width, C input channels, D output channels, k the kernel's size.

What XLA's CPU compiler (jaxlib 0.10.2) does with the gradients that JAX derives, and what is done here
(see docs/performance.md):

- It puts dimensions in the order that its fast convolutions need in a program's outermost computation only.
  In the body of `lax.scan`, a kernel's gradient runs many times slower. Here both gradients are
  convolutions in that order to begin with.
- It fuses the BatchNorm and ReLU before a convolution into the transposition of its input, and so computes
  them again in strided order. Here the kernel's gradient is a call that is not inlined: its input is an
  array that already exists.
- It runs 1x1 convolutions as convolutions. Here they are matrix products.

On other platforms, and for grouped convolutions, JAX's own convolution is used as it is.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.xla_metadata import set_xla_metadata
from jax.typing import DTypeLike

# What `jax.checkpoint` policies know the output of every convolution by.
OUTPUT_NAME = "convolution"

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


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
    """A square convolution without bias, padded symmetrically by half its size as PyTorch does.

    Attributes:
        features: D.
        size: k, odd.
        dtype: of the computation.
        stride: in both directions.
        groups: of channels.
    """

    features: int
    size: int
    dtype: jnp.dtype
    stride: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, H / stride, W / stride, D] of `x` [B, H, W, C]."""
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", kaiming_normal, shape, jnp.float32)
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.groups)
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
    if groups > 1 or jax.default_backend() != "cpu":
        return _native(x, kernel, stride, groups)
    return _convolve(x, kernel, stride)


def _native(x, kernel, stride, groups=1):
    padding = (kernel.shape[0] // 2,) * 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (padding, padding),
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x, kernel, stride):
    if kernel.shape[0] == 1:
        return _over_channels(x[:, ::stride, ::stride], kernel[0, 0])
    return _native(x, kernel, stride)


def _forward(x, kernel, stride):
    return _convolve(x, kernel, stride), (x, kernel)


def _backward(stride, saved, grad):
    x, kernel = saved
    with set_xla_metadata(inlineable="false"):
        kernel_grad = _kernel_gradient(x, grad, kernel.shape[0], stride)
    return _input_gradient(kernel, grad, x.shape[1:3], stride), kernel_grad


_convolve.defvjp(_forward, _backward)


def _over_channels(x, matrix):
    """Returns [B, H, W, D] of `x` [B, H, W, C] and a matrix [C, D]."""
    return lax.dot_general(x, matrix, (((3,), (0,)), ((), ())))


def _input_gradient(kernel, grad, sizes, stride):
    """Returns [B, H, W, C]: the gradient, spread out by the stride, convolved with the turned kernel."""
    size = kernel.shape[0]
    if size == 1:
        spread = [
            (0, full - ((reduced - 1) * stride + 1), stride - 1)
            for full, reduced in zip(sizes, grad.shape[1:3], strict=True)
        ]
        values = _over_channels(grad, kernel[0, 0].T)
        return lax.pad(values, jnp.zeros((), values.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    before = size - 1 - size // 2
    # So much that H and W come out, also where the stride left a remainder.
    padding = [
        (before, full + size - 1 - before - ((reduced - 1) * stride + 1))
        for full, reduced in zip(sizes, grad.shape[1:3], strict=True)
    ]
    return lax.conv_general_dilated(
        grad,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        padding,
        lhs_dilation=(stride, stride),
        dimension_numbers=_DIMENSIONS,
    )


@functools.partial(jax.jit, static_argnums=(2, 3))
def _kernel_gradient(x, grad, size, stride):
    """Returns [k, k, C, D]: images as channels, channels as images, and the gradient as the kernel."""
    if size == 1:
        pixels = x[:, ::stride, ::stride].reshape(-1, x.shape[-1])
        return lax.dot_general(pixels, grad.reshape(-1, grad.shape[-1]), (((0,), (0,)), ((), ())))[
            None, None
        ]
    before = size // 2
    padding = [
        (before, (reduced - 1) * stride + size - full - before)
        for full, reduced in zip(x.shape[1:3], grad.shape[1:3], strict=True)
    ]
    turned = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        grad.transpose(1, 2, 0, 3),
        (1, 1),
        padding,
        rhs_dilation=(stride, stride),
        dimension_numbers=_DIMENSIONS,
    )
    return turned.transpose(1, 2, 0, 3)
