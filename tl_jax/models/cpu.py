"""What XLA's compiler for CPUs does slowly, and what is done about it; on other platforms nothing of this is used.

Shapes: B batch, H and W height and width, C input channels, D output channels, k the kernel's size.

The compiler (jaxlib 0.10.2; see docs/performance.md) and the gradients of convolutions that JAX derives:

- It puts dimensions in the order that its fast convolutions need in a program's outermost computation only.
  In the body of `lax.scan`, a kernel's gradient runs many times slower. Here both gradients are
  convolutions in that order to begin with.
- It fuses the BatchNorm and ReLU before a convolution into the transposition of its input, and so computes
  them again in strided order. Here the kernel's gradient is a call that is not inlined: its input is an
  array that already exists.
- It runs 1x1 convolutions as convolutions. Here they are matrix products.
- It computes means of bfloat16 convolutions wrongly. Here they are kept apart.
- Gradients of grouped convolutions, and of those of a user's network, are left as they are. In a loop they run
  about thirty times slower: `slow_in_loops` says where that would be, and the rest of the library keeps such
  updates out of loops.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

from tl_jax import trees
from tl_jax.models.network import HEAD, OBJECTIVE

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def in_use() -> bool:
    """Returns whether programs are made for CPUs."""
    return jax.default_backend() == "cpu"


def kept_apart(x: jax.Array) -> jax.Array:
    """Returns `x`, which is not fused with what is made of it.

    The compiler (jaxlib 0.12) makes one kernel of bfloat16 convolutions, ReLUs and the mean after them; where only
    ReLUs are between two convolutions, what comes out is not a number.
    """
    return lax.optimization_barrier(x)


def slow_in_loops(frozen_mask: Mapping[str, Any], *, grouped: bool, platform: str) -> bool:
    """Returns whether updates in a loop of one program are far slower than one program for each update.

    Args:
        frozen_mask: tree of bools like the params that are trained, True where frozen. Gradients pass through
            convolutions where anything below the head is trained.
        grouped: whether convolutions are grouped or a user's: those of the network, or those that several
            members of a sweep become.
        platform: of the devices, such as "cpu".
    """
    return platform == "cpu" and grouped and trains_below_head(frozen_mask)


def trains_below_head(frozen_mask: Mapping[str, Any]) -> bool:
    """Returns whether gradients pass through the network below its head."""
    return any(
        not frozen
        for name, frozen in trees.flatten(frozen_mask).items()
        if name.split("/")[0] not in (HEAD, OBJECTIVE)
    )


def unrolled() -> bool | int:
    """Returns `unroll` of a loop with gradients in its body: written out on CPUs, for `slow_in_loops`."""
    return in_use() or 1


def native_convolution(x: jax.Array, kernel: jax.Array, stride: int, groups: int = 1) -> jax.Array:
    """Returns the convolution whose gradients JAX derives."""
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
def convolution(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution of one group, see `convolution.convolve`; its gradients are written for CPUs."""
    if kernel.shape[0] == 1:
        return _over_channels(x[:, ::stride, ::stride], kernel[0, 0])
    return native_convolution(x, kernel, stride)


def _forward(x, kernel, stride):
    return convolution(x, kernel, stride), (x, kernel)


def _backward(stride, saved, grad):
    x, kernel = saved
    with set_xla_metadata(inlineable="false"):
        kernel_grad = _kernel_gradient(x, grad, kernel.shape[0], stride)
    return _input_gradient(kernel, grad, x.shape[1:3], stride), kernel_grad


convolution.defvjp(_forward, _backward)


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
