"""Brightness, contrast, saturation, hue and grey of one image.

Shapes: an image is float32 [H, W, 3], pixels in [0, 255].
"""

import jax
import jax.numpy as jnp

from tl_jax.augment.fusion import computed_once

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


def brightness(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image with every pixel multiplied by a factor uniform in 1 ± `strength`.

    Source: torchvision `ColorJitter(brightness=strength)`.
    """
    return blend(image, 0.0, draw_factor(key, strength))


def contrast(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image with the distance to its mean grey multiplied by a factor uniform in 1 ± `strength`.

    Source: torchvision `ColorJitter(contrast=strength)`.
    """
    return blend(image, mean_grey(image), draw_factor(key, strength))


def saturation(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image with the distance of pixels to their grey multiplied by a factor uniform in 1 ± `strength`.

    Source: torchvision `ColorJitter(saturation=strength)`.
    """
    return blend(image, grey_values(image), draw_factor(key, strength))


def hue(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image with its hues turned by a share of the circle uniform in ± `strength`.

    Source: torchvision `ColorJitter(hue=strength)`.
    """
    return turn_hue(image, jax.random.uniform(key, minval=-strength, maxval=strength))


def grey(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image, with probability `strength` in grey.

    Source: torchvision `RandomGrayscale(p=strength)`.
    """
    chosen = jax.random.bernoulli(key, strength)
    return jnp.where(chosen, grey_values(image)[..., None], image)


def draw_factor(key: jax.Array, strength: float) -> jax.Array:
    """Returns a factor uniform in 1 ± `strength`."""
    return jax.random.uniform(key, minval=1 - strength, maxval=1 + strength)


def blend(image: jax.Array, other: jax.Array | float, factor: jax.Array | float) -> jax.Array:
    """Returns `other + factor * (image - other)`, clipped to [0, 255], as `ImageEnhance` changes images.

    Args:
        image: to change.
        other: a number, or [H, W], the same in all channels.
        factor: 1 for the image itself, 0 for the other.
    """
    return jnp.stack(
        [_clip(other + factor * (image[..., channel] - other)) for channel in range(3)], -1
    )


def mean_grey(image: jax.Array) -> jax.Array:
    """Returns the mean grey value of the image."""
    return computed_once(grey_values(image)).mean()


def grey_values(image: jax.Array) -> jax.Array:
    """Returns [H, W], the grey value of every pixel."""
    return _grey(image[..., 0], image[..., 1], image[..., 2])


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
    # Channel by channel: three values side by side keep a CPU from using its vector instructions.
    red, green, blue = (_clip(image[..., channel] * brightness) for channel in range(3))
    mean = _grey(red, green, blue).mean()
    red, green, blue = (_clip(mean + contrast * (one - mean)) for one in (red, green, blue))
    grey = _grey(red, green, blue)
    channels = (_clip(grey + saturation * (one - grey)) for one in (red, green, blue))
    return turn_hue(jnp.stack([*channels], -1), hue)


def turn_hue(image: jax.Array, share: jax.Array | float) -> jax.Array:
    """Returns the image with every hue turned by a share of the circle; value and saturation in HSV stay."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    spread = value - jnp.minimum(jnp.minimum(red, green), blue)
    scale = jnp.where(spread > 0, spread, 1.0)
    # In sixths of the circle; any hue will do for grey.
    hue = jnp.where(
        value == red,
        (green - blue) / scale,
        jnp.where(value == green, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    hue = hue + 6 * share

    def channel(place: float) -> jax.Array:
        # Source: https://en.wikipedia.org/wiki/HSL_and_HSV, "HSV to RGB alternative". The remainder by hand:
        # that of floats is a call for each value on CPUs.
        turned = hue + place
        turned = turned - 6 * jnp.floor(turned / 6)
        return value - spread * jnp.clip(jnp.minimum(turned, 4 - turned), 0.0, 1.0)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], -1)


def _grey(red: jax.Array, green: jax.Array, blue: jax.Array) -> jax.Array:
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def _clip(values: jax.Array) -> jax.Array:
    return jnp.clip(values, 0.0, 255.0)
