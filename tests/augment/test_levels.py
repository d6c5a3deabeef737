"""Posterise, solarise, equalise and auto-contrast against Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import ImageOps
from sample_images import assert_share, draws, noise, whole

from tl_jax.augment import OPERATIONS, levels


def images():
    """Returns images of many levels, few, one, and of one that is far more common than the others."""
    common = np.full((20, 24, 3), 77.0, np.float32)
    common[0, :5] = noise(5, 3)
    rare = np.full((20, 24, 3), 200.0, np.float32)
    rare[:15] = noise(15, 24, 3, seed=4) // 4
    return {
        "noise": noise(20, 24, 3),
        "narrow": 90 + noise(20, 24, 3) // 8,
        "one level": np.full((20, 24, 3), 77.0, np.float32),
        "common": common,
        "rare": rare,
        "few pixels": noise(3, 5, 3),
    }


IMAGES = images()


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_equalise_is_pillows(image):
    found = np.asarray(jax.jit(levels.make_even)(image))
    np.testing.assert_array_equal(found, np.asarray(ImageOps.equalize(whole(image)), np.float32))


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_auto_contrast_is_pillows(image):
    """Which truncates to whole levels: less than one."""
    factor, shift = levels.stretching(jnp.asarray(image))
    found = np.asarray(image * factor + shift)
    expected = np.asarray(ImageOps.autocontrast(whole(image)), np.float32)
    assert (found - expected).min() >= -1e-3 and (found - expected).max() < 1 + 1e-3


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterise_is_pillows(bits):
    image = IMAGES["noise"]
    expected = np.asarray(ImageOps.posterize(whole(image), bits), np.float32)
    np.testing.assert_array_equal(levels.keep_bits(image, bits), expected)


@pytest.mark.parametrize("threshold", [0, 100, 128, 255])
def test_solarise_is_pillows(threshold):
    image = IMAGES["noise"]
    expected = np.asarray(ImageOps.solarize(whole(image), threshold), np.float32)
    np.testing.assert_array_equal(levels.invert_from(image, threshold), expected)


def test_levels_between_whole_ones_are_rounded_where_bits_count():
    image = np.full((1, 1, 1), 127.6, np.float32)
    assert levels.keep_bits(image, 1)[0, 0, 0] == 128
    assert levels.keep_bits(image + 128, 8)[0, 0, 0] == 255


@pytest.mark.parametrize(
    ("text", "probability"),
    [("posterise=2", 0.5), ("solarise=10", 0.5), ("equalise=0.3", 0.3), ("auto_contrast=0.7", 0.7),
     ("grey=0.2", 0.2)],
)  # fmt: skip
def test_images_are_changed_with_their_probability(text, probability):
    image = jnp.asarray(90 + noise(18, 18, 3) // 3)
    operation = OPERATIONS.read(text)
    assert_share(draws(lambda key: (operation(key, image) != image).any()), probability)
