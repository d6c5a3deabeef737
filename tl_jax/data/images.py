"""Encoded images (JPEG, PNG and what else Pillow reads) to uint8 arrays."""

import io
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from tl_jax.errors import InputError

# Pillow would clip these to 8 bits without a word.
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")

# What the pixels of a file depend on besides its bytes.
DECODER = f"Pillow {PIL.__version__}"


def stored_size(encoded: bytes | Path, name: str) -> tuple[int, int]:
    """Returns rows and columns from the header alone; `name` is how a message calls the image.

    Raises:
        InputError: if it is no image.
    """
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} cannot be read as an image: {error}") from error


def decode(encoded: bytes, name: str, image_size: int = 0) -> np.ndarray:
    """Returns an image as uint8 [H, W, 3]; grey is repeated, transparency dropped.

    Args:
        encoded: the bytes of the file.
        name: how a message calls the image.
        image_size: when above 0, the shorter side is resized to it (bilinear, antialiased) and the
            centre square cut out; an image of that size is left as it is.

    Raises:
        InputError: if the bytes are no image, cut short, or deeper than 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            if opened.mode in _DEEP_MODES:
                raise InputError(
                    f"{name} has more than 8 bits a channel (mode {opened.mode}); expected 8"
                )
            opened.load()
            image = opened if opened.mode == "RGB" else opened.convert("RGB")
            if image_size and image.size != (image_size, image_size):
                image = _square(image, image_size)
            return np.asarray(image)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} cannot be read as an image: {error}") from error


def _square(image: Image.Image, side: int) -> Image.Image:
    shorter = min(image.size)
    width, height = (max(side, round(length * side / shorter)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))
