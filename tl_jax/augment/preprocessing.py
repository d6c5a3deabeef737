"""What happens to pixels on the device: from stored uint8 images to the network's input.

Pure functions meant to run inside the compiled step. Images are first brought to the network's input
size, S x S; augmentation is measured in its pixels, at any stored size.
Shapes: B images of H x W pixels at their stored size, C channels.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from tl_jax import errors
from tl_jax.errors import InputError

_METHODS = {"bilinear": "linear", "bicubic": "cubic"}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How images become the network's input.

    Attributes:
        image_size: S, the side of the input in pixels.
        resize: the side to which the shorter side is resized before the central S x S crop, the
            aspect ratio kept; at least `image_size`. None: S.
        interpolation: `bilinear` or `bicubic`, both antialiased when shrinking.
        mean: per channel, on the [0, 1] scale.
        std: per channel, on the [0, 1] scale.
        crop_padding: training only: black pixels added on every side of the network's input before
            a random S x S crop; 0 for no random crop. 4 pixels shift an image of 32 by up to an
            eighth, one of 224 by up to a 56th.
        flip: training only: mirror horizontally with probability 1/2.

    Raises:
        InputError: listing every value out of range.
    """

    image_size: int
    resize: int | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.interpolation not in _METHODS:
            raise errors.unknown("interpolation", self.interpolation, _METHODS)
        problems = []
        if self.image_size < 1:
            problems.append(f"image_size is {self.image_size}, expected at least 1 pixel")
        if self.resize is not None and self.resize < self.image_size:
            problems.append(
                f"resize is {self.resize}, expected at least image_size {self.image_size}"
            )
        if self.crop_padding < 0:
            problems.append(f"crop_padding is {self.crop_padding}, expected 0 or more pixels")
        if (len(self.mean), len(self.std)) != (3, 3):
            problems.append(
                f"mean has {len(self.mean)} and std {len(self.std)} channels, expected 3"
            )
        if not all(0 <= value <= 1 for value in self.mean):
            problems.append(f"mean is {tuple(self.mean)}, expected numbers in [0, 1]")
        if not all(0 < value <= 1 for value in self.std):
            problems.append(f"std is {tuple(self.std)}, expected numbers in (0, 1]")
        if problems:
            raise InputError("\n".join(problems))


def make_train_transform(
    spec: Preprocessing,
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Returns `transform(key, positions, images)`: the evaluation path, with a random crop and flip.

    In this order: resize, central crop to S x S, random crop with `crop_padding` pixels of S, flip,
    normalisation. The arguments of `transform` are a JAX random key, int32 [B] positions in the global
    batch, and uint8 [B, H, W, C] images; it returns float32 [B, S, S, 3]. What happens to an image
    depends on `key` and its position alone, so any division of the batch over devices gives the same
    images.
    """

    def transform(key: jax.Array, positions: jax.Array, images: jax.Array) -> jax.Array:
        images = _to_input_size(spec, images)
        if spec.crop_padding or spec.flip:
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
            images = crop_and_flip(keys, images, spec.crop_padding, spec.flip)
        return normalize(images, spec.mean, spec.std)

    return transform


def make_eval_transform(spec: Preprocessing) -> Callable[[jax.Array], jax.Array]:
    """Returns `transform(images)`: resize, central crop, normalise; nothing random.

    `transform` takes uint8 [B, H, W, C] and returns float32 [B, S, S, 3]; one-channel images are
    repeated over the three channels.
    """

    def transform(images: jax.Array) -> jax.Array:
        return normalize(_to_input_size(spec, images), spec.mean, spec.std)

    return transform


def _to_input_size(spec: Preprocessing, images: jax.Array) -> jax.Array:
    """Returns [B, S, S, C] in [0, 255]: uint8 where nothing had to be resized, else float32."""
    _check_images(images)
    size = resized_shape(images.shape[1], images.shape[2], spec.resize or spec.image_size)
    return central_crop(resize(images, size, spec.interpolation), spec.image_size)


def crop_and_flip(keys: jax.Array, images: jax.Array, padding: int, flip: bool) -> jax.Array:
    """Returns images shifted by a random crop from black-padded ones, and mirrored at random.

    Offsets are uniform over the (2 * padding + 1) squared crops. Row and column indices are
    computed per image and gathered once.

    Args:
        keys: [B] random keys, one per image.
        images: [B, H, W, C], not normalised: black is 0.
        padding: pixels of these images, on every side; 0 for no crop.
        flip: whether to mirror with probability 1/2.

    Returns:
        [B, H, W, C], of the same dtype.

    Source: He et al. 2015 (arXiv:1512.03385), section 4.2, who pad CIFAR by 4.
    """
    height, width = images.shape[1:3]
    margin = (padding, padding)
    padded = jnp.pad(images, ((0, 0), margin, margin, (0, 0)))

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        crop_key, flip_key = jax.random.split(key)
        top, left = jax.random.randint(crop_key, (2,), 0, 2 * padding + 1)
        rows, columns = jnp.arange(height), jnp.arange(width)
        if flip:
            columns = jnp.where(jax.random.bernoulli(flip_key), columns[::-1], columns)
        return image[top + rows][:, left + columns]

    return jax.vmap(one)(keys, padded)


def resize(images: jax.Array, size: tuple[int, int], interpolation: str = "bilinear") -> jax.Array:
    """Returns images at another size, antialiased when shrinking; as they are if they have it.

    The filters are Pillow's (triangle; Keys' cubic with a = -0.5), widened by the shrinking factor.
    Unlike Pillow, which rounds to whole levels after each of its two passes, values stay
    fractional; bicubic overshoot is clipped to [0, 255] once, at the end.

    Args:
        images: [B, H, W, C], uint8 or float in [0, 255].
        size: (height, width) wanted.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        float32 [B, height, width, C] in [0, 255], or `images` as they are.
    """
    if images.shape[1:3] == tuple(size):
        return images
    shape = (images.shape[0], *size, images.shape[3])
    images = jax.image.resize(
        images.astype(jnp.float32), shape, _METHODS[interpolation], antialias=True
    )
    return jnp.clip(images, 0.0, 255.0) if interpolation == "bicubic" else images


def resized_shape(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Returns (height, width) with the shorter side `shorter` pixels, the longer one rounded down.

    Source: torchvision `transforms.functional.resize`, which truncates too.
    """
    if height <= width:
        return shorter, shorter * width // height
    return shorter * height // width, shorter


def central_crop(images: jax.Array, size: int) -> jax.Array:
    """Returns the central `size` x `size` pixels of [B, H, W, C] images.

    An odd margin is split as in torchvision's `center_crop`: half of it, rounded half to even.
    """
    if images.shape[1:3] == (size, size):
        return images
    top, left = (round((side - size) / 2) for side in images.shape[1:3])
    return images[:, top : top + size, left : left + size]


def normalize(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Returns (images / 255 - mean) / std as float32, for [B, H, W, C] images in [0, 255]."""
    shift = 255 * jnp.asarray(mean, jnp.float32)[None, None, None, :]
    scale = 255 * jnp.asarray(std, jnp.float32)[None, None, None, :]
    return (images.astype(jnp.float32) - shift) / scale


def _check_images(images: jax.Array) -> None:
    if images.ndim != 4 or images.dtype != jnp.uint8 or images.shape[3] not in (1, 3):
        given = f"{images.dtype} {tuple(images.shape)}"
        raise InputError(f"images are {given}, expected uint8 [B, H, W, C] with C 1 or 3")
