"""Brightness, contrast, saturation and hue of one image.

Shapes: an image is float32 [H, W, 3], pixels in [0, 255].
"""

import jax
import jax.numpy as jnp

# Of red, green and blue in a grey value (ITU-R 601-2), as Pillow has them.
_GREY = (0.299, 0.587, 0.114)
# How much of the strength is the largest turn of the hue, a share of the circle: 0.2 where the others have 0.8.
# Source: SimCLR, Chen et al. 2020 (arXiv:2002.05709), appendix A.
_HUE = 0.25


def color_jitter(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image with other brightness, contrast, saturation and hue, changed in this order.

    The first three are multiplied by factors uniform in 1 ± `strength`; the hue turns by a share of the circle
    uniform in ± `strength` / 4.
    """
    return adjust(image, *draw_factors(key, strength))


def draw_factors(key: jax.Array, strength: float) -> jax.Array:
    """Returns float32 [4]: factors of brightness, contrast and saturation, and the turn of the hue."""
    values = jax.random.uniform(key, (4,), minval=-strength, maxval=strength)
    return jnp.array([1.0, 1.0, 1.0, 0.0]) + values * jnp.array([1.0, 1.0, 1.0, _HUE])


def adjust(
    image: jax.Array,
    brightness: jax.Array | float,
    contrast: jax.Array | float,
    saturation: jax.Array | float,
    hue: jax.Array | float,
) -> jax.Array:
    """Returns the image with these changed one after the other, each result clipped to [0, 255].

    As Pillow's `ImageEnhance` and torchvision's `adjust_*`, without their rounding to whole levels.

    Args:
        image: to change.
        brightness: factor of every pixel.
        contrast: factor of the distance to the mean grey value.
        saturation: factor of the distance to the pixel's grey value.
        hue: turn of the hue, a share of the circle.
    """
    image = _clip(image * brightness)
    mean = _grey(image).mean()
    image = _clip(mean + contrast * (image - mean))
    grey = _grey(image)
    image = _clip(grey + saturation * (image - grey))
    return turn_hue(image, hue)


def turn_hue(image: jax.Array, share: jax.Array | float) -> jax.Array:
    """Returns the image with every hue turned by a share of the circle; value and saturation in HSV stay."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = image.max(-1)
    spread = value - image.min(-1)
    scale = jnp.where(spread > 0, spread, 1.0)
    # In sixths of the circle; any hue will do for grey.
    hue = jnp.where(
        value == red,
        (green - blue) / scale,
        jnp.where(value == green, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    turned = hue + 6 * share
    # Source: https://en.wikipedia.org/wiki/HSL_and_HSV, "HSV to RGB alternative".
    places = (turned[..., None] + jnp.array([5.0, 3.0, 1.0])[None, None, :]) % 6
    share_of_spread = jnp.clip(jnp.minimum(places, 4 - places), 0.0, 1.0)
    return value[..., None] - spread[..., None] * share_of_spread


def _grey(image: jax.Array) -> jax.Array:
    """Returns the grey values [H, W, 1]."""
    return (image * jnp.array(_GREY)[None, None, :]).sum(-1, keepdims=True)


def _clip(image: jax.Array) -> jax.Array:
    return jnp.clip(image, 0.0, 255.0)
