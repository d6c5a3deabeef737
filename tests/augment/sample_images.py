"""Images for the tests of operations, and what others make of them."""

import math

import jax
import numpy as np
from PIL import Image

COUNT = 4000  # draws


def noise(*shape, seed=0):
    """Returns whole levels, float32."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8).astype(np.float32)


def by_channel(image, change):
    """Returns what Pillow's float images, which it does not round, become, channel by channel."""
    channels = [
        np.asarray(change(Image.fromarray(channel))) for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, -1)


def whole(image):
    """Returns Pillow's image of whole levels."""
    return Image.fromarray(np.asarray(image).astype(np.uint8))


def draws(draw, *arguments):
    """Returns COUNT draws."""
    keys = jax.random.split(jax.random.key(5), COUNT)
    return np.asarray(jax.jit(jax.vmap(lambda key: draw(key, *arguments)))(keys))


def assert_uniform(values, low, high):
    """Asserts the Kolmogorov-Smirnov distance of uniform draws: beyond 1.95 / sqrt(n) once in a thousand."""
    values = np.sort((np.asarray(values, float) - low) / (high - low))
    assert values[0] >= 0 and values[-1] <= 1
    steps = np.arange(len(values) + 1) / len(values)
    distance = max(np.abs(steps[1:] - values).max(), np.abs(steps[:-1] - values).max())
    assert distance < 1.95 / math.sqrt(len(values)), distance


def assert_share(happened, probability):
    """Asserts how often something happened: 4 standard deviations."""
    deviation = math.sqrt(probability * (1 - probability) / len(happened))
    assert abs(np.mean(happened) - probability) <= 4 * deviation
