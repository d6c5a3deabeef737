"""Augmentation: measured in pixels of the network's input, and random by key and position alone."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tl_jax.augment import OPERATIONS, Augmentation, augmentation, make_train_transform
from tl_jax.augment.preprocessing import Preprocessing
from tl_jax.errors import InputError

crop_and_flip = jax.jit(augmentation.crop_and_flip, static_argnums=(2, 3))
ALL = tuple(
    OPERATIONS.read(text)
    for text in ("rotation=30", "random_resized_crop=0.3", "color_jitter=0.4", "random_erasing=0.5")
)
# Between them they gather, scatter, convolve and sum.
POLICIES = tuple(OPERATIONS.read(text) for text in ("random_change=20", "blur=1", "cutout=6"))
AUGMENTED = {
    "crop and flip": Augmentation(2, True),
    "operations": Augmentation(operations=ALL),
    "all": Augmentation(2, True, ALL),
    "policies": Augmentation(2, True, POLICIES, "reflect"),
}


def assert_same(kind, expected, found):
    """Asserts equal bits; of operations equal draws, since programs of other sizes round in other places."""
    tolerance = 0 if kind == "crop and flip" else 1e-5
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("stored", [(8, 8), (16, 16), (40, 40), (24, 16)])
@pytest.mark.parametrize("resize", [None, 20], ids=["resized", "resized and cropped"])
def test_augmentation_is_measured_in_pixels_of_the_network_s_input(stored, resize):
    """A white image shows where its black padding came to: at the same place, whatever its stored size."""
    spec = Preprocessing(16, resize=resize, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    transform = jax.jit(make_train_transform(spec, Augmentation(4, True)))
    key, positions = jax.random.key(3), jnp.arange(32)
    white = np.full((32, *stored, 3), 255, np.uint8)
    found = np.asarray(transform(key, positions, white))[..., 0]
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
    whole = np.full((32, 16, 16, 1), 255, np.uint8)
    expected = np.asarray(crop_and_flip(keys, whole, 4, True))[..., 0]
    np.testing.assert_allclose(found, expected / 255, atol=1e-6)
    shifts = 16 - (expected[:, :, 8] > 0).sum(1)
    assert set(shifts) == {0, 1, 2, 3, 4}


def test_training_images_are_crops_of_the_padded_image_each_and_mirrored_or_not():
    image = noise(6, 5, 3)
    count = 600
    keys = jax.random.split(jax.random.key(0), count)
    images = np.broadcast_to(image, (count, *image.shape))
    results = crop_and_flip(keys, images, 1, True)
    assert results.dtype == jnp.uint8
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    seen = np.zeros((3, 3, 2), int)
    for top, left, mirrored in np.ndindex(seen.shape):
        crop = padded[top : top + 6, left : left + 5]
        crop = crop[:, ::-1] if mirrored else crop
        seen[top, left, mirrored] = np.all(np.asarray(results) == crop, axis=(1, 2, 3)).sum()
    assert seen.sum() == count
    # 18 equally likely outcomes: 33.3 expected of each, standard deviation 5.6.
    assert 11 <= seen.min() <= seen.max() <= 56


@pytest.mark.parametrize(
    ("padding", "flip"),
    [pytest.param(0, True, id="flip only"), pytest.param(2, False, id="crop only")],
)
def test_one_augmentation_without_the_other(padding, flip):
    image = noise(1, 8, 8, 3)
    results = crop_and_flip(
        jax.random.split(jax.random.key(1), 64), np.repeat(image, 64, 0), padding, flip
    )
    mirrored = np.all(np.asarray(results) == image[:, :, ::-1], axis=(1, 2, 3))
    same = np.all(np.asarray(results) == image, axis=(1, 2, 3))
    if flip:
        assert np.all(mirrored | same)
        assert 16 <= mirrored.sum() <= 48
    else:
        assert not mirrored.any()
        assert 0 < same.sum() < 16


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey], ids=["typed", "raw"])
@pytest.mark.parametrize("kind", AUGMENTED)
def test_an_image_depends_on_key_and_position_alone(kind, make_key):
    transform = jax.jit(make_train_transform(Preprocessing(20), AUGMENTED[kind]))
    images, positions, key = noise(8, 16, 16, 3), jnp.arange(8), make_key(7)
    whole = np.asarray(transform(key, positions, images))
    halves = [transform(key, positions[part], images[part]) for part in (slice(4), slice(4, 8))]
    assert_same(kind, whole, np.concatenate(halves))
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    shuffled = transform(key, positions[order], images[order])
    assert_same(kind, whole[order], shuffled)
    assert not np.array_equal(whole, transform(make_key(8), positions, images))


@pytest.mark.parametrize("kind", AUGMENTED)
def test_eight_devices_give_the_images_of_one_without_talking(kind):
    transform = make_train_transform(Preprocessing(20), AUGMENTED[kind])
    images, positions, key = noise(16, 16, 16, 3), jnp.arange(16), jax.random.key(7)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    arguments = jax.device_put((key, positions, images), (everywhere, split, split))
    compiled = jax.jit(transform, out_shardings=split).lower(*arguments).compile()
    expected = jax.jit(transform)(key, positions, images)
    assert_same(kind, expected, compiled(*arguments))
    assert not re.findall(r"all-(gather|reduce|to-all)|collective-permute", compiled.as_text())


def test_equal_images_at_different_positions_differ():
    images = np.repeat(noise(1, 16, 16, 3), 16, axis=0)
    transform = jax.jit(make_train_transform(Preprocessing(16), Augmentation(4)))
    results = transform(jax.random.key(0), jnp.arange(16), images)
    assert len({np.asarray(image).tobytes() for image in results}) > 8


def test_a_negative_padding_is_refused():
    with pytest.raises(InputError, match="crop_padding is -1, expected 0 or more pixels"):
        Augmentation(-1)


def test_nothing_is_false_and_changes_nothing():
    assert not Augmentation() and Augmentation(operations=ALL[:1]) and Augmentation(flip=True)


def test_operations_follow_crop_and_flip_whose_draws_they_leave_alone():
    """An operation that keeps the first pixel: what it is given is what crop and flip make alone."""
    kept = augmentation.Operation("keep", lambda key, image, strength: image, 0.0)
    key, positions, images = jax.random.key(1), jnp.arange(4), noise(4, 8, 8, 3)
    alone, followed = (
        jax.jit(make_train_transform(Preprocessing(8), Augmentation(2, True, operations)))
        for operations in ((), (kept,))
    )
    np.testing.assert_array_equal(alone(key, positions, images), followed(key, positions, images))


def test_no_operation_has_a_key_of_another_or_of_crop_and_flip():
    def draw(key, image, strength):
        return image * 0 + (jax.random.bits(key) % 2**20).astype(jnp.float32)

    keys = jax.random.split(jax.random.key(0), 1)
    images = jnp.zeros((1, 2, 2, 3))
    drawn = []
    for count in (1, 2, 3):
        chosen = [augmentation.Operation(name, draw, 0.0) for name in "abc"[:count]]
        drawn.append(int(augmentation.operations.apply(chosen, keys, images)[0, 0, 0, 0]))
    drawn += [int(jax.random.bits(key) % 2**20) for key in (*jax.random.split(keys[0]), keys[0])]
    assert len(set(drawn)) == 6
