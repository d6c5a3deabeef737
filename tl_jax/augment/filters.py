"""Blur, sharpness and noise of one image.

Shapes: an image is float32 [H, W, C], pixels in [0, 255].
"""

import functools
import math

import jax
import jax.numpy as jnp

from tl_jax.augment.fusion import computed_once

LEAST_SIGMA = 0.1
# Standard deviations on either side of the centre at which a Gaussian kernel ends.
_WIDTHS = 3


def blur(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image convolved with a Gaussian, its standard deviation uniform in [0.1, `strength`] pixels.

    Source: SimCLR, Chen et al. 2020 (arXiv:2002.05709), appendix A, with strength 2; torchvision
    `GaussianBlur(kernel_size, sigma=(0.1, strength))`, its kernel as wide as three times the strength either way.
    """
    sigma = jax.random.uniform(key, minval=min(LEAST_SIGMA, strength), maxval=strength)
    return gaussian(image, sigma, kernel_radius(strength))


def kernel_radius(sigma: float) -> int:
    """Returns how many pixels a kernel has on either side of its centre, for the widest Gaussian."""
    return math.ceil(_WIDTHS * sigma)


def gaussian(image: jax.Array, sigma: jax.Array | float, radius: int) -> jax.Array:
    """Returns the image convolved with a Gaussian, mirrored at its edge.

    As torchvision's `gaussian_blur` with a kernel of 2 * radius + 1 pixels. An image smaller than that is
    mirrored as often as need be, which torchvision refuses.
    """
    places = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * jnp.square(places / sigma))
    weights = weights / weights.sum()
    for axis in (0, 1):
        image = computed_once(_correlate(image, weights, radius, axis))
    return image


def _correlate(image: jax.Array, weights: jax.Array, radius: int, axis: int) -> jax.Array:
    margin = [(0, 0)] * 3
    margin[axis] = (radius, radius)
    padded = jnp.pad(image, margin, mode="reflect")
    size = image.shape[axis]
    shifted = (
        jax.lax.slice_in_dim(padded, start, start + size, axis=axis)
        for start in range(2 * radius + 1)
    )
    parts = [weight * part for weight, part in zip(weights, shifted, strict=True)]
    return functools.reduce(jnp.add, parts)


def smooth(image: jax.Array) -> jax.Array:
    """Returns the image of which sharpness is the distance: Pillow's `ImageFilter.SMOOTH`.

    Each pixel becomes the mean of the nine around it, its own value five times; those at the edge stay.
    """
    columns = image[:-2] + image[1:-1] + image[2:]
    sums = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]
    inner = (sums + 4 * image[1:-1, 1:-1]) / 13
    # Padded and chosen: on CPUs two to six times as fast as written into a copy of the image.
    is_inner = jnp.pad(jnp.ones((*inner.shape[:2], 1), bool), ((1, 1), (1, 1), (0, 0)))
    return jnp.where(is_inner, jnp.pad(inner, ((1, 1), (1, 1), (0, 0))), image)


def noise(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image with Gaussian noise, its standard deviation `strength` of 255, clipped to [0, 255].

    Every value has noise of its own.

    Source: torchvision `v2.GaussianNoise(sigma=strength)`.
    """
    return jnp.clip(image + 255 * strength * jax.random.normal(key, image.shape), 0.0, 255.0)
