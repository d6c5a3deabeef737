"""DELTA's attention against NumPy versions of the formulas, and numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax.training import filter_attention

RNG = np.random.default_rng(0)
IMAGES, SIDE, CHANNELS, CLASSES = 7, 3, 5, 4
MAPS = RNG.gamma(1.0, size=(IMAGES, SIDE, SIDE, CHANNELS)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, IMAGES).astype(np.int32)
MIXING = RNG.normal(size=(CHANNELS, 6)).astype(np.float32)
HEAD = RNG.normal(size=(6, CLASSES)).astype(np.float32), RNG.normal(size=CLASSES).astype(np.float32)


def suffix(params, batch_stats, maps):
    return jnp.maximum(maps.mean((1, 2)) @ params + batch_stats, 0)


def losses_in_numpy(maps):
    """Returns the cross-entropy of each image in float64."""
    features = np.maximum(maps.astype(np.float64).mean((1, 2)) @ MIXING.astype(np.float64) + 0.1, 0)
    logits = features @ HEAD[0] + HEAD[1]
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(IMAGES), LABELS]


def increases_in_numpy():
    found = []
    for channel in range(CHANNELS):
        without = MAPS.copy()
        without[..., channel] = 0
        found.append((losses_in_numpy(without) - losses_in_numpy(MAPS)).mean())
    return np.array(found)


@pytest.mark.parametrize("filters", [np.arange(5), np.array([4, 1])], ids=str)
def test_increases_in_numpy(filters):
    increases = jax.jit(filter_attention.make_increases(suffix))
    found = increases(MIXING, np.float32(0.1), HEAD, MAPS, LABELS, filters.astype(np.int32))
    expected = increases_in_numpy()[filters]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected).max() > 0.01


def in_numpy(increases, temperature):
    standardised = (increases - np.mean(increases)) / np.std(increases)
    powers = np.exp(standardised / temperature)
    return powers / np.sum(powers)


@pytest.mark.parametrize("temperature", [5.0, 1.0])
def test_attention_in_numpy(temperature):
    increases = RNG.normal(0.01, 0.003, 64)
    found = filter_attention.attention_of(increases, temperature)
    np.testing.assert_allclose(found, in_numpy(increases, temperature), rtol=1e-6)
    assert found.sum() == pytest.approx(1)
    assert found.argmax() == increases.argmax()


def test_by_hand():
    """Standardised: -1 and 1; two fifths apart."""
    found = filter_attention.attention_of(np.array([0.0, 0.0, 0.2, 0.2]))
    low = 1 / (2 + 2 * np.exp(0.4))
    np.testing.assert_allclose(found, [low, low, 0.5 - low, 0.5 - low], rtol=1e-6)
    assert filter_attention.TEMPERATURE == 5.0


def test_channels_that_are_missed_alike_have_equal_attention():
    np.testing.assert_array_equal(filter_attention.attention_of(np.full(4, 0.3)), np.full(4, 0.25))


def test_the_scale_and_level_of_increases_do_not_matter():
    increases = RNG.normal(size=16)
    np.testing.assert_allclose(
        filter_attention.attention_of(increases),
        filter_attention.attention_of(1e-3 * increases + 7),
        rtol=1e-9,
    )
