"""Operations: random changes of one training image, by name in a config or as objects.

An operation is a pure function `(key, image, strength) -> image`: a JAX random key, a float32 [S, S, 3] image at the
network's input size with pixels in [0, 255], and a number. It returns an image of the same shape and dtype.
It is written for one image; the library maps it over the batch.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from tl_jax.augment.color import color_jitter
from tl_jax.augment.erasing import random_erasing
from tl_jax.augment.geometry import random_resized_crop, rotation
from tl_jax.augment.table import Entry, Named, Table
from tl_jax.errors import InputError

Function = Callable[[jax.Array, jax.Array, float], jax.Array]

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


OPERATIONS = Table(
    Operation,
    {
        "rotation": Entry(rotation, "degrees, the largest angle either way", "[0, 180]"),
        "random_resized_crop": Entry(random_resized_crop, "the least share of the area", "(0, 1]"),
        "color_jitter": Entry(
            color_jitter,
            "brightness, contrast and saturation by 1 ± this, the hue by ± a quarter of it",
            "[0, 1]",
        ),
        "random_erasing": Entry(random_erasing, "the probability", "[0, 1]"),
    },
)


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
