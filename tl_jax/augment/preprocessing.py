"""From stored uint8 images to the network's input: size and normalisation, nothing random.

Pure functions meant to run inside the compiled step.
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

    Raises:
        InputError: listing every value out of range.
    """

    image_size: int
    resize: int | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

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


def make_eval_transform(spec: Preprocessing) -> Callable[[jax.Array], jax.Array]:
    """Returns `transform(images)`: resize, central crop, normalise; nothing random.

    `transform` takes uint8 [B, H, W, C] and returns float32 [B, S, S, 3]; one-channel images are
    repeated over the three channels.
    """

    def transform(images: jax.Array) -> jax.Array:
        return normalize(to_input_size(spec, images), spec.mean, spec.std)

    return transform


def to_input_size(spec: Preprocessing, images: jax.Array) -> jax.Array:
    """Returns uint8 [B, H, W, C] images as [B, S, S, C] in [0, 255].

    They stay uint8 where nothing had to be resized, and are float32 elsewhere.
    """
    _check_images(images)
    size = resized_shape(images.shape[1], images.shape[2], spec.resize or spec.image_size)
    return central_crop(resize(images, size, spec.interpolation), spec.image_size)


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
    shift, scale = _in_levels(mean, std)
    return (images.astype(jnp.float32) - shift) / scale


def to_pixels(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Returns normalised [B, H, W, C] images as uint8: the inverse of `normalize`, rounded and clipped."""
    shift, scale = _in_levels(mean, std)
    return as_levels(images * scale + shift)


def _in_levels(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[jax.Array, jax.Array]:
    """Returns both as [1, 1, 1, C], in levels."""
    shift = 255 * jnp.asarray(mean, jnp.float32)[None, None, None, :]
    scale = 255 * jnp.asarray(std, jnp.float32)[None, None, None, :]
    return shift, scale


def as_levels(images: jax.Array) -> jax.Array:
    """Returns pixels in [0, 255] as uint8: rounded and clipped; uint8 ones as they are."""
    if images.dtype == jnp.uint8:
        return images
    return jnp.clip(jnp.round(images), 0, 255).astype(jnp.uint8)


def _check_images(images: jax.Array) -> None:
    if images.ndim != 4 or images.dtype != jnp.uint8 or images.shape[3] not in (1, 3):
        given = f"{images.dtype} {tuple(images.shape)}"
        raise InputError(f"images are {given}, expected uint8 [B, H, W, C] with C 1 or 3")
