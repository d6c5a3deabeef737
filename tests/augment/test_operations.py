"""Operations: what they do against Pillow and torchvision, what they draw against its distribution."""

import colorsys
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sample_images import COUNT, assert_uniform, by_channel, draws, noise

from tl_jax.augment import OPERATIONS, Operation, color, erasing, geometry, operations
from tl_jax.errors import InputError

SHAPES = {"square": (32, 32), "odd": (31, 31), "wide": (20, 33), "large": (128, 128)}


@pytest.mark.parametrize("angle", [-170.0, -45.3, -3.7, 0.0, 12.0, 30.0, 90.0, 123.4, 180.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rotation_is_pillows(shape, angle):
    """Float32 places are up to 1e-5 pixels of 128 away: 0.01 levels where neighbours differ by 255.

    Turned by quarters, places are at the edge of the image in exact numbers, where a rounding decides.
    """
    image = noise(*shape, 3)
    expected = by_channel(
        image, lambda channel: channel.rotate(angle, resample=Image.Resampling.BILINEAR)
    )
    found = np.asarray(jax.jit(geometry.rotate)(image, angle))
    if angle == 90.0 and shape[0] != shape[1]:
        inner = (
            slice(None),
            slice((shape[1] - shape[0]) // 2 + 2, -(shape[1] - shape[0]) // 2 - 2),
        )
        found, expected = found[inner], expected[inner]
    np.testing.assert_allclose(found, expected, atol=0.01, rtol=0)


def test_rotation_is_counter_clockwise_and_black_outside():
    image = np.zeros((5, 5, 3), np.float32)
    image[2, 4] = 100.0  # right of the centre
    turned = np.asarray(geometry.rotate(image, 90.0))
    assert turned[0, 2] == pytest.approx(100.0, abs=1e-3)
    white = np.asarray(geometry.rotate(np.full((9, 9, 3), 255.0, np.float32), 45.0))
    assert (white[0, 0] == 0).all() and (white[4, 4] == 255).all()


@pytest.mark.parametrize("box", [(0, 0, 32, 32), (3, 5, 20, 11), (31, 31, 1, 1), (0, 7, 32, 2)])
def test_resized_crop_is_pillows(box):
    image = noise(32, 32, 3)
    top, left, height, width = box

    def change(channel):
        cropped = channel.crop((left, top, left + width, top + height))
        return cropped.resize((32, 32), Image.Resampling.BILINEAR)

    found = jax.jit(geometry.resized_crop)(image, jnp.array(box))
    np.testing.assert_allclose(found, by_channel(image, change), atol=2e-3, rtol=0)


def test_the_whole_image_as_a_crop_changes_nothing():
    image = noise(17, 23, 3)
    np.testing.assert_array_equal(geometry.resized_crop(image, jnp.array([0, 0, 17, 23])), image)


FACTORS = {
    "brightness": (ImageEnhance.Brightness, 0),
    "contrast": (ImageEnhance.Contrast, 1),
    "saturation": (ImageEnhance.Color, 2),
}


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("name", FACTORS)
def test_factors_are_pillows(name, factor):
    """Pillow rounds the grey value to a level, which the factor takes up to twice, and truncates the result."""
    image = noise(24, 24, 3)
    enhance, place = FACTORS[name]
    given = [1.0, 1.0, 1.0, 0.0]
    given[place] = factor
    found = np.asarray(jax.jit(color.adjust)(image, *given))
    expected = np.asarray(
        enhance(Image.fromarray(image.astype(np.uint8))).enhance(factor), np.float32
    )
    assert np.abs(found - expected).max() <= 1 + 0.5 * abs(1 - factor) + 1e-3
    if factor == 1.0:
        np.testing.assert_allclose(found, image, atol=1e-3)


@pytest.mark.parametrize("factors", [(0.6, 1.3, 0.5, 0.0), (1.4, 0.6, 1.4, 0.1), (1, 1, 1, -0.23)])
def test_colours_are_torchvisions_on_float_images(transforms, factors):
    """Its red weighs 0.2989, ours 0.299: 0.03 levels, more where saturation is raised."""
    import torch

    image = noise(24, 24, 3, seed=1)
    theirs = torch.from_numpy(np.moveaxis(image, 2, 0).copy() / 255)
    changes = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
    for change, factor in zip(changes, factors, strict=True):
        theirs = getattr(transforms.functional, change)(theirs, factor)
    found = np.asarray(color.adjust(image, *factors))
    np.testing.assert_allclose(found, np.moveaxis(theirs.numpy(), 0, 2) * 255, atol=0.1, rtol=0)


@pytest.mark.parametrize("share", [-0.25, -0.1, 0.0, 1 / 3, 0.5])
def test_hue_is_turned_as_in_hsv(share):
    image = noise(12, 12, 3, seed=2)
    image[0, :4] = [[7, 7, 7], [0, 0, 0], [255, 255, 255], [255, 0, 0]]
    expected = np.empty(image.shape)
    for row, column in np.ndindex(*image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[row, column].astype(float) / 255))
        expected[row, column] = colorsys.hsv_to_rgb((hue + share) % 1, saturation, value)
    found = jax.jit(color.turn_hue)(image, share)
    np.testing.assert_allclose(found, 255 * expected, atol=2e-3, rtol=0)


def test_a_third_of_the_circle_turns_red_into_green():
    red = np.array([[[255.0, 0.0, 0.0]]], np.float32)
    np.testing.assert_allclose(color.turn_hue(red, 1 / 3)[0, 0], [0, 255, 0], atol=1e-3)


def test_erasing_fills_the_box_alone():
    image = noise(10, 12, 3)
    found = np.asarray(erasing.erase(image, jnp.array([2, 3, 4, 5])))
    expected = image.copy()
    expected[2:6, 3:8] = np.float32([123.675, 116.28, 103.53])
    np.testing.assert_array_equal(found, expected)
    nothing = erasing.erase(image, jnp.array([2, 3, 0, 0]))
    np.testing.assert_array_equal(nothing, image)


def test_what_is_erased_is_zero_for_a_network_of_imagenet():
    mean = 255 * np.array([0.485, 0.456, 0.406])
    np.testing.assert_allclose(erasing.FILL, mean, rtol=1e-6)


def test_angles_are_uniform():
    assert_uniform(draws(geometry.draw_angle, 15.0), -15, 15)


def test_factors_are_uniform_and_independent():
    found = draws(color.draw_factors, 0.4)
    for column, (low, high) in enumerate([(0.6, 1.4)] * 3 + [(-0.1, 0.1)]):
        assert_uniform(found[:, column], low, high)
    correlations = np.corrcoef(found.T) - np.eye(4)
    assert np.abs(correlations).max() < 0.06  # 4 standard deviations


def torchvision_boxes(make):
    import torch

    torch.manual_seed(0)
    image = torch.zeros(3, 64, 64)
    return np.array([make(image) for _ in range(COUNT)])


def assert_same_distribution(ours, theirs):
    """Asserts that quantiles of both agree: about 4 standard deviations of their difference at 4,000 draws."""
    points = np.linspace(0.05, 0.95, 19)
    for column in range(4):
        shares = [
            (rows[:, column][:, None] <= np.quantile(theirs[:, column], points)[None, :]).mean(0)
            for rows in (ours, theirs)
        ]
        assert np.abs(shares[0] - shares[1]).max() < 0.045, column


def test_crops_are_drawn_as_torchvisions(transforms):
    ours = draws(geometry.draw_crop, 64, 64, 0.08)
    theirs = torchvision_boxes(
        lambda image: transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
    )
    assert_same_distribution(ours, theirs)
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= 64).all()
    # Half a pixel either way: the least share of the area.
    assert (ours[:, 2] * ours[:, 3] / 64**2).min() > 0.08 - 0.01


def test_boxes_are_drawn_as_torchvisions(transforms):
    ours = draws(erasing.draw_box, 64, 64, 1.0)
    theirs = torchvision_boxes(
        lambda image: transforms.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[
            :4
        ]
    )
    assert_same_distribution(ours, theirs)
    assert (ours[:, :2] + ours[:, 2:] <= 64).all()
    assert ((ours[:, 2:] > 0) & (ours[:, 2:] < 64)).all()


def test_boxes_are_drawn_with_their_probability():
    erased = (draws(erasing.draw_box, 32, 32, 0.25)[:, 2] > 0).mean()
    assert abs(erased - 0.25) < 4 * math.sqrt(0.25 * 0.75 / COUNT)
    assert (draws(erasing.draw_box, 32, 32, 0.0)[:, 2:] == 0).all()


@pytest.mark.parametrize(
    ("shape", "expected"), [((40, 10), [13, 0, 13, 10]), ((10, 40), [0, 13, 10, 13])]
)
def test_where_no_crop_fits_the_largest_central_one_is_taken(shape, expected):
    """All of a long image as a crop has a ratio that is never drawn."""
    boxes = draws(geometry.draw_crop, *shape, 1.0)
    np.testing.assert_array_equal(boxes, np.tile(expected, (COUNT, 1)))


def test_all_operations_are_in_the_table_with_a_meaning():
    assert set(OPERATIONS.entries) == {
        "rotation", "random_resized_crop", "translation", "shear", "zoom", "perspective",
        "color_jitter", "brightness", "contrast", "saturation", "hue", "grey",
        "blur", "noise", "posterise", "solarise", "equalise", "auto_contrast",
        "random_erasing", "cutout",
        "rand_augment", "random_change", "trivial_augment", "three_augment",
    }  # fmt: skip
    assert all(entry.strength and entry.within for entry in OPERATIONS.entries.values())


@pytest.mark.parametrize("text", ["rotation=15", "random_erasing=0.25", "color_jitter=1"])
def test_texts_are_read_and_written(text):
    operation = OPERATIONS.read(text)
    assert str(operation) == text
    assert operation.function.__name__ == operation.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotaton=15", "unknown operation 'rotaton'; nearest: rotation"),
        ("rotation", r"'rotation': expected rotation=NUMBER in \[0, 180\] \(degrees"),
        ("rotation=much", "'rotation=much': expected rotation=NUMBER"),
        ("rotation=nan", "expected rotation=NUMBER"),
        ("rotation=181", r"in \[0, 180\]"),
        ("random_resized_crop=0", r"in \(0, 1\]"),
        ("color_jitter=-0.1", r"in \[0, 1\]"),
        ("random_erasing=1.5", r"in \[0, 1\]"),
    ],
)
def test_what_is_no_operation(text, message):
    with pytest.raises(InputError, match=message):
        OPERATIONS.read(text)


@pytest.fixture
def table(monkeypatch):
    """Returns the table, in which what a test registers is forgotten."""
    monkeypatch.setattr(OPERATIONS, "entries", dict(OPERATIONS.entries))
    return OPERATIONS


def darken(key, image, strength):
    del key
    return image * (1 - strength)


def test_registered_operations_are_read(table):
    operations.register_operation("darken", darken, "share of the light", "[0, 1]")
    operations.register_operation("darken", darken, "share of the light", "[0, 1]")
    found = table.read("darken=0.5")(jax.random.key(0), jnp.full((2, 2, 3), 100.0))
    np.testing.assert_array_equal(found, np.full((2, 2, 3), 50.0))
    with pytest.raises(InputError, match=r"in \[0, 1\] \(share of the light\)"):
        table.read("darken=2")


@pytest.mark.parametrize("name", ["rotation", "", "a=b", "own:a"])
def test_names_that_cannot_be_registered(table, name):
    with pytest.raises(InputError, match="expected a name without"):
        operations.register_operation(name, darken, replace=True)


def test_another_operation_takes_a_name_when_asked(table):
    def half(key, image, strength):
        return image / 2

    operations.register_operation("darken", darken)
    with pytest.raises(
        InputError, match=r"an operation 'darken' is registered already.*replace=True"
    ):
        operations.register_operation("darken", half)
    assert table.read("darken=1").function is darken
    operations.register_operation("darken", half, replace=True)
    assert table.read("darken=1").function is half


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda key, image, strength: image[:4],
            r"own=1 returns .*expected \(key, image, strength\)",
        ),
        (lambda key, image, strength: image.astype(jnp.uint8), "returns .*uint8"),
        (lambda key, image, strength: None, "returns None"),
        (lambda key, image: image, "operation own=1 fails: .*expected"),
    ],
)
def test_what_an_operation_must_be(function, message):
    with pytest.raises(InputError, match=message):
        operations.check_operation(Operation("own", function, 1.0), 8)


def test_our_operations_pass_their_check():
    for name, entry in OPERATIONS.entries.items():
        operations.check_operation(Operation(name, entry.function, 0.5), 8)


def test_operations_are_applied_in_order():
    double = Operation("scale", lambda key, image, strength: strength * image, 2.0)
    add = Operation("add", lambda key, image, strength: image + strength, 3.0)
    keys, images = jax.random.split(jax.random.key(0), 2), jnp.ones((2, 2, 2, 1), jnp.uint8)
    found = operations.apply([double, add], keys, images)
    np.testing.assert_array_equal(found, np.full((2, 2, 2, 3), 5.0, np.float32))
    assert (operations.apply([add, double], keys, images) == 8).all()


# Where 0.9 is not a strength that changes images of 16 pixels much.
STRENGTHS = {
    "rotation": 30, "shear": 30, "hue": 0.4, "posterise": 2, "solarise": 100, "cutout": 6,
    "rand_augment": 20, "random_change": 20, "grey": 0.5, "equalise": 0.5, "auto_contrast": 0.5,
}  # fmt: skip
# These give the image itself or one other.
TWO = ("grey", "posterise", "solarise", "equalise", "auto_contrast")


@pytest.mark.parametrize("name", list(OPERATIONS.entries))
def test_every_operation_changes_images_differently_and_the_same_twice(name):
    operation = OPERATIONS.read(f"{name}={STRENGTHS.get(name, 0.9)}")
    keys = jax.random.split(jax.random.key(0), 6)
    # Levels that auto-contrast stretches.
    images = jnp.broadcast_to(50 + noise(1, 16, 16, 3) / 2, (6, 16, 16, 3))
    apply = jax.jit(lambda keys, images: operations.apply([operation], keys, images))
    found = np.asarray(apply(keys, images))
    assert found.min() >= 0 and found.max() <= 255.001 and found.dtype == np.float32
    assert len({image.tobytes() for image in found}) >= (2 if name in TWO else 4)
    np.testing.assert_array_equal(found, apply(keys, images))


def test_cutout_is_a_square_about_any_pixel_cut_off_at_the_edge():
    boxes = draws(erasing.draw_square, 12, 20, 3)
    first, sides = boxes[:, :2], boxes[:, 2:]
    assert (sides.max(0) == 6).all() and (sides.min(0) == 3).all()
    assert (first >= 0).all() and (first + sides <= [12, 20]).all()
    # All centres are as likely: the square ends where its centre is 3 pixels further.
    for axis, size in enumerate((12, 20)):
        centres = np.where(first[:, axis] > 0, first[:, axis] + 3, sides[:, axis] - 3)
        counts = np.bincount(centres, minlength=size)
        assert len(counts) == size
        assert np.abs(counts - COUNT / size).max() < 4 * (COUNT / size) ** 0.5


def test_cutout_erases_its_square():
    image, key = noise(9, 9, 3), jax.random.key(2)
    found = np.asarray(erasing.cutout(key, image, 5.0))
    box = erasing.draw_square(key, 9, 9, 2)
    np.testing.assert_array_equal(found, erasing.erase(image, box))
    assert (np.asarray(box)[2:] <= 4).all() and (found != image).any()


def test_grey_is_pillows():
    """Pillow rounds to whole levels."""
    image = noise(10, 10, 3)
    expected = np.asarray(Image.fromarray(image.astype(np.uint8)).convert("L"), np.float32)
    np.testing.assert_allclose(color.grey_values(image), expected, atol=0.51)
    found = np.asarray(color.grey(jax.random.key(0), jnp.asarray(image), 1.0))
    np.testing.assert_array_equal(found, np.repeat(found[..., :1], 3, 2))
