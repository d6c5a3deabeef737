"""Translation, shear, zoom and perspective of one image: what a linear or projective map of its plane does.

A map takes places of the result to places of the image: (x, y, 1), in pixels from the upper left corner of the image,
the centre of the first pixel at (0.5, 0.5), as in Pillow's `Image.transform`.
Shapes: an image is float32 [H, W, C], pixels in [0, 255]; a map is float32 [3, 3].
"""

import jax
import jax.numpy as jnp

from tl_jax.augment.sampling import sample


def translation(
    key: jax.Array, image: jax.Array, strength: float, fill: str = "black"
) -> jax.Array:
    """Returns the image moved by shares of its width and height, each uniform in ± `strength`.

    Source: Keras `RandomTranslation(strength, strength)`, which also moves by parts of pixels.
    """
    height, width = image.shape[:2]
    x, y = draw_pair(key, strength)
    return warp(image, translation_map(x * width, y * height), fill)


def shear(key: jax.Array, image: jax.Array, strength: float, fill: str = "black") -> jax.Array:
    """Returns the image sheared along x about its centre, by an angle uniform in ± `strength` degrees.

    Source: torchvision `RandomAffine(0, shear=strength)`.
    """
    height, width = image.shape[:2]
    angle = jax.random.uniform(key, minval=-strength, maxval=strength)
    return warp(image, centred(shear_map(jnp.tan(jnp.deg2rad(angle)), 0.0), height, width), fill)


def zoom(key: jax.Array, image: jax.Array, strength: float, fill: str = "black") -> jax.Array:
    """Returns the image shown at `1 / f` of its size about its centre, `f` uniform in 1 ± `strength`.

    Above 1 the image gets smaller and `fill` surrounds it. Nothing is averaged when it does.

    Source: Keras `RandomZoom(strength)`.
    """
    height, width = image.shape[:2]
    factor = jax.random.uniform(key, minval=1 - strength, maxval=1 + strength)
    return warp(image, centred(jnp.diag(jnp.stack([factor, factor, 1.0])), height, width), fill)


def perspective(
    key: jax.Array, image: jax.Array, strength: float, fill: str = "black"
) -> jax.Array:
    """Returns the image seen from elsewhere: each corner moves inwards by up to `strength` / 2 of a side.

    Corners that make no convex quadrilateral, which can happen from a strength of 2/3 on, show an image from
    nowhere: they move by half of it.

    Source: torchvision `RandomPerspective(distortion_scale=strength, p=1)`, which draws such corners too.
    """
    height, width = image.shape[:2]
    corners = draw_corners(key, height, width, strength)
    start = jnp.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
    corners = jnp.where(is_convex(corners), corners, (corners + start) / 2)
    return warp(image, corner_map(corners, height, width), fill)


def draw_pair(key: jax.Array, strength: float) -> jax.Array:
    """Returns float32 [2], uniform in [-strength, strength)."""
    return jax.random.uniform(key, (2,), minval=-strength, maxval=strength)


def draw_corners(key: jax.Array, height: int, width: int, strength: float) -> jax.Array:
    """Returns where the corners come to, int32 [4, 2] of (x, y): upper left, upper right, lower right, lower left.

    Each is moved by whole pixels, uniform from 0 to `strength` of half of the width, and of the height.
    """
    most = jnp.array([int(strength * (width // 2)), int(strength * (height // 2))])
    moved = jax.random.randint(key, (4, 2), 0, most + 1)
    sides = jnp.array([width - 1, height - 1])
    far = jnp.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    return jnp.where(far == 1, sides - moved, moved)


def is_convex(corners: jax.Array) -> jax.Array:
    """Returns whether corners, [4, 2] in the order of `draw_corners`, make a convex quadrilateral: bool."""
    sides = jnp.roll(corners, -1, axis=0) - corners
    following = jnp.roll(sides, -1, axis=0)
    return (sides[:, 0] * following[:, 1] > sides[:, 1] * following[:, 0]).all()


def translation_map(x: jax.Array | float, y: jax.Array | float) -> jax.Array:
    """Returns the map of an image moved by x pixels to the right and y down."""
    return jnp.eye(3).at[:2, 2].set(jnp.stack([-jnp.asarray(x), -jnp.asarray(y)]))


def shear_map(x: jax.Array | float, y: jax.Array | float) -> jax.Array:
    """Returns the map of a shear about the origin, where x of y is added to x, and y of x to y."""
    return jnp.eye(3).at[0, 1].set(x).at[1, 0].set(y)


def rotation_map(angle: jax.Array | float) -> jax.Array:
    """Returns the map of a rotation about the origin by `angle` degrees counter-clockwise."""
    radians = jnp.deg2rad(jnp.asarray(angle, jnp.float32))
    cosine, sine = jnp.cos(radians), jnp.sin(radians)
    return jnp.eye(3).at[:2, :2].set(jnp.array([[cosine, -sine], [sine, cosine]]))


def centred(about_origin: jax.Array, height: int, width: int) -> jax.Array:
    """Returns the linear map that does about the centre of the image what another does about the origin."""
    centre = jnp.array([width / 2, height / 2, 1.0])
    linear = about_origin[:2, :2]
    moved = centre[:2] - (linear * centre[None, :2]).sum(1)
    return about_origin.at[:2, 2].set(moved)


def corner_map(corners: jax.Array, height: int, width: int) -> jax.Array:
    """Returns the projective map of an image whose corners come to `corners`; see `draw_corners`.

    The corners of the image are the first and last pixels, as torchvision counts them. In closed form:
    the map from the unit square to the quadrilateral is inverted, and the square stretched to the image.

    Source: Heckbert 1989, Fundamentals of Texture Mapping and Image Warping, section 2.2.3.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners.astype(jnp.float32)
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area
    a, b, c = x1 - x0 + g * x1, x3 - x0 + h * x3, x0
    d, e, f = y1 - y0 + g * y1, y3 - y0 + h * y3, y0
    # The adjugate: the inverse but for a factor, which a projective map does not see.
    inverse = jnp.array(
        [
            [e - f * h, c * h - b, b * f - c * e],
            [f * g - d, a - c * g, c * d - a * f],
            [d * h - e * g, b * g - a * h, a * e - b * d],
        ]
    )
    return inverse * jnp.array([[width - 1.0], [height - 1.0], [1.0]])


def warp(image: jax.Array, mapping: jax.Array, fill: str = "black") -> jax.Array:
    """Returns the image whose pixels come from where `mapping` says, bilinear; see `sampling.sample`.

    As Pillow's `Image.transform` with AFFINE or PERSPECTIVE and BILINEAR where `fill` is "black". The map that
    changes nothing gives the image itself, bit for bit.
    """
    height, width = image.shape[:2]
    x = (jnp.arange(width, dtype=jnp.float32) + 0.5)[None, :]
    y = (jnp.arange(height, dtype=jnp.float32) + 0.5)[:, None]
    columns, rows, scale = (row[0] * x + row[1] * y + row[2] for row in mapping)
    return sample(image, rows / scale - 0.5, columns / scale - 0.5, fill)
