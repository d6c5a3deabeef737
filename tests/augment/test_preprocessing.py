"""The network's input: against Pillow where its definition is ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tl_jax.augment import make_train_transform, preprocessing
from tl_jax.errors import InputError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def photo_like(height, width):
    """Returns smooth uint8 [1, height, width, 3] well inside (0, 255)."""
    rows, columns = np.mgrid[0:height, 0:width] / 6
    image = 128 + 50 * np.sin(rows)[..., None] * np.cos(columns)[..., None] + [0, 20, -20]
    return image.astype(np.uint8)[None]


SIZES = [
    pytest.param((32, 32), (96, 96), id="3x up"),
    pytest.param((32, 32), (75, 70), id="up, not whole"),
    pytest.param((96, 96), (32, 32), id="3x down"),
    pytest.param((70, 50), (33, 29), id="down, not whole"),
    pytest.param((40, 20), (20, 40), id="one side each way"),
]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("stored", "wanted"), SIZES)
def test_resize_is_pillows_on_float_images(stored, wanted, interpolation):
    # Pillow neither rounds nor clips images of mode F, so the filters are compared as such.
    image = np.random.default_rng(0).uniform(96, 160, stored).astype(np.float32)
    height, width = wanted
    expected = Image.fromarray(image).resize((width, height), FILTERS[interpolation])
    ours = preprocessing.resize(jnp.asarray(image)[None, ..., None], wanted, interpolation)
    np.testing.assert_allclose(ours[0, ..., 0], np.asarray(expected), atol=2e-3, rtol=0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("stored", "wanted"), SIZES)
def test_resize_is_within_roundings_of_pillow_on_uint8_images(stored, wanted, interpolation):
    # Pillow rounds after each of its two passes: half a level times the sum of the absolute weights
    # of the second pass (1 for the triangle, at most 1.25 for the cubic), and half a level.
    images = photo_like(*stored)
    height, width = wanted
    expected = Image.fromarray(images[0]).resize((width, height), FILTERS[interpolation])
    ours = preprocessing.resize(jnp.asarray(images), wanted, interpolation)[0]
    tolerance = {"bilinear": 1.0, "bicubic": 1.125}[interpolation]
    assert np.abs(np.asarray(ours) - np.asarray(expected, np.float32)).max() <= tolerance


def test_bilinear_resize_of_noise_is_within_one_level_of_pillow():
    images = noise(1, 64, 48, 3)
    expected = Image.fromarray(images[0]).resize((30, 40), Image.Resampling.BILINEAR)
    ours = preprocessing.resize(jnp.asarray(images), (40, 30))[0]
    assert np.abs(np.asarray(ours) - np.asarray(expected, np.float32)).max() <= 1.0


def test_bicubic_overshoot_is_clipped():
    step = np.zeros((1, 8, 8, 3), np.uint8)
    step[:, :, 4:] = 255
    ours = preprocessing.resize(jnp.asarray(step), (32, 32), "bicubic")
    assert float(ours.min()) == 0.0
    assert float(ours.max()) == 255.0


def test_resize_to_the_same_size_changes_nothing():
    images = jnp.asarray(noise(1, 8, 8, 3))
    assert preprocessing.resize(images, (8, 8)) is images


@pytest.mark.parametrize(
    ("shape", "shorter", "expected"),
    [
        pytest.param((480, 640), 256, (256, 341), id="341.33 rounded down"),
        pytest.param((640, 480), 256, (341, 256), id="portrait"),
        pytest.param((500, 375), 232, (309, 232), id="309.33"),
        pytest.param((32, 32), 256, (256, 256), id="square, enlarged"),
    ],
)
def test_resized_shape_is_torchvisions(shape, shorter, expected):
    assert preprocessing.resized_shape(*shape, shorter) == expected


@pytest.mark.parametrize(
    ("height", "width", "size", "top", "left"),
    [
        pytest.param(8, 8, 4, 2, 2, id="even margins"),
        pytest.param(8, 9, 4, 2, 2, id="2.5 to 2"),
        pytest.param(7, 11, 4, 2, 4, id="1.5 to 2, 3.5 to 4"),
        pytest.param(4, 4, 4, 0, 0, id="no margin"),
    ],
)
def test_central_crop(height, width, size, top, left):
    images = noise(2, height, width, 3)
    expected = images[:, top : top + size, left : left + size]
    np.testing.assert_array_equal(preprocessing.central_crop(images, size), expected)


def test_normalize_by_hand():
    images = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 1, 3)
    result = preprocessing.normalize(images, (0.5, 0.0, 0.2), (0.25, 0.1, 0.4))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result.reshape(3), [-2.0, 2.0, 2.0], rtol=1e-6)


def test_evaluation_resizes_crops_and_normalises():
    spec = preprocessing.Preprocessing(image_size=24, resize=28, interpolation="bicubic")
    images = photo_like(56, 70)
    result = jax.jit(preprocessing.make_eval_transform(spec))(images)
    small = Image.fromarray(images[0]).resize((35, 28), Image.Resampling.BICUBIC)
    cropped = np.asarray(small, np.float32)[2:26, 6:30]  # margins 2 and 5.5, half to even
    expected = (cropped / 255 - np.array(spec.mean)) / np.array(spec.std)
    assert result.shape == (1, 24, 24, 3)
    assert result.dtype == jnp.float32
    tolerance = 1 / 255 / min(spec.std)
    np.testing.assert_allclose(result[0], expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("stored", "spec"),
    [
        pytest.param((16, 16), {}, id="stored size is the input size"),
        pytest.param((20, 30), {}, id="shorter side, then the centre"),
        pytest.param((20, 30), {"resize": 16}, id="resized and cropped"),
    ],
)
def test_both_paths_end_at_the_input_size(stored, spec):
    spec = preprocessing.Preprocessing(image_size=16, **spec)
    images = noise(2, *stored, 3)
    train_transform = jax.jit(make_train_transform(spec))
    evaluated = jax.jit(preprocessing.make_eval_transform(spec))(images)
    trained = train_transform(jax.random.key(0), jnp.arange(2), images)
    assert evaluated.shape == trained.shape == (2, 16, 16, 3)
    assert evaluated.dtype == trained.dtype == jnp.float32
    np.testing.assert_array_equal(evaluated, trained)


def test_a_side_without_a_resize_is_the_shorter_one():
    """As on the host, where one image of another size among them would send them."""
    images = photo_like(20, 30)
    spec = preprocessing.Preprocessing(16, **PLAIN)
    found = preprocessing.make_eval_transform(spec)(images)[0]
    small = Image.fromarray(images[0]).resize((24, 16), Image.Resampling.BILINEAR)
    expected = np.asarray(small, np.float32)[:, 4:20] / 255
    np.testing.assert_allclose(found, expected, atol=1 / 255, rtol=0)


def test_one_channel_is_repeated():
    images = noise(2, 16, 16, 1)
    transform = preprocessing.make_eval_transform(preprocessing.Preprocessing(16, **PLAIN))
    expected = np.repeat(images, 3, axis=3) / np.float32(255)
    np.testing.assert_allclose(transform(images), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        pytest.param({"interpolation": "bicubik"}, ["bicubik", "nearest: bicubic"], id="filter"),
        pytest.param({"image_size": 0}, ["image_size is 0"], id="size"),
        pytest.param({"resize": 15}, ["resize is 15", "at least image_size 16"], id="resize"),
        pytest.param({"mean": (0.5, 0.5)}, ["mean has 2 and std 3"], id="channels"),
        pytest.param({"mean": (120.0, 0.5, 0.5)}, ["numbers in [0, 1]"], id="0 to 255 scale"),
        pytest.param(
            {"std": (0.0, 1.0, 1.0), "resize": 8},
            ["numbers in (0, 1]", "resize is 8"],
            id="all listed",
        ),
    ],
)
def test_a_bad_specification_is_refused(changes, parts):
    with pytest.raises(InputError) as caught:
        preprocessing.Preprocessing(**{"image_size": 16, **changes})
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(np.zeros((2, 8, 8, 3), np.float32), id="float"),
        pytest.param(np.zeros((8, 8, 3), np.uint8), id="no batch"),
        pytest.param(np.zeros((2, 8, 8, 4), np.uint8), id="alpha"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(images):
    transform = preprocessing.make_eval_transform(preprocessing.Preprocessing(8))
    with pytest.raises(InputError, match=r"expected uint8 \[B, H, W, C\] with C 1 or 3"):
        transform(images)
