"""Mixings: by hand, against NumPy, their draws, and alike on one device and eight."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tl_jax.augment import MIXINGS, Mixing, make_mixing, mixing
from tl_jax.errors import InputError

LABELS = np.array([0, 1, 2, 1], np.int32)
TARGETS = np.eye(3, dtype=np.float32)[LABELS]


def images_of(batch=4, height=6, width=8, channels=3):
    return np.random.default_rng(0).normal(size=(batch, height, width, channels)).astype(np.float32)


def test_a_blend_by_hand():
    rows = np.array([[10.0, 0.0], [0.0, 20.0], [4.0, 4.0]], np.float32)
    found = mixing.blend(rows, jnp.array([1, 2, 0]), 0.75)
    np.testing.assert_array_equal(found, [[7.5, 5.0], [1.0, 16.0], [5.5, 3.0]])


def test_mixup_is_numpys():
    """With the lambda and the permutation that its key gives."""
    key, images = jax.random.key(3), images_of()
    found_images, found_targets = jax.jit(mixing.mixup, static_argnums=3)(key, images, TARGETS, 0.7)
    share, partners = jax.device_get(mixing.draw_partners(key, 4, 0.7))
    assert 0 < share < 1 and sorted(partners) == [0, 1, 2, 3]
    np.testing.assert_allclose(
        found_images, share * images + (1 - share) * images[partners], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        found_targets, share * TARGETS + (1 - share) * TARGETS[partners], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(np.asarray(found_targets).sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("share", "centre", "expected"),
    [
        # Sides of half the image: 3 of 6 rows down to 2, 4 of 8 columns.
        pytest.param(0.75, (3, 4), [[2, 4], [2, 6]], id="inside"),
        pytest.param(0.75, (0, 7), [[0, 1], [5, 8]], id="cut off at a corner"),
        pytest.param(0.0, (3, 4), [[0, 6], [0, 8]], id="all of it"),
        pytest.param(1.0, (3, 4), [[3, 3], [4, 4]], id="nothing"),
    ],
)
def test_boxes_by_hand(share, centre, expected):
    found = mixing.cut_box(jnp.float32(share), jnp.array(centre), 6, 8)
    np.testing.assert_array_equal(found, expected)


def test_a_cut_by_hand():
    """A box of 2 x 4 of 6 x 8 pixels: a sixth, and the targets with it."""
    images, partners = images_of(), np.array([1, 0, 2, 2])
    box = jnp.array([[2, 4], [2, 6]])
    found_images, found_targets = mixing.cut(images, TARGETS, jnp.array(partners), box)
    expected = images.copy()
    expected[:, 2:4, 2:6] = images[partners][:, 2:4, 2:6]
    np.testing.assert_array_equal(found_images, expected)
    np.testing.assert_allclose(
        found_targets,
        [[5 / 6, 1 / 6, 0], [1 / 6, 5 / 6, 0], [0, 0, 1], [0, 5 / 6, 1 / 6]],
        rtol=1e-6, atol=1e-7,
    )  # fmt: skip


def bounding_box(size, share, row, column):
    """Returns the box as clovaai/CutMix-PyTorch computes it."""
    sides = [int(side * math.sqrt(1 - share)) for side in size]
    starts = [
        min(max(c - cut // 2, 0), side)
        for c, cut, side in zip((row, column), sides, size, strict=True)
    ]
    ends = [
        min(max(c + cut // 2, 0), side)
        for c, cut, side in zip((row, column), sides, size, strict=True)
    ]
    return starts, ends


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_is_the_authors(seed):
    key, images = jax.random.key(seed), images_of(height=32, width=24)
    found_images, found_targets = jax.jit(mixing.cutmix, static_argnums=3)(
        key, images, TARGETS, 1.0
    )
    draw_key, place_key = jax.random.split(key)
    share, partners = jax.device_get(mixing.draw_partners(draw_key, 4, 1.0))
    row, column = map(int, mixing.draw_centre(place_key, 32, 24))
    (top, left), (bottom, right) = bounding_box((32, 24), float(share), row, column)
    expected = images.copy()
    expected[:, top:bottom, left:right] = images[partners][:, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (32 * 24)
    np.testing.assert_array_equal(found_images, expected)
    np.testing.assert_allclose(
        found_targets, share * TARGETS + (1 - share) * TARGETS[partners], rtol=1e-5, atol=1e-6
    )


COUNT = 4000


def draws(draw, *arguments):
    keys = jax.random.split(jax.random.key(5), COUNT)
    return jax.device_get(jax.jit(jax.vmap(lambda key: draw(key, *arguments)))(keys))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lambda_is_beta_and_partners_are_permutations(alpha):
    """Mean 1/2, variance 1 / (4 (2 alpha + 1)); each row has each partner with the same probability."""
    shares, partners = draws(mixing.draw_partners, 4, alpha)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(shares.mean() - 0.5) < 4 * math.sqrt(variance / COUNT)
    assert abs(shares.var() / variance - 1) < 0.1
    np.testing.assert_array_equal(np.sort(partners, axis=1), np.tile(np.arange(4), (COUNT, 1)))
    counts = np.array(
        [[(partners[:, row] == other).sum() for other in range(4)] for row in range(4)]
    )
    assert np.abs(counts - COUNT / 4).max() < 4.5 * math.sqrt(COUNT * 3 / 16)


def test_centres_are_uniform_over_the_pixels():
    centres = draws(mixing.draw_centre, 3, 5)
    counts = np.bincount(centres[:, 0] * 5 + centres[:, 1], minlength=15)
    assert len(counts) == 15
    assert np.abs(counts - COUNT / 15).max() < 4.5 * math.sqrt(COUNT / 15)


def test_lambda_is_independent_of_the_partners_and_of_the_place():
    keys = jax.random.split(jax.random.key(5), COUNT)
    shares, partners = jax.vmap(lambda key: mixing.draw_partners(key, 4, 1.0))(keys)
    fixed = (np.asarray(partners) == np.arange(4)[None, :]).sum(1)
    assert abs(np.corrcoef(np.asarray(shares), fixed)[0, 1]) < 0.07


def test_of_several_one_is_drawn_for_each_update():
    """A third each: of mixings that mark the targets with their number."""
    marks = [
        Mixing(name, lambda key, images, targets, mark: (images, targets * 0 + mark), float(mark))
        for mark, name in enumerate("abc")
    ]
    mix = make_mixing(marks, 3)
    seen = draws(lambda key: mix(key, jnp.zeros((4, 2)), LABELS)[1][0, 0])
    counts = np.bincount(seen.astype(int), minlength=3)
    assert np.abs(counts - COUNT / 3).max() < 4.5 * math.sqrt(COUNT * 2 / 9)


def test_one_mixing_is_itself_and_none_is_none():
    key, images = jax.random.key(0), images_of()
    one = MIXINGS.read("mixup=0.3")
    for found, expected in zip(
        make_mixing([one], 3)(key, images, LABELS), one(key, images, TARGETS), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert make_mixing([], 3) is None


@pytest.mark.parametrize("names", [("mixup=0.2",), ("cutmix=1",), ("mixup=0.2", "cutmix=1")])
def test_eight_devices_mix_as_one(names):
    mix = make_mixing([MIXINGS.read(name) for name in names], 10)
    images, labels = images_of(16, 8, 8), np.arange(16, dtype=np.int32) % 10
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    compiled = jax.jit(mix, out_shardings=split)
    for seed in range(3):
        key = jax.random.key(seed)
        arguments = jax.device_put((key, images, labels), (everywhere, split, split))
        for found, expected in zip(
            compiled(*arguments), jax.jit(mix)(key, images, labels), strict=True
        ):
            np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
            assert not np.array_equal(found, images) and len(found.sharding.device_set) == 8


def test_mixup_takes_activations_and_cutmix_those_with_height_and_width():
    mixup, cutmix = MIXINGS.read("mixup=1"), MIXINGS.read("cutmix=1")
    for shape in [(64,), (4, 4, 8)]:
        mixing.check_mixing(mixup, 8, shape, 3)
    mixing.check_mixing(cutmix, 8, (4, 4, 8), 3)
    with pytest.raises(InputError, match=r"given \[B, 64\], which has no height and width"):
        mixing.check_mixing(cutmix, 8, (64,), 3)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda key, images, targets, strength: images, "mixing own=1 returns .*expected"),
        (lambda key, images, targets, strength: (images[:2], targets), "returns"),
        (lambda key, images, targets, strength: (images, targets.argmax(-1)), "returns"),
        (lambda key, images, targets: (images, targets), "mixing own=1 fails: .*expected"),
    ],
)
def test_what_a_mixing_must_be(function, message):
    with pytest.raises(InputError, match=message):
        mixing.check_mixing(Mixing("own", function, 1.0), 4, (8, 8, 3), 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mixpu=1", "unknown mixing 'mixpu'; nearest: mixup"),
        ("mixup=0", r"expected mixup=NUMBER in \(0, inf\) \(alpha of Beta"),
        ("cutmix", "expected cutmix=NUMBER"),
        ("mixup=inf", "expected mixup=NUMBER"),
    ],
)
def test_what_is_no_mixing(text, message):
    with pytest.raises(InputError, match=message):
        MIXINGS.read(text)


def test_registered_mixings_are_read(monkeypatch):
    monkeypatch.setattr(MIXINGS, "entries", dict(MIXINGS.entries))

    def halves(key, images, targets, strength):
        return images * strength, targets

    mixing.register_mixing("halves", halves, "factor", "(0, 1]")
    found, _ = MIXINGS.read("halves=0.5")(jax.random.key(0), jnp.ones((2, 3)), jnp.ones((2, 2)))
    np.testing.assert_array_equal(found, np.full((2, 3), 0.5))
    with pytest.raises(InputError, match=r"register_mixing\('mixup'\)"):
        mixing.register_mixing("mixup", halves)
    with pytest.raises(InputError, match="a mixing 'halves' is registered already"):
        mixing.register_mixing("halves", lambda *given: halves(*given))
    mixing.register_mixing(
        "halves", lambda key, images, targets, s: (images, targets), replace=True
    )
    unchanged, _ = MIXINGS.read("halves=0.5")(jax.random.key(0), jnp.ones((2, 3)), jnp.ones((2, 2)))
    np.testing.assert_array_equal(unchanged, np.ones((2, 3)))


@pytest.mark.parametrize("names", [("mixup=0.2",), ("mixup=0.2", "cutmix=1")])
def test_what_follows_a_mixing_stays_divided_among_the_devices(names):
    """The partners are gathered from all devices; of the product after it each makes an eighth."""
    mix = make_mixing([MIXINGS.read(name) for name in names], 10)

    def step(key, images, labels, kernel):
        mixed, targets = mix(key, images, labels)
        return (mixed.reshape(len(mixed), -1) @ kernel).sum(), targets.sum()

    arguments = (
        jax.eval_shape(lambda: jax.random.key(0)),
        jax.ShapeDtypeStruct((16, 8, 8, 3), jnp.float32),
        jax.ShapeDtypeStruct((16,), jnp.int32),
        jax.ShapeDtypeStruct((192, 512), jnp.float32),
    )
    flops = {}
    for devices in (1, 8):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
        whole = NamedSharding(mesh, PartitionSpec())
        split = NamedSharding(mesh, PartitionSpec("data"))
        program = jax.jit(step, in_shardings=(whole, split, split, whole), out_shardings=whole)
        flops[devices] = program.lower(*arguments).compile().cost_analysis()["flops"]
    assert flops[8] < 0.15 * flops[1], flops
