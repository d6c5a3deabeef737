"""Blur against torchvision, sharpness against Pillow, noise against its distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import ImageFilter
from sample_images import assert_uniform, draws, noise, whole

from tl_jax.augment import OPERATIONS, filters


@pytest.mark.parametrize("sigma", [0.1, 0.9, 2.0])
def test_blur_is_torchvisions(transforms, sigma):
    """Float32 sums of 13 x 13 products: 1e-3 levels."""
    import torch

    image = noise(16, 20, 3)
    theirs = torch.from_numpy(np.moveaxis(image, 2, 0).copy())
    blurred = transforms.functional.gaussian_blur(theirs, [13, 13], [sigma, sigma])
    found = jax.jit(filters.gaussian, static_argnums=2)(image, sigma, 6)
    np.testing.assert_allclose(found, np.moveaxis(blurred.numpy(), 0, 2), atol=1e-3, rtol=0)


def test_the_kernel_holds_three_standard_deviations():
    assert filters.kernel_radius(2.0) == 6 and filters.kernel_radius(0.1) == 1


def test_a_blur_wider_than_the_image_keeps_its_mean():
    """Mirrored without its edge, an image has its inner pixels twice as often: about the mean, not exactly."""
    image = noise(5, 5, 3)
    found = np.asarray(filters.gaussian(image, 20.0, 9))
    assert np.ptp(found[..., 0]) < 20 and abs(found.mean() - image.mean()) < 20


def test_standard_deviations_are_uniform():
    """A step from 0 to 255 in the middle: the share of the next pixel says how wide the kernel is."""
    image = jnp.zeros((1, 61, 1)).at[0, 30].set(1.0)
    operation = OPERATIONS.read("blur=3")
    found = draws(lambda key: operation(key, image)[0, :, 0])
    # The variance of the kernel is sigma squared; cut off at 9 pixels and sampled it is a little other.
    spread = (found * np.square(np.arange(61) - 30)).sum(1)
    expected = np.sort(np.sqrt(spread))
    assert expected[0] >= 0 and abs(np.median(expected) - 1.55) < 0.1
    wide = expected[(expected > 0.6) & (expected < 2.5)]
    assert_uniform(wide, 0.6, 2.5)


def test_smooth_is_pillows():
    """Pillow rounds to whole levels."""
    image = noise(9, 14, 3)
    expected = np.asarray(whole(image).filter(ImageFilter.SMOOTH), np.float32)
    np.testing.assert_allclose(filters.smooth(image), expected, atol=0.51, rtol=0)


def test_noise_is_normal_and_of_its_own_for_every_value():
    grey = jnp.full((64, 64, 3), 127.0)
    operation = OPERATIONS.read("noise=0.05")
    drawn = (np.asarray(operation(jax.random.key(1), grey)) - 127) / (255 * 0.05)
    count = drawn.size
    # 4 standard deviations of the mean, of the variance, and of the share within one.
    assert abs(drawn.mean()) < 4 / count**0.5
    assert abs(drawn.var() - 1) < 4 * (2 / count) ** 0.5
    assert abs((np.abs(drawn) < 1).mean() - 0.6827) < 4 * (0.22 / count) ** 0.5
    assert np.abs(np.corrcoef(drawn.reshape(-1, 3).T) - np.eye(3)).max() < 4 / 64


def test_noise_stays_in_range():
    found = np.asarray(OPERATIONS.read("noise=1")(jax.random.key(0), jnp.full((8, 8, 3), 250.0)))
    assert found.min() == 0 and found.max() == 255
