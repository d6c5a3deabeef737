"""Rotations and crops of one image.

Every operation is in two parts, as torchvision's are: the first draws parameters, the second applies them.
Shapes: an image is float32 [H, W, C], pixels in [0, 255].
"""

import math

import jax
import jax.numpy as jnp

from tl_jax.augment.sampling import between, neighbours, sample

# Of a crop's width to its height, and how many crops are drawn until one fits.
_RATIOS = (3 / 4, 4 / 3)
TRIES = 10


def rotation(key: jax.Array, image: jax.Array, strength: float, fill: str = "black") -> jax.Array:
    """Returns the image rotated about its centre by an angle uniform in ± `strength` degrees.

    Bilinear; `fill` stands outside of the image.
    """
    return rotate(image, draw_angle(key, strength), fill)


def draw_angle(key: jax.Array, strength: float) -> jax.Array:
    """Returns an angle in degrees, uniform in [-strength, strength)."""
    return jax.random.uniform(key, minval=-strength, maxval=strength)


def rotate(image: jax.Array, angle: jax.Array | float, fill: str = "black") -> jax.Array:
    """Returns the image rotated by `angle` degrees counter-clockwise about its centre.

    As Pillow's `Image.rotate(angle, BILINEAR)` where `fill` is "black"; see `sampling.sample`.
    """
    height, width = image.shape[:2]
    radians = jnp.deg2rad(jnp.asarray(angle, jnp.float32))
    cosine, sine = jnp.cos(radians), jnp.sin(radians)
    # From the centre of the image to the centre of each pixel.
    x = (jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2)[None, :]
    y = (jnp.arange(height, dtype=jnp.float32) - (height - 1) / 2)[:, None]
    columns = cosine * x - sine * y + (width - 1) / 2
    rows = sine * x + cosine * y + (height - 1) / 2
    return sample(image, rows, columns, fill)


def random_resized_crop(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns a random crop of at least `strength` of the image's area, resized to the image's size.

    Source: Szegedy et al. 2014 (arXiv:1409.4842), section 6; sampled as torchvision's `RandomResizedCrop`.
    """
    height, width = image.shape[:2]
    return resized_crop(image, draw_crop(key, height, width, strength))


def draw_crop(key: jax.Array, height: int, width: int, least: float) -> jax.Array:
    """Returns a random box, int32 (top, left, height, width).

    Its share of the area is uniform in [least, 1], the logarithm of its width over its height uniform
    between those of 3/4 and 4/3. The first of ten that fit is taken, at a uniform place; where none fits,
    the largest central box whose ratio is in range.
    """
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    share = jax.random.uniform(area_key, (TRIES,), minval=least, maxval=1.0)
    logarithms = [math.log(ratio) for ratio in _RATIOS]
    ratio = jnp.exp(
        jax.random.uniform(ratio_key, (TRIES,), minval=logarithms[0], maxval=logarithms[1])
    )
    area = height * width * share
    sides = jnp.round(jnp.sqrt(jnp.stack([area / ratio, area * ratio]))).astype(jnp.int32)
    room = jnp.array([[height], [width]])
    fits = ((sides >= 1) & (sides <= room)).all(0)
    central = jnp.array(_largest(height, width))
    box = jnp.where(fits.any(), sides[:, fits.argmax()], central)
    free = room[:, 0] - box
    place = jax.random.randint(place_key, (2,), 0, free + 1)
    return jnp.concatenate([jnp.where(fits.any(), place, free // 2), box])


def resized_crop(image: jax.Array, box: jax.Array) -> jax.Array:
    """Returns the part of the image in a box (top, left, height, width), resized to the image's size.

    Bilinear. A crop is never larger than its image, so nothing is shrunk and Pillow's filter has the
    two neighbours of each place alone; those beyond the crop's edge are the pixel at the edge.
    """
    height, width = image.shape[:2]
    top, left, box_height, box_width = box
    rows, down = _sources(height, top, box_height)
    columns, right = _sources(width, left, box_width)
    above, below = (_take(image, row, 0) for row in rows)
    image = between(above, below, down[:, None, None])
    before, after = (_take(image, column, 1) for column in columns)
    return between(before, after, right[None, :, None])


def _largest(height: int, width: int) -> tuple[int, int]:
    """Returns (height, width) of the largest box whose ratio is in range."""
    least, most = _RATIOS
    if width / height < least:
        return round(width / least), width
    if width / height > most:
        return height, round(height * most)
    return height, width


def _sources(
    size: int, start: jax.Array, length: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Returns the two neighbours [size] of each output pixel, and the weight of the second."""
    place = (jnp.arange(size, dtype=jnp.float32) + 0.5) * (length / size) - 0.5
    first, weight = neighbours(place)
    low, high = (jnp.clip(index, 0, length - 1) + start for index in (first, first + 1))
    return (low, high), weight


def _take(image: jax.Array, indices: jax.Array, axis: int) -> jax.Array:
    where = (indices,) if axis == 0 else (slice(None), indices)
    return jnp.asarray(image).at[where].get(mode="promise_in_bounds")
