"""Posterise, solarise, equalise and stretch the levels of one image.

Shapes: an image is float32 [H, W, C], pixels in [0, 255].
"""

import jax
import jax.numpy as jnp

from tl_jax.augment.fusion import computed_once

LEVELS = 256


def posterise(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image, with probability 1/2 with `strength` bits of every level kept.

    Source: torchvision `RandomPosterize(bits=strength, p=0.5)`.
    """
    return jnp.where(jax.random.bernoulli(key), keep_bits(image, round(strength)), image)


def solarise(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image, with probability 1/2 with all levels from `strength` on inverted.

    Source: torchvision `RandomSolarize(threshold=strength, p=0.5)`.
    """
    return jnp.where(jax.random.bernoulli(key), invert_from(image, strength), image)


def equalise(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image, with probability `strength` with the histogram of each channel made even.

    Source: torchvision `RandomEqualize(p=strength)`.
    """
    return jnp.where(jax.random.bernoulli(key, strength), make_even(image), image)


def auto_contrast(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image, with probability `strength` with each channel stretched to [0, 255].

    Source: torchvision `RandomAutocontrast(p=strength)`.
    """
    factor, shift = stretching(image)
    changed = jnp.clip(factor * image + shift, 0.0, 255.0)
    return jnp.where(jax.random.bernoulli(key, strength), changed, image)


def keep_bits(image: jax.Array, bits: jax.Array | int) -> jax.Array:
    """Returns the image in whole levels, of which the `bits` highest bits are kept: `ImageOps.posterize`."""
    step = jnp.exp2(8.0 - jnp.asarray(bits, jnp.float32))
    return jnp.floor(_whole(image) / step) * step


def invert_from(image: jax.Array, threshold: jax.Array | float) -> jax.Array:
    """Returns the image with the levels from `threshold` on inverted: `ImageOps.solarize`."""
    return jnp.where(image < threshold, image, 255.0 - image)


def stretching(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns a factor and what is added to it, each [1, 1, C], that stretch each channel to [0, 255].

    A channel of one level stays as it is: `ImageOps.autocontrast`, which truncates to whole levels.
    """
    low, high = (reduce(image, axis=(0, 1), keepdims=True) for reduce in (jnp.min, jnp.max))
    some = high > low
    factor = jnp.where(some, 255.0 / jnp.where(some, high - low, 1.0), 1.0)
    return factor, jnp.where(some, -low * factor, 0.0)


def make_even(image: jax.Array) -> jax.Array:
    """Returns the image with the levels of each channel spread evenly over its pixels: `ImageOps.equalize`.

    Levels are rounded to whole ones first. A channel whose pixels but those of its highest level are fewer than
    255 stays as it is.
    """
    channels = image.shape[-1]
    levels = _whole(image).astype(jnp.int32).reshape(-1, channels)
    # Scatter-add: on CPUs eight times as fast as products of one-hot levels or more, and three as sorting.
    counts = jax.vmap(_histogram, in_axes=1)(levels)
    table, changes = (computed_once(part) for part in jax.vmap(_evening_table)(counts))
    places = levels + LEVELS * jnp.arange(channels)[None, :]
    even = table.reshape(-1).at[places].get(mode="promise_in_bounds").reshape(image.shape)
    return jnp.where(changes[None, None, :], even, image)


def _whole(image: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(image), 0.0, 255.0)


def _histogram(levels: jax.Array) -> jax.Array:
    """Returns int32 [256], how many of int32 [P] levels are of each; they are in range."""
    return jnp.zeros(LEVELS, jnp.int32).at[levels].add(1, mode="promise_in_bounds")


def _evening_table(counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns float32 [256], what each level becomes, and whether anything is to be changed.

    Source: Pillow's `ImageOps.equalize`, in whole numbers as there.
    """
    highest = LEVELS - 1 - jnp.argmax(counts[::-1] > 0)
    step = (counts.sum() - counts[highest]) // 255
    below = jnp.cumsum(counts) - counts
    table = (step // 2 + below) // jnp.maximum(step, 1)
    return jnp.minimum(table, 255).astype(jnp.float32), step > 0
