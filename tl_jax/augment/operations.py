"""Operations: random changes of one training image, by name in a config or as objects.

An operation is a pure function `(key, image, strength) -> image`: a JAX random key, a float32 [S, S, 3] image at the
network's input size with pixels in [0, 255], and a number. It returns an image of the same shape and dtype.
It is written for one image; the library maps it over the batch. One that shows what lies outside of the image takes
a fourth argument, `fill="black"`, one of `sampling.FILLS`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from tl_jax.augment import color, erasing, filters, geometry, levels, policies, sampling, warps
from tl_jax.augment.table import Entry, Named, Table
from tl_jax.errors import InputError

Function = Callable[..., jax.Array]

# Folded into the key of an image for its first operation. Crop and flip have the two keys that it splits into, which
# are those with 0 and 1 folded in.
_FIRST_KEY = 2


@dataclasses.dataclass(frozen=True)
class Operation(Named):
    """An operation with its strength; `operation(key, image)` applies it.

    Example:
        >>> darken = Operation("darken", lambda key, image, strength: image * (1 - strength), 0.5)
        >>> str(darken)
        'darken=0.5'
    """


_UP_TO = "[0, 1]"  # probabilities, and what a factor differs from 1 by
_ENTRIES = {
    "rotation": Entry(geometry.rotation, "degrees, the largest angle either way", "[0, 180]"),
    "random_resized_crop": Entry(
        geometry.random_resized_crop, "the least share of the area", "(0, 1]"
    ),
    "translation": Entry(warps.translation, "the largest share of a side either way", _UP_TO),
    "shear": Entry(warps.shear, "degrees, the largest angle either way", "[0, 90)"),
    "zoom": Entry(warps.zoom, "the largest change of size either way, a share", "[0, 1)"),
    "perspective": Entry(
        warps.perspective, "the largest shift of a corner, of half a side", "[0, 1)"
    ),
    "color_jitter": Entry(
        color.color_jitter,
        "brightness, contrast and saturation by 1 ± this, the hue by ± a quarter of it",
        _UP_TO,
    ),
    "brightness": Entry(color.brightness, "the factor is in 1 ± this", _UP_TO),
    "contrast": Entry(color.contrast, "the factor is in 1 ± this", _UP_TO),
    "saturation": Entry(color.saturation, "the factor is in 1 ± this", _UP_TO),
    "hue": Entry(color.hue, "the largest turn either way, a share of the circle", "[0, 0.5]"),
    "grey": Entry(color.grey, "the probability", _UP_TO),
    "blur": Entry(
        filters.blur, "pixels, the largest standard deviation; the least is 0.1", "[0.1, 20]"
    ),
    "noise": Entry(filters.noise, "the standard deviation, a share of 255", _UP_TO),
    "posterise": Entry(levels.posterise, "bits that are kept, in half of the images", "[1, 8]"),
    "solarise": Entry(
        levels.solarise, "the first level that is inverted, in half of the images", "[0, 255]"
    ),
    "equalise": Entry(levels.equalise, "the probability", _UP_TO),
    "auto_contrast": Entry(levels.auto_contrast, "the probability", _UP_TO),
    "random_erasing": Entry(erasing.random_erasing, "the probability", _UP_TO),
    "cutout": Entry(erasing.cutout, "pixels, the side of the square", "[0, inf)"),
    "rand_augment": Entry(policies.rand_augment, "the magnitude of both changes, of 30", "[0, 30]"),
    "random_change": Entry(policies.random_change, "the magnitude of the change, of 30", "[0, 30]"),
    "trivial_augment": Entry(policies.trivial_augment, "the probability; the paper has 1", _UP_TO),
    "three_augment": Entry(
        policies.three_augment,
        "brightness, contrast and saturation by 1 ± this; the paper has 0.3",
        _UP_TO,
    ),
}
OPERATIONS = Table(Operation, _ENTRIES)


def register_operation(
    name: str,
    function: Function,
    strength: str = "",
    within: str = "[0, inf)",
    *,
    replace: bool = False,
) -> None:
    """Makes `NAME=STRENGTH` an operation of `augment.operations` in a config.

    Args:
        name: none of ours.
        function: `(key, image, strength) -> image`; see the top of this file.
        strength: what the strength means, in one line.
        within: the interval of the strength, such as "[0, 1]".
        replace: whether it takes the place of another operation of that name, registered before.

    Raises:
        InputError: if the name is taken or cannot be written in a config.
    """
    OPERATIONS.register(name, function, strength, within, replace=replace)


def apply(operations: Sequence[Operation], keys: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the images, each changed by all operations in order.

    Args:
        operations: one at least.
        keys: [B] random keys, one per image.
        images: [B, S, S, C] with C 1 or 3, pixels in [0, 255].

    Returns:
        float32 [B, S, S, 3]; one-channel images are repeated over the three channels.
    """
    shape = (*images.shape[:3], 3)
    images = jnp.broadcast_to(images.astype(jnp.float32), shape)

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        for number, operation in enumerate(operations):
            image = operation(jax.random.fold_in(key, _FIRST_KEY + number), image)
        return image

    return jax.vmap(one)(keys, images)


def with_fill(operation: Operation, fill: str) -> Operation:
    """Returns the operation with `fill` for what lies outside of the image, where its function takes that.

    Raises:
        InputError: if `fill` is none of `sampling.FILLS`.
    """
    sampling.check_fill(fill)
    if fill == "black" or "fill" not in inspect.signature(operation.function).parameters:
        return operation
    return dataclasses.replace(operation, function=functools.partial(operation.function, fill=fill))


def check_operation(operation: Operation, size: int) -> None:
    """Traces an operation on the shape of an image of `size` pixels; nothing is computed.

    Raises:
        InputError: if it fails, or returns anything but such an image.
    """
    image = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
    wanted = f"expected (key, image, strength) -> image, float32 [{size}, {size}, 3]"
    try:
        made = jax.eval_shape(lambda key, image: operation(key, image), jax.random.key(0), image)
    except Exception as error:
        raise InputError(f"operation {operation} fails: {error}; {wanted}") from error
    if (getattr(made, "shape", None), getattr(made, "dtype", None)) != (image.shape, image.dtype):
        raise InputError(f"operation {operation} returns {made}; {wanted}")
