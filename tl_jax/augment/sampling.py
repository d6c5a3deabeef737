"""Pixels of one image at any place: bilinear, with a rule for what lies outside of the image.

Shapes: an image is float32 [H, W, C], pixels in [0, 255].
"""

import jax
import jax.numpy as jnp

from tl_jax import errors

# What stands outside of an image, with the mode of `jax.numpy.pad` that says the same.
#
# reflect: the image mirrored at its edge, whose pixels are there twice (c b a | a b c | c b a), as in Keras; edge:
# the pixel at the edge; wrap: the image again from its other side.
FILLS = {"black": "constant", "reflect": "symmetric", "edge": "edge", "wrap": "wrap"}


def check_fill(fill: str) -> None:
    """Raises InputError unless `fill` is one of `FILLS`."""
    if fill not in FILLS:
        raise errors.unknown("fill", fill, FILLS)


def sample(image: jax.Array, rows: jax.Array, columns: jax.Array, fill: str = "black") -> jax.Array:
    """Returns the pixels at places of an image, bilinear: [..., C].

    As Pillow's `Image.transform(..., BILINEAR)` where `fill` is "black": a place that is inside of no pixel is
    black, and neighbours beyond the edge are the pixel at the edge.

    Args:
        image: where pixels are taken.
        rows: float32 [...], places from the centre of the first pixel.
        columns: likewise. A place that is infinite or not a number is black, or the first pixel.
        fill: what stands outside of the image, one of `FILLS`.
    """
    height, width = image.shape[:2]
    if fill != "black":
        # Of a projective map, places on its horizon are infinite.
        rows, columns = (jnp.where(jnp.isfinite(place), place, 0) for place in (rows, columns))
    top, down = neighbours(rows)
    left, right = neighbours(columns)
    source = jnp.asarray(image)

    def pixels(row: jax.Array, column: jax.Array) -> jax.Array:
        places = _inside(row, height, fill), _inside(column, width, fill)
        return source.at[places].get(mode="promise_in_bounds")

    above = between(pixels(top, left), pixels(top, left + 1), right[..., None])
    below = between(pixels(top + 1, left), pixels(top + 1, left + 1), right[..., None])
    sampled = between(above, below, down[..., None])
    if fill != "black":
        return sampled
    inside = (columns >= -0.5) & (columns < width - 0.5) & (rows >= -0.5) & (rows < height - 0.5)
    return jnp.where(inside[..., None], sampled, 0.0)


def neighbours(place: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the index at or before each place, and how far the place is from it."""
    before = jnp.floor(place)
    return before.astype(jnp.int32), place - before


def between(first: jax.Array, second: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns what is `weight` of the way from the first to the second."""
    return first + weight * (second - first)


def _inside(index: jax.Array, size: int, fill: str) -> jax.Array:
    """Returns the index of the pixel that stands at `index`, which may be outside."""
    if fill == "wrap":
        return index % size
    if fill == "reflect":
        index = index % (2 * size)
        return jnp.minimum(index, 2 * size - 1 - index)
    return jnp.clip(index, 0, size - 1)
