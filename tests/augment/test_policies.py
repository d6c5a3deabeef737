"""RandAugment, TrivialAugment and 3-Augment against torchvision; what is drawn against its distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sample_images import assert_share, assert_uniform, draws, noise, whole

from tl_jax.augment import OPERATIONS, Operation, color, filters, levels, operations, policies
from tl_jax.augment.policies import CHANGES

change = jax.jit(policies.change)
THEIRS = {
    "identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX",
    "translate_y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness", "color": "Color",
    "contrast": "Contrast", "sharpness": "Sharpness", "posterise": "Posterize",
    "solarise": "Solarize", "auto_contrast": "AutoContrast", "equalise": "Equalize",
}  # fmt: skip
FACTORS = ("brightness", "color", "contrast", "sharpness")
EXACT = ("identity", "translate_x", "translate_y", "posterise", "solarise", "equalise")


def amounts(name, space):
    """Returns the amounts of a change, as ours, of a space of torchvision's: one for each magnitude and sign."""
    values, signed = space[THEIRS[name]]
    values = np.atleast_1d(values.numpy().astype(float))
    if "translate" in name:
        values = np.trunc(values + 1e-4)  # torchvision's 16 is 15.999999, cut down to 15
    values = np.concatenate([values, -values]) if signed else values
    return 1 + values if name in FACTORS else values


@pytest.fixture
def autoaugment(transforms):
    """Returns torchvision's module of policies."""
    return transforms.autoaugment


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_torchvisions_on_pillow_images(autoaugment, name):
    """Pillow truncates to whole levels, and rounds the grey values before that."""
    space = autoaugment.RandAugment()._augmentation_space(31, (24, 24))
    values, signed = space[THEIRS[name]]
    image = 30 + noise(24, 24, 3) // 2
    for sign in (1, -1) if signed else (1,):
        theirs = float(values[25] if values.ndim else values) * sign
        amount = 1 + theirs if name in FACTORS else np.trunc(theirs) if "transl" in name else theirs
        expected = autoaugment._apply_op(
            whole(image), THEIRS[name], theirs, autoaugment.InterpolationMode.BILINEAR, None
        )
        found = np.asarray(change(image, CHANGES.index(name), jnp.float32(amount)))
        difference = np.abs(found - np.asarray(expected, np.float32)).max()
        allowed = 0 if name in EXACT else 1.5 if name in FACTORS else 1.001
        assert difference <= allowed, (sign, difference)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("policy", ["RandAugment", "TrivialAugmentWide"])
def test_magnitudes_are_torchvisions(autoaugment, policy, name):
    """RandAugment has one of 31, here the tenth; TrivialAugment all of them."""
    if policy == "RandAugment":
        space = autoaugment.RandAugment()._augmentation_space(31, (20, 48))
        chosen, shares, ranges = 9, np.array([9 / 30]), policies.RAND_AUGMENT
    else:
        space = autoaugment.TrivialAugmentWide()._augmentation_space(31)
        chosen, shares, ranges = slice(None), np.arange(31) / 30, policies.TRIVIAL_AUGMENT
    space = {
        key: (values[chosen] if values.ndim else values, signed)
        for key, (values, signed) in space.items()
    }
    expected = np.unique(amounts(name, space).round(3))

    def draw(key, share):
        return jnp.stack(
            [one.astype(jnp.float32) for one in policies.draw_change(key, ranges, share, (20, 48))]
        )

    shares = jnp.tile(jnp.float32(shares), 6000 // len(shares))
    found = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(2), len(shares)), shares)
    kinds, drawn = np.asarray(found, float).reshape(-1, 2).T
    of_kind = drawn[kinds == CHANGES.index(name)]
    distance = np.abs(of_kind[:, None] - expected[None, :])
    assert distance.min(1).max() < 2e-3 and distance.min(0).max() < 2e-3
    assert_share(kinds == CHANGES.index(name), 1 / 14)
    if space[THEIRS[name]][1]:
        zero = 1 if name in FACTORS else 0
        assert_share((of_kind > zero)[of_kind != zero], 0.5)


def test_trivial_augment_draws_every_magnitude_equally(monkeypatch):
    monkeypatch.setattr(policies, "change", lambda image, kind, amount, fill: (kind, amount))
    kinds, found = draws_of(lambda key: policies.trivial_augment(key, jnp.zeros((32, 32, 3)), 1.0))
    angles = np.abs(found[kinds == CHANGES.index("rotate")])
    magnitudes = np.round(angles / (135 / 30)).astype(int)
    counts = np.bincount(magnitudes, minlength=31)
    assert len(counts) == 31 and counts.min() > 0
    expected = len(angles) / 31
    assert np.abs(counts - expected).max() < 4.5 * expected**0.5
    kinds, _ = draws_of(lambda key: policies.trivial_augment(key, jnp.zeros((32, 32, 3)), 0.25))
    assert_share(kinds == 0, 0.75 + 0.25 / 14)


def draws_of(draw):
    found = draws(lambda key: jnp.stack([one.astype(jnp.float32) for one in draw(key)]))
    return found[:, 0].astype(int), found[:, 1]


def test_rand_augment_is_two_changes_one_after_the_other():
    key, image = jax.random.key(11), jnp.asarray(noise(12, 12, 3))
    expected = image
    for layer in jax.random.split(key, 2):
        kind, amount = policies.draw_change(
            layer, policies.RAND_AUGMENT, jnp.float32(0.5), (12, 12)
        )
        expected = policies.change(expected, kind, amount)
    found = policies.rand_augment(key, image, 15)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_policies_have_the_fill_of_the_augmentation():
    white = jnp.full((16, 16, 3), 255.0)
    rotate = CHANGES.index("rotate")
    assert np.asarray(change(white, rotate, 40.0)).min() == 0
    reflected = jax.jit(policies.change, static_argnums=3)(white, rotate, 40.0, "reflect")
    assert np.asarray(reflected).min() == 255
    for name in ("rand_augment=9", "trivial_augment=1", "random_change=9"):
        assert operations.with_fill(OPERATIONS.read(name), "edge").function.keywords == {
            "fill": "edge"
        }


def test_magnitude_0_of_rand_augment_is_a_change_of_levels_at_most():
    """Nothing is moved or multiplied; solarise inverts 255 alone; equalise and auto-contrast have no magnitude."""
    image = jnp.asarray(noise(8, 8, 3)).at[0, 0].set(255.0)
    for kind, name in enumerate(CHANGES):
        key = next(
            key for key in jax.random.split(jax.random.key(0), 200) if draw_kind(key) == kind
        )
        _, amount = policies.draw_change(key, policies.RAND_AUGMENT, jnp.float32(0), (8, 8))
        found = np.asarray(change(image, kind, amount))
        same = np.asarray(image) < 255 if name == "solarise" else np.full(image.shape, True)
        if name not in ("equalise", "auto_contrast"):
            np.testing.assert_allclose(found[same], np.asarray(image)[same], atol=1e-4)


@jax.jit
def draw_kind(key):
    return policies.draw_change(key, policies.RAND_AUGMENT, jnp.float32(0), (8, 8))[0]


def test_three_augment_is_grey_solarised_or_blurred():
    image = jnp.asarray(noise(16, 16, 3))
    grey = np.asarray(color.grey_values(image))[..., None] * np.ones(3)
    solarised = np.asarray(levels.invert_from(image, 128))

    def which(key):
        found = policies.three_augment(key, image, 0.0)
        return jnp.stack([jnp.abs(found - one).max() < 1e-3 for one in (grey, solarised)])

    found = draws(which)
    for column in (0, 1):
        assert_share(found[:, column], 1 / 3)
    blurs = [
        key for key in jax.random.split(jax.random.key(0), 30) if not np.asarray(which(key)).any()
    ]
    blurred = np.asarray(policies.three_augment(blurs[0], image, 0.0))
    _, blur_key, _ = jax.random.split(blurs[0], 3)
    np.testing.assert_allclose(blurred, filters.blur(blur_key, image, 2.0), atol=1e-3)


def test_three_augment_ends_with_brightness_contrast_and_saturation():
    key, image = jax.random.key(4), jnp.asarray(60 + noise(12, 12, 3) / 3)
    jitter_key = jax.random.split(key, 3)[2]
    first = policies.three_augment(key, image, 0.0)
    expected = color.adjust(first, *color.draw_factors(jitter_key, 0.3).at[3].set(0.0))
    found = policies.three_augment(key, image, 0.3)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(np.asarray(found) - np.asarray(first)).max() > 1


def test_single_colours_are_those_of_color_jitter():
    image = jnp.asarray(noise(10, 10, 3))
    for place, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        key = jax.random.key(place)
        drawn = jax.random.uniform(key, minval=-0.3, maxval=0.3)
        given = jnp.array([1.0, 1.0, 1.0, 0.0]).at[place].add(drawn)
        found = OPERATIONS.read(f"{name}=0.3")(key, image)
        np.testing.assert_allclose(found, color.adjust(image, *given), atol=2e-3)
    assert_uniform(draws(color.draw_factor, 0.3), 0.7, 1.3)


def test_a_batch_of_changes_is_each_of_them_alone():
    """One pipeline for all: what one image is given leaves the others alone."""
    images = jnp.asarray(noise(len(CHANGES), 8, 8, 3))
    kinds = jnp.arange(len(CHANGES))
    together = jax.jit(jax.vmap(policies.change, in_axes=(0, 0, None)))(images, kinds, 2.0)
    for kind in range(len(CHANGES)):
        alone = change(images[kind], kind, jnp.float32(2.0))
        np.testing.assert_allclose(together[kind], alone, atol=1e-3)


def test_an_operation_is_given_the_fill_where_it_takes_one():
    def border(key, image, strength, fill="black"):
        return image * (fill == "edge")

    mine = Operation("border", border, 1.0)
    assert operations.with_fill(mine, "edge")(None, np.ones(2)).all()
    assert operations.with_fill(mine, "black") is mine
