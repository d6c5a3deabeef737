"""What happens to training images: crop, flip and operations, between resizing and normalisation.

Images are first brought to the network's input size, S x S; augmentation is measured in its pixels, at any
stored size.
Shapes: B images of H x W pixels at their stored size, C channels.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from tl_jax.augment import operations
from tl_jax.augment.operations import Operation
from tl_jax.augment.preprocessing import Preprocessing, normalize, to_input_size
from tl_jax.augment.sampling import FILLS, check_fill
from tl_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random; false where they are not.

    Attributes:
        crop_padding: pixels added on every side of the network's input before a random S x S
            crop; 0 for no random crop. 4 pixels shift an image of 32 by up to an eighth, one of 224 by
            up to a 56th.
        flip: mirror horizontally with probability 1/2.
        operations: applied after these, in order.
        fill: what stands outside of the image, in the crop and in operations that show it; one of `FILLS`.

    Raises:
        InputError: if crop_padding is negative, or there is no such fill.
    """

    crop_padding: int = 0
    flip: bool = False
    operations: tuple[Operation, ...] = ()
    fill: str = "black"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_fill(self.fill)
        if self.crop_padding < 0:
            raise InputError(f"crop_padding is {self.crop_padding}, expected 0 or more pixels")

    def __bool__(self) -> bool:
        """Returns whether anything is changed."""
        return bool(self.crop_padding or self.flip or self.operations)


NOTHING = Augmentation()


def make_train_transform(
    spec: Preprocessing, augmentation: Augmentation = NOTHING
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Returns `transform(key, positions, images)`: the evaluation path, with augmentation.

    In this order: resize, central crop to S x S, random crop with `crop_padding` pixels of S, flip,
    operations, normalisation. The arguments of `transform` are a JAX random key, int32 [B] positions in the
    global batch, and uint8 [B, H, W, C] images; it returns float32 [B, S, S, 3]. What happens to an image
    depends on `key` and its position alone, so any division of the batch over devices gives the same
    images.
    """
    augment = make_augment(spec, augmentation)
    return lambda *arguments: normalize(augment(*arguments), spec.mean, spec.std)


def make_augment(
    spec: Preprocessing, augmentation: Augmentation = NOTHING
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Returns `augment(key, positions, images)`: what `make_train_transform` does but for the normalisation.

    It returns [B, S, S, C], pixels in [0, 255]; uint8 where nothing has made them float32.
    """
    crops = augmentation.crop_padding or augmentation.flip
    chosen = [
        operations.with_fill(operation, augmentation.fill) for operation in augmentation.operations
    ]

    def augment(key: jax.Array, positions: jax.Array, images: jax.Array) -> jax.Array:
        images = to_input_size(spec, images)
        if augmentation:
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
        if crops:
            images = crop_and_flip(
                keys, images, augmentation.crop_padding, augmentation.flip, augmentation.fill
            )
        return operations.apply(chosen, keys, images) if chosen else images

    return augment


def crop_and_flip(
    keys: jax.Array, images: jax.Array, padding: int, flip: bool, fill: str = "black"
) -> jax.Array:
    """Returns images shifted by a random crop from padded ones, and mirrored at random.

    Offsets are uniform over the (2 * padding + 1) squared crops. Row and column indices are
    computed per image and gathered once.

    Args:
        keys: [B] random keys, one per image.
        images: [B, H, W, C], not normalised: black is 0.
        padding: pixels of these images, on every side; 0 for no crop.
        flip: whether to mirror with probability 1/2.
        fill: what the padding is, one of `FILLS`.

    Returns:
        [B, H, W, C], of the same dtype.

    Source: He et al. 2015 (arXiv:1512.03385), section 4.2, who pad CIFAR by 4.
    """
    height, width = images.shape[1:3]
    margin = (padding, padding)
    padded = jnp.pad(images, ((0, 0), margin, margin, (0, 0)), mode=FILLS[fill])

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        crop_key, flip_key = jax.random.split(key)
        top, left = jax.random.randint(crop_key, (2,), 0, 2 * padding + 1)
        rows, columns = jnp.arange(height), jnp.arange(width)
        if flip:
            columns = jnp.where(jax.random.bernoulli(flip_key), columns[::-1], columns)
        places = (top + rows)[:, None], (left + columns)[None, :]
        return image.at[places].get(mode="promise_in_bounds")

    return jax.vmap(one)(keys, padded)
