"""Maps of the plane against Pillow and torchvision, what lies outside of images, what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sample_images import assert_uniform, by_channel, draws, noise

from tl_jax.augment import OPERATIONS, Augmentation, augmentation, geometry, operations, warps
from tl_jax.augment.sampling import FILLS, sample
from tl_jax.errors import InputError

warp = jax.jit(warps.warp, static_argnums=2)
SHAPES = {"square": (32, 32), "wide": (20, 33)}
MAPS = {
    "shift": lambda height, width: warps.translation_map(2.3, -4.75),
    "shear x": lambda height, width: warps.shear_map(0.3, 0.0),
    "shear y": lambda height, width: warps.shear_map(0.0, -0.45),
    "turn": lambda height, width: warps.centred(warps.rotation_map(33.0), height, width),
    "smaller": lambda height, width: warps.centred(
        jnp.diag(jnp.array([1.3, 1.3, 1])), height, width
    ),
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_linear_map_is_pillows(shape, name):
    """Float32 places are up to 1e-5 pixels away: 0.01 levels where neighbours differ by 255."""
    image, mapping = noise(*shape, 3), MAPS[name](*shape)
    data = np.asarray(mapping, float)[:2].ravel()
    expected = by_channel(
        image,
        lambda one: one.transform(
            one.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
        ),
    )
    np.testing.assert_allclose(warp(image, mapping), expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_corners_come_to_where_pillow_brings_them(shape):
    """The map is that of eight equations in float64; ours in float32: 0.1 levels."""
    height, width = shape
    corners = np.array([[3, 2], [width - 2, 4], [width - 7, height - 4], [1, height - 6]])
    start = [(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)]
    rows, values = [], []
    for (x, y), (u, v) in zip(corners.tolist(), start, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    data = np.linalg.solve(np.array(rows, float), np.array(values, float))
    found = warps.corner_map(jnp.array(corners), height, width)
    np.testing.assert_allclose((found / found[2, 2]).ravel()[:8], data, rtol=1e-4, atol=1e-6)
    image = noise(*shape, 3)
    expected = by_channel(
        image,
        lambda one: one.transform(
            one.size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR
        ),
    )
    np.testing.assert_allclose(warp(image, found), expected, atol=0.1, rtol=0)


def test_corners_are_drawn_as_torchvisions(transforms):
    """Each coordinate is one of torchvision's whole numbers, all as likely: 4 standard deviations."""
    found = draws(warps.draw_corners, 24, 32, 0.5)
    points = np.array(transforms.RandomPerspective.get_params(32, 24, 0.5)[1])
    assert points.shape == found.shape[1:]
    far = np.array([[0, 0], [31, 0], [31, 23], [0, 23]])
    moved = np.abs(found - far)
    for corner, axis in np.ndindex(4, 2):
        most = (8, 6)[axis]
        counts = np.bincount(moved[:, corner, axis], minlength=most + 1)
        assert len(counts) == most + 1
        expected = len(found) / (most + 1)
        assert np.abs(counts - expected).max() < 4 * expected**0.5
    assert (np.sign(found - far) == np.where(far == 0, 1, -1) * (moved > 0)).all()


@pytest.mark.parametrize("fill", FILLS)
def test_the_map_that_changes_nothing_gives_the_image_itself(fill):
    image = noise(9, 12, 3)
    np.testing.assert_array_equal(warp(image, jnp.eye(3), fill), image)
    np.testing.assert_array_equal(
        warp(image, warps.corner_map(jnp.array([[0, 0], [11, 0], [11, 8], [0, 8]]), 9, 12), fill)[
            1:-1, 1:-1
        ].round(2),
        image[1:-1, 1:-1],
    )


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shift", [(3, -2), (-7, 6), (0, 11)])
def test_what_lies_outside_is_what_numpy_pads_with(shift, fill):
    """Further out than the image is wide, too: it is mirrored or repeated again."""
    image = noise(6, 5, 3)
    x, y = shift
    padded = np.pad(image, ((12, 12), (12, 12), (0, 0)), mode=FILLS[fill])
    expected = padded[12 - y : 18 - y, 12 - x : 17 - x]
    found = warp(image, warps.translation_map(x, y), fill)
    np.testing.assert_array_equal(found, expected)


def test_half_way_between_the_edge_and_its_mirror_image_is_the_edge():
    """Keras's `reflect` has the pixels of the edge twice."""
    row = np.array([[[10.0], [30.0], [60.0]]], np.float32)
    found = sample(row, jnp.zeros(4), jnp.array([-0.5, -1.5, 2.5, 3.25]), "reflect")
    np.testing.assert_allclose(found[:, 0], [10, 20, 60, 52.5], atol=1e-4)
    wrapped = sample(row, jnp.zeros(2), jnp.array([-0.5, 2.25]), "wrap")
    np.testing.assert_allclose(wrapped[:, 0], [35, 47.5], atol=1e-4)


def test_an_image_turned_by_a_half_is_filled_by_its_mirror_image():
    image = noise(8, 8, 3)
    turned = np.asarray(geometry.rotate(image, 45.0, "reflect"))
    assert (np.asarray(geometry.rotate(image, 45.0))[0, 0] == 0).all()
    # (0, 0) comes from 4.95 pixels above the centre: 0.95 beyond the edge at -0.5, between columns 3 and 4.
    mirrored = -1 - (3.5 - 3.5 * 2**0.5)
    left, right = (image[0, x] + mirrored * (image[1, x] - image[0, x]) for x in (3, 4))
    np.testing.assert_allclose(turned[0, 0], (left + right) / 2, atol=0.01)


def places(name, strength):
    """Returns where each draw of an operation takes the centre pixel of its result from, in (x, y)."""
    grid = jnp.stack(jnp.meshgrid(jnp.arange(41.0), jnp.arange(41.0)), -1)
    image = jnp.concatenate([grid, jnp.zeros((41, 41, 1))], -1)
    operation = OPERATIONS.read(f"{name}={strength}")
    return draws(lambda key: operation(key, image)[jnp.array([10, 20, 30]), jnp.array([20, 20, 5])])


def test_shifts_are_uniform_shares_of_both_sides():
    found = places("translation", 0.25)[:, 1] - 20
    for axis in (0, 1):
        assert_uniform(-found[:, axis], -0.25 * 41 - 1e-3, 0.25 * 41 + 1e-3)
    assert abs(np.corrcoef(found[:, 0], found[:, 1])[0, 1]) < 0.065  # 4 standard deviations


def test_shears_are_along_x_by_uniform_angles():
    found = places("shear", 20)
    np.testing.assert_allclose(found[:, 1, :2], 20, atol=1e-3)
    np.testing.assert_allclose(found[:, 0, 1], 10, atol=1e-3)
    angles = np.rad2deg(np.arctan((found[:, 0, 0] - 20) / 10))
    assert_uniform(angles, -20.01, 20.01)


def test_zoom_is_keras_s_with_one_factor_for_both_sides():
    found = places("zoom", 0.3)
    assert_uniform((20 - found[:, 0, 1]) / 10, 0.7 - 1e-4, 1.3 + 1e-4)
    inside = found[:, 2, :2] > 0
    both = inside.all(1)
    factors = (found[both, 2, :2] - 20) / np.array([-15, 10])
    np.testing.assert_allclose(factors[:, 0], factors[:, 1], atol=1e-4)


@pytest.mark.parametrize("name", ["rotation=40", "shear=40", "translation=0.5", "zoom=0.9"])
def test_operations_have_the_fill_of_the_augmentation(name):
    """A white image stays white unless black comes in."""
    white = jnp.full((9, 9, 3), 255.0)
    operation = OPERATIONS.read(name)
    keys = jax.random.split(jax.random.key(3), 8)
    for fill in FILLS:
        filled = operations.with_fill(operation, fill)
        found = np.asarray(jax.vmap(filled, in_axes=(0, None))(keys, white))
        assert (found.min() == 0) == (fill == "black")


@pytest.mark.parametrize("fill", FILLS)
def test_crops_are_padded_with_the_fill(fill):
    images = noise(12, 6, 6, 3).astype(np.uint8)
    keys = jax.random.split(jax.random.key(0), 12)
    found = np.asarray(augmentation.crop_and_flip(keys, images, 3, False, fill))
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode=FILLS[fill])
    for image, source in zip(found, padded, strict=True):
        crops = np.lib.stride_tricks.sliding_window_view(source, (6, 6, 3)).reshape(-1, 6, 6, 3)
        assert (crops == image).all((1, 2, 3)).any()


def test_an_unknown_fill_is_refused():
    with pytest.raises(InputError, match="unknown fill 'reflekt'; nearest: reflect"):
        Augmentation(fill="reflekt")


def test_operations_without_a_fill_are_left_alone():
    operation = OPERATIONS.read("hue=0.1")
    assert operations.with_fill(operation, "reflect") is operation


@pytest.mark.parametrize("fill", FILLS)
def test_places_at_infinity_are_pixels(fill):
    """The horizon of a projective map; a map of corners of which three are on a line."""
    image = noise(16, 16, 3)
    places = jnp.array([jnp.inf, -jnp.inf, jnp.nan, 0.0])
    found = np.asarray(sample(image, places, places, fill))
    expected = np.zeros((4, 3)) if fill == "black" else np.tile(image[0, 0], (4, 1))
    expected[3] = image[0, 0]
    np.testing.assert_array_equal(found, expected)
    flat = warps.corner_map(jnp.array([[0, 0], [12, 4], [8, 8], [4, 12]]), 16, 16)
    assert np.isfinite(warp(image, flat, fill)).all()


@pytest.mark.parametrize(
    ("corners", "convex"),
    [
        ([[0, 0], [15, 0], [15, 15], [0, 15]], True),
        ([[7, 7], [8, 7], [8, 8], [7, 8]], True),
        ([[0, 0], [12, 4], [8, 8], [4, 12]], False),  # three on a line
        ([[0, 0], [14, 7], [8, 8], [7, 14]], False),  # the third inside of the others
    ],
)
def test_convex_corners(corners, convex):
    assert bool(warps.is_convex(jnp.array(corners))) is convex


@pytest.mark.parametrize("fill", ["reflect", "edge", "wrap"])
def test_perspective_of_the_largest_strength_is_an_image(fill):
    image = jnp.asarray(noise(16, 16, 3))
    keys = jax.random.split(jax.random.key(0), 500)
    corners = jax.vmap(lambda key: warps.draw_corners(key, 16, 16, 0.99))(keys)
    assert not np.asarray(jax.vmap(warps.is_convex)(corners)).all()
    found = jax.jit(jax.vmap(lambda key: warps.perspective(key, image, 0.99, fill)))(keys)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 255.01


def test_corners_that_make_no_quadrilateral_move_by_half(monkeypatch):
    drawn = jnp.array([[0, 0], [12, 4], [8, 8], [4, 12]])
    monkeypatch.setattr(warps, "draw_corners", lambda *_: drawn)
    image = noise(16, 16, 3)
    half = jnp.array([[0, 0], [13.5, 2], [11.5, 11.5], [2, 13.5]])
    found = warps.perspective(jax.random.key(0), jnp.asarray(image), 0.9)
    np.testing.assert_allclose(found, warp(image, warps.corner_map(half, 16, 16)), atol=0.05)
