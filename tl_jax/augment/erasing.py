"""Boxes of one image, erased: random erasing and cutout.

Shapes: an image is float32 [H, W, 3], pixels in [0, 255].
"""

import math

import jax
import jax.numpy as jnp

from tl_jax.augment.geometry import TRIES

# Of the box's area to the image's, and of its height to its width.
_AREAS, _RATIOS = (0.02, 0.33), (0.3, 3.3)
# The mean pixel of ImageNet: 0 after normalisation for a network pretrained there.
FILL = (123.675, 116.28, 103.53)


def random_erasing(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image, with probability `strength` with one box of it erased.

    The erased pixels become (123.675, 116.28, 103.53), the mean of ImageNet.

    Source: Zhong et al. 2017 (arXiv:1708.04896), algorithm 1; sampled as torchvision's `RandomErasing`.
    """
    height, width = image.shape[:2]
    return erase(image, draw_box(key, height, width, strength))


def cutout(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image with a square of `strength` x `strength` pixels erased, its centre a uniform pixel.

    What lies outside of the image is cut off. The erased pixels become the mean of ImageNet, which after
    normalisation is near the zero of the paper. An odd number of pixels is rounded down to an even one.

    Source: DeVries and Taylor 2017 (arXiv:1708.04552), section 3.2; github.com/uoguelph-mlrg/Cutout.
    """
    height, width = image.shape[:2]
    return erase(image, draw_square(key, height, width, int(strength) // 2))


def draw_square(key: jax.Array, height: int, width: int, half: int) -> jax.Array:
    """Returns a box, int32 (top, left, height, width): `half` pixels about a uniform pixel, or up to the edge."""
    sides = jnp.array([height, width])
    centre = jax.random.randint(key, (2,), 0, sides)
    first, last = (jnp.clip(centre + sign * half, 0, sides) for sign in (-1, 1))
    return jnp.concatenate([first, last - first])


def draw_box(key: jax.Array, height: int, width: int, probability: float) -> jax.Array:
    """Returns a random box, int32 (top, left, height, width), of height 0 where nothing is to be erased.

    Its share of the area is uniform in [0.02, 0.33], the logarithm of its height over its width uniform
    between those of 0.3 and 3.3. The first of ten that are smaller than the image both ways is taken, at
    a uniform place; where none is, nothing is erased.
    """
    erase_key, area_key, ratio_key, place_key = jax.random.split(key, 4)
    share = jax.random.uniform(area_key, (TRIES,), minval=_AREAS[0], maxval=_AREAS[1])
    logarithms = [math.log(ratio) for ratio in _RATIOS]
    ratio = jnp.exp(
        jax.random.uniform(ratio_key, (TRIES,), minval=logarithms[0], maxval=logarithms[1])
    )
    area = height * width * share
    sides = jnp.round(jnp.sqrt(jnp.stack([area * ratio, area / ratio]))).astype(jnp.int32)
    room = jnp.array([[height], [width]])
    fits = (sides < room).all(0)
    erased = fits.any() & jax.random.bernoulli(erase_key, probability)
    box = jnp.where(erased, sides[:, fits.argmax()], 0)
    place = jax.random.randint(place_key, (2,), 0, room[:, 0] - box + 1)
    return jnp.concatenate([place, box])


def erase(image: jax.Array, box: jax.Array) -> jax.Array:
    """Returns the image with the pixels of a box (top, left, height, width) replaced by `FILL`."""
    top, left, height, width = box
    row, column = jnp.arange(image.shape[0]), jnp.arange(image.shape[1])
    rows = (row >= top) & (row < top + height)
    columns = (column >= left) & (column < left + width)
    inside = (rows[:, None] & columns[None, :])[..., None]
    return jnp.where(inside, jnp.array(FILL)[None, None, :], image)
