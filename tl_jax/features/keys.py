"""What activations depend on, written down: the same facts, the same activations."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from tl_jax import trees
from tl_jax.compilation import PLAIN, Compilation
from tl_jax.data import Split


def facts_of_program(
    prefix: Callable,
    params: Any,
    batch_stats: Any,
    image_shape: tuple[int, ...],
    compilation: Compilation = PLAIN,
) -> dict[str, str]:
    """Returns all that activations depend on besides the images, as digests and names.

    The program itself is among them, lowered for one image: architecture, preprocessing,
    augmentation, boundary, dtypes and precision are all in its text, and so is any change of this
    library that changes what is computed. Nothing is computed here.

    Args:
        prefix: from `make_prefix`.
        params: of the prefix.
        batch_stats: of the prefix.
        image_shape: (H, W, C) of stored images.
        compilation: of the prefix; options of the compiler count where there are any.
    """
    image = _one_image(image_shape)
    program = compilation.jit(prefix).lower(params, batch_stats, image).as_text()
    weights = hashlib.sha256()
    for name, leaf in sorted(trees.flatten({"params": params, "batch_stats": batch_stats}).items()):
        weights.update(name.encode() + np.asarray(leaf).tobytes())
    device = jax.devices()[0]
    return {
        "program": hashlib.sha256(program.encode()).hexdigest(),
        "weights": weights.hexdigest(),
        "device": f"{device.platform} {device.device_kind}",
        "jax": f"{jax.__version__} {jaxlib.__version__}",
        **compilation.key(),
    }


def facts_of_images(split: Split, examples: np.ndarray | None = None) -> dict[str, str]:
    """Returns which images activations are of, as digests.

    Args:
        split: the images.
        examples: int64 [M], the numbers that key their views; None where nothing is augmented.
    """
    return {
        "images": split.fingerprint(),
        "examples": "" if examples is None else hashlib.sha256(examples.tobytes()).hexdigest(),
    }


def shape_of(
    prefix: Callable, params: Any, batch_stats: Any, image_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Returns the shape of the activation of one image, computing none."""
    return jax.eval_shape(prefix, params, batch_stats, _one_image(image_shape)).shape[1:]


def _one_image(image_shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch of one image, as the prefix takes it."""
    return {
        "image": jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8),
        "row": jax.ShapeDtypeStruct((1,), jnp.int32),
    }
