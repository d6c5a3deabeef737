"""Parts of a step alone, of which only an accelerator can tell which form is faster."""

import jax
import jax.numpy as jnp

from tl_jax import profiling
from tl_jax.models.convolution import convolve

_CHANNELS = (3, 4, 8)


def stem_channels(
    image_size: int, kernel_size: int, features: int, batch_size: int, dtype: str, seconds: float
) -> dict[str, dict[str, float]]:
    """Returns the milliseconds of a stem's convolution and of its kernel's gradient, by channels of the input.

    Images have three; more are zeros, appended inside of the program, to the kernel too.

    Args:
        image_size: S.
        kernel_size: k; the stride is 2 where it is above 3.
        features: that come out.
        batch_size: B.
        dtype: of the products.
        seconds: of the timing of each, about.
    """
    images = jax.random.normal(jax.random.key(0), (batch_size, image_size, image_size, 3))
    kernel = jax.random.normal(jax.random.key(1), (kernel_size, kernel_size, 3, features))
    stride = 2 if kernel_size > 3 else 1

    def forward(kernel, images, channels):
        padded, weights = (
            jnp.pad(array.astype(dtype), [(0, 0)] * axis + [(0, channels - 3)] + [(0, 0)] * after)
            for array, axis, after in ((images, 3, 0), (kernel, 2, 1))
        )
        return convolve(padded, weights, stride)

    def gradient(kernel, images, channels):
        out, pull = jax.vjp(lambda kernel: forward(kernel, images, channels), kernel)
        return pull(jnp.ones_like(out))[0]  # no forward convolution is needed for these

    milliseconds: dict[str, dict[str, float]] = {}
    for name, function in (
        ("forward_milliseconds", forward),
        ("kernel_gradient_milliseconds", gradient),
    ):
        milliseconds[name] = {}
        for channels in _CHANNELS:
            timed = jax.jit(function, static_argnums=2)
            call = profiling.time_call(lambda t=timed, c=channels: t(kernel, images, c), seconds)
            milliseconds[name][str(channels)] = 1e3 * call
    return milliseconds
