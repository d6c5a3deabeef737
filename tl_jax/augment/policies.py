"""RandAugment, TrivialAugment and 3-Augment: one change of several, drawn for each image.

Under `vmap` a `switch` computes all of its branches for every image. Here the fourteen changes of RandAugment are
parameters of one pipeline instead, each of whose parts changes nothing, exactly, for those that are not its own:

1. one bilinear warp by a map of the plane: shear, translation, rotation;
2. one product and sum, `a * image + b * grey + c * smooth + d`: brightness, colour, contrast, sharpness,
   auto-contrast;
3. solarise and posterise, a comparison and a rounding;
4. one lookup of levels: equalise.

Shapes: an image is float32 [H, W, 3], pixels in [0, 255].
"""

import dataclasses

import jax
import jax.numpy as jnp

from tl_jax.augment import color, filters, levels, warps
from tl_jax.augment.fusion import computed_once

# In the order of torchvision's `RandAugment` and `TrivialAugmentWide`.
CHANGES = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterise",
    "solarise",
    "auto_contrast",
    "equalise",
)
_FACTORS = ("brightness", "color", "contrast", "sharpness")
# Both magnitudes are multiples of a 30th.
LARGEST_MAGNITUDE = 30
_RAND_AUGMENT_LAYERS = 2
_SOLARISE_FROM = 128.0
_LARGEST_SIGMA = 2.0


@dataclasses.dataclass(frozen=True)
class Ranges:
    """How far each change goes at the largest magnitude.

    Attributes:
        shear: what of one coordinate is added to the other.
        translate_share: of the side of the image, cut down to whole pixels; 0 where pixels are given.
        translate_pixels: these instead.
        rotate: degrees.
        factor: of brightness, colour, contrast and sharpness: how far it is from 1.
        bits: taken from the eight of posterise.
    """

    shear: float
    translate_share: float
    translate_pixels: float
    rotate: float
    factor: float
    bits: int


# Source: torchvision, `RandAugment._augmentation_space` (Cubuk et al. 2019, arXiv:1909.13719, whose own code counts
# magnitudes by tenths) and `TrivialAugmentWide._augmentation_space` (Müller and Hutter 2021, arXiv:2103.10158).
RAND_AUGMENT = Ranges(0.3, 150 / 331, 0, 30, 0.9, 4)
TRIVIAL_AUGMENT = Ranges(0.99, 0, 32, 135, 0.99, 6)


def rand_augment(
    key: jax.Array, image: jax.Array, strength: float, fill: str = "black"
) -> jax.Array:
    """Returns the image after two random changes, one after the other, of magnitude `strength` of 30.

    Each is one of `CHANGES`, all as likely, either way as likely: RandAugment with N = 2.

    Source: Cubuk et al. 2019 (arXiv:1909.13719); torchvision `RandAugment(2, strength, interpolation=BILINEAR)`.
    """
    for layer in jax.random.split(key, _RAND_AUGMENT_LAYERS):
        image = random_change(layer, image, strength, fill)
    return image


def random_change(
    key: jax.Array, image: jax.Array, strength: float, fill: str = "black"
) -> jax.Array:
    """Returns the image after one random change of magnitude `strength` of 30: RandAugment with N = 1."""
    share = jnp.float32(strength / LARGEST_MAGNITUDE)
    kind, amount = draw_change(key, RAND_AUGMENT, share, image.shape[:2])
    return change(image, kind, amount, fill)


def trivial_augment(
    key: jax.Array, image: jax.Array, strength: float, fill: str = "black"
) -> jax.Array:
    """Returns the image, with probability `strength` after one random change of random magnitude.

    The magnitude is one of 31 from none to the largest, all as likely. The paper's probability is 1.

    Source: Müller and Hutter 2021 (arXiv:2103.10158), "wide"; torchvision
    `TrivialAugmentWide(interpolation=BILINEAR)`.
    """
    happens_key, magnitude_key, change_key = jax.random.split(key, 3)
    magnitude = jax.random.randint(magnitude_key, (), 0, LARGEST_MAGNITUDE + 1)
    share = magnitude.astype(jnp.float32) / LARGEST_MAGNITUDE
    kind, amount = draw_change(change_key, TRIVIAL_AUGMENT, share, image.shape[:2])
    happens = jax.random.bernoulli(happens_key, strength)
    return change(image, jnp.where(happens, kind, CHANGES.index("identity")), amount, fill)


def three_augment(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Returns the image in grey, solarised or blurred, then with other brightness, contrast and saturation.

    One of the three is drawn, all as likely; levels are solarised from 128 on, the blur is as `filters.blur` with
    2 pixels. The factors of the others are uniform in 1 ± `strength`, 0.3 in the paper; 0 leaves them out.

    Source: DeiT III, Touvron et al. 2022 (arXiv:2204.07118), section 3; `augment.py` of facebookresearch/deit.
    """
    choice_key, blur_key, jitter_key = jax.random.split(key, 3)
    choice = jax.random.randint(choice_key, (), 0, 3)
    grey = color.grey_values(image)[..., None]
    solarised = levels.invert_from(image, _SOLARISE_FROM)
    blurred = filters.blur(blur_key, image, _LARGEST_SIGMA)
    image = jnp.where(choice == 0, grey, jnp.where(choice == 1, solarised, blurred))
    image = computed_once(image)
    if not strength:
        return image
    brightness, contrast, saturation, _ = color.draw_factors(jitter_key, strength)
    image = color.blend(image, 0.0, brightness)
    image = color.blend(image, color.mean_grey(image), contrast)
    return color.blend(image, color.grey_values(image), saturation)


def draw_change(
    key: jax.Array, ranges: Ranges, share: jax.Array, size: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Returns which of `CHANGES`, int32, and its amount, float32.

    The amount is in the unit of the change: of what is added for a shear, pixels, degrees, a factor, a number of
    bits, a level; 0 where there is none.

    Args:
        key: random.
        ranges: how far changes go.
        share: of the largest magnitude, in [0, 1].
        size: (H, W) of the image.
    """
    kind_key, sign_key = jax.random.split(key)
    kind = jax.random.randint(kind_key, (), 0, len(CHANGES))
    sign = jnp.where(jax.random.bernoulli(sign_key), -1.0, 1.0)
    # What a division leaves below a whole number of pixels is one.
    x, y = (
        sign * jnp.floor(share * (ranges.translate_share * side or ranges.translate_pixels) + 1e-4)
        for side in (size[1], size[0])
    )
    amounts = {
        "shear_x": sign * share * ranges.shear,
        "shear_y": sign * share * ranges.shear,
        "translate_x": x,
        "translate_y": y,
        "rotate": sign * share * ranges.rotate,
        **dict.fromkeys(_FACTORS, 1 + sign * share * ranges.factor),
        "posterise": 8 - jnp.round(share * ranges.bits),
        "solarise": 255 * (1 - share),
    }
    table = jnp.stack([jnp.asarray(amounts.get(name, 0.0), jnp.float32) for name in CHANGES])
    return kind, table[kind]


def change(image: jax.Array, kind: jax.Array, amount: jax.Array, fill: str = "black") -> jax.Array:
    """Returns the image after one of `CHANGES`, by an amount; see `draw_change`.

    As torchvision's `_apply_op` on Pillow images, without the rounding to whole levels.
    """

    def is_kind(*names: str) -> jax.Array:
        return jnp.stack([kind == CHANGES.index(name) for name in names]).any()

    mapping = _mapping(is_kind, amount, image.shape[:2])
    image = computed_once(warps.warp(image, mapping, fill))
    image = computed_once(_linear(image, is_kind, amount))
    image = jnp.where(is_kind("solarise"), levels.invert_from(image, amount), image)
    bits = jnp.where(is_kind("posterise"), amount, 8.0)
    kept = jnp.where(is_kind("posterise"), levels.keep_bits(image, bits), image)
    image = computed_once(kept)
    return jnp.where(is_kind("equalise"), levels.make_even(image), image)


def _mapping(is_kind, amount: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Returns the map of the plane of a change; that which changes nothing where it has none."""
    only = lambda name: jnp.where(is_kind(name), amount, 0.0)
    height, width = size
    turn = warps.centred(warps.rotation_map(only("rotate")), height, width)
    shear = warps.shear_map(only("shear_x"), only("shear_y"))
    shift = warps.translation_map(only("translate_x"), only("translate_y"))
    same = jnp.eye(3)
    # All but one are the identity.
    return same + (turn - same) + (shear - same) + (shift - same)


def _linear(image: jax.Array, is_kind, amount: jax.Array) -> jax.Array:
    """Returns the image with other brightness, colour, contrast, sharpness, or stretched."""
    factor = jnp.where(is_kind(*_FACTORS), amount, 1.0)
    grey = computed_once(color.grey_values(image))
    smooth = computed_once(filters.smooth(image))
    stretch, shift = levels.stretching(image)
    stretches = is_kind("auto_contrast")
    other = jnp.where(is_kind("contrast"), grey.mean(), 0.0)
    constant = jnp.where(stretches, shift, (1 - factor) * other)
    of_grey = jnp.where(is_kind("color"), 1 - factor, 0.0)
    of_smooth = jnp.where(is_kind("sharpness"), 1 - factor, 0.0)
    scale = jnp.where(stretches, stretch, factor)
    added = of_grey * grey[..., None] + of_smooth * smooth + constant
    return jnp.clip(scale * image + added, 0.0, 255.0)
