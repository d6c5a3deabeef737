"""Encoded images (JPEG, PNG and what else Pillow reads) to uint8 arrays, as a viewer shows them.

Orientation: a camera that was held sideways says so in the EXIF header. Sizes and pixels are those of
the turned image. (In a PNG the header counts where it stands before the pixels; Pillow turns TIFF
images by itself.) Transparent pixels become white. Of an animation, or of a TIFF file with several
pages, the first counts.

Depth: of 16 bits a channel the upper eight are kept, in colour and in grey, so that the whole range of
the file, not that of one image, is shown as black to white; likewise of 12-bit TIFF files. Images of
32 bits a channel, integers or floats, have no range that a viewer could know: they are refused.

H, W: rows and columns of the turned image. S: the side of a square.
"""

import functools
import importlib
import importlib.util
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from tl_jax.errors import InputError, unknown

# Pillow would clip these to 8 bits without a word.
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
# Formats whose mode "I" (32 bits) means 16 bits of grey, scaled to [0, 65535].
_SIXTEEN_BITS = ("PNG", "PPM")
# Tags of TIFF 6.0, section 8: bits of a sample; 0 where white is zero.
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_BACKGROUND = (255, 255, 255)
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_ORIENTATION, _SHORT = 274, 3
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
# A JPEG's reduced decoding averages blocks of pixels; the antialiased resize shall do the last halving.
_DRAFT = 2
# Bytes of a pixel in Pillow's memory, unless the image has a single channel.
_PIXEL_BYTES = 4

# What the pixels of a file depend on besides its bytes; to be changed with what `decode` does.
DECODER = f"Pillow {PIL.__version__}, turned, over white, reduced to {_DRAFT} sides"

# Pillow raises RuntimeError where the decoder of AVIF or WebP gives up, and whatever its plugins meet in
# a damaged header: some thirty formats, each with its own habits.
_UNREADABLE = (
    *(OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError, EOFError),
    *(struct.error, zlib.error, LookupError, TypeError, AttributeError, ArithmeticError),
)
# Libraries that teach Pillow more formats when they are installed: (module, function to call).
_PLUGINS = (("pillow_heif", "register_heif_opener"),)


@functools.cache
def register_plugins() -> None:
    """Makes Pillow read the formats of the plugins that are installed: HEIC where pillow-heif is."""
    for module, function in _PLUGINS:
        if importlib.util.find_spec(module) is not None:
            getattr(importlib.import_module(module), function)()


def stored_size(encoded: bytes | Path, name: str) -> tuple[int, int]:
    """Returns (H, W) from the header alone; `name` is how a message calls the image.

    Raises:
        InputError: if it is no image, or one that is not read.
    """
    return stored(encoded, name)[0]


def stored(encoded: bytes | Path, name: str) -> tuple[tuple[int, int], str]:
    """Returns (H, W) and what an image is stored as, such as "JPEG RGB"; see `stored_size`."""
    register_plugins()
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            width, height = image.size
            _check_depth(image, name)
            if not width or not height:
                raise ValueError(f"it is {height}x{width} pixels")
            kind = f"{image.format} {image.mode}"
            sideways = _orientation(image) in _SIDEWAYS
            return ((width, height) if sideways else (height, width)), kind
    except InputError:
        raise
    except _UNREADABLE as error:
        raise _unreadable(encoded, name, error) from error


def decode(
    encoded: bytes, name: str, image_size: int = 0, interpolation: str = "bilinear"
) -> np.ndarray:
    """Returns an image as uint8 [H, W, 3], or [S, S, 3] where `image_size` asks for it.

    Grey is repeated over the channels; see the module for orientation and transparency.

    Args:
        encoded: the bytes of the file.
        name: how a message calls the image.
        image_size: S; when above 0, the shorter side is resized to it, the aspect ratio kept and the
            longer side rounded down, and the centre square cut out. An image of that size is left as
            it is. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where its shorter side then still
            has 2 S pixels or more, and resized from there.
        interpolation: of the resize, antialiased: `bilinear` or `bicubic`.

    Raises:
        InputError: if the bytes are no image, cut short, or deeper than 16 bits a channel.
    """
    if interpolation not in _FILTERS:
        raise unknown("interpolation", interpolation, _FILTERS)
    register_plugins()
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            _check_depth(opened, name)
            # Asked before the pixels are loaded, as in `stored_size`: both must say the same.
            orientation, size = _orientation(opened), opened.size
            box = _draft(opened, image_size)
            opened.load()
            image = _opaque(_eight_bits(opened))
            if image_size and image.size != (image_size, image_size):
                resized = _resized(size, image_size)
                image = image.resize(resized, _FILTERS[interpolation], box)
            if orientation in _TURNS:
                image = image.transpose(_TURNS[orientation])
            return np.asarray(_central(image, image_size) if image_size else image)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise _unreadable(encoded, name, error) from error


def shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """Returns the centre square of an image, uint8 [H, W, 3], resized as by `decode`: uint8 [S, S, 3]."""
    image = Image.fromarray(pixels)
    resized = image.resize(_resized(image.size, side), Image.Resampling.BILINEAR)
    return np.asarray(_central(resized, side))


def to_png(pixels: np.ndarray) -> bytes:
    """Returns uint8 [H, W, 3] as the bytes of a PNG: the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def to_jpeg(pixels: np.ndarray, quality: int = 95) -> bytes:
    """Returns uint8 [H, W, 3] as the bytes of a JPEG without subsampled colours: pixels differ by a few levels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def format_of(encoded: bytes, name: str) -> str:
    """Returns the format of an encoded image as Pillow calls it, such as "JPEG"; `name` is for messages.

    Raises:
        InputError: if it is none.
    """
    register_plugins()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return str(image.format)
    except _UNREADABLE as error:
        raise InputError(f"{name} cannot be read as an image: {error}") from error


def decoding_bytes(encoded: bytes, image_size: int = 0) -> int:
    """Returns the bytes that `decode` holds at most beside its argument, estimated from the header.

    An image that cannot be read counts nothing: `decode` says what is wrong with it.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            full = image.width * image.height
            orientation = _orientation(image)
            _draft(image, image_size)
            pixels = image.width * image.height
            count = pixels * (1 if image.mode in ("1", "L", "P") else _PIXEL_BYTES)
            if image.has_transparency_data:
                count += 2 * pixels * _PIXEL_BYTES
            elif image.mode != "RGB":
                count += pixels * _PIXEL_BYTES
            if image.info.get("progressive") or image.format in ("WEBP", "AVIF", "GIF"):
                # All coefficients of a progressive JPEG, 16 bits each; a decoder's own frame.
                count += 6 * full
            if not image_size:
                # The turned copy, then the array, which Pillow gathers from pieces.
                count += pixels * _PIXEL_BYTES * (orientation in _TURNS)
                count += 6 * pixels
            return count
    except _UNREADABLE:
        return 0


def _unreadable(encoded: bytes | Path, name: str, error: Exception) -> InputError:
    """Returns the error for an image that Pillow refuses, with what the file looks like instead."""
    reason = str(error) or type(error).__name__
    if isinstance(error, PIL.UnidentifiedImageError):
        if isinstance(encoded, bytes):
            start = encoded[:200]
        else:
            with open(encoded, "rb") as file:
                start = file.read(200)
        reason = _looks_like(start)
    return InputError(f"{name} cannot be read as an image: {reason}")


def _looks_like(start: bytes) -> str:
    """Returns what a file that is no image seems to be, by its first bytes."""
    if not start:
        return "the file is empty"
    text = start.decode("ascii", "replace").strip()
    if "\ufffd" in text or not all(letter.isprintable() or letter.isspace() for letter in text):
        return "its content has none of the formats that are read, or its header is damaged"
    if text.lower().startswith(("<!doctype html", "<html")):
        return "it is an HTML page"
    return f"it is text that begins with {text.split()[0][:20] if text else ' '!r}"


def _check_depth(image: Image.Image, name: str) -> None:
    """Raises InputError for an image whose levels have no known range."""
    if image.mode == "F" or (image.mode == "I" and image.format not in _SIXTEEN_BITS):
        kind = "floats" if image.mode == "F" else "integers"
        raise InputError(
            f"{name} holds {kind} of 32 bits a channel (mode {image.mode}), of which no range is known; "
            "expected 8 or 16 bits: scale it yourself"
        )


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns a grey image of 12 or 16 bits with the upper eight of them; any other as it is."""
    if image.mode not in _DEEP_MODES:
        return image
    levels = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    shift = 4 if tags.get(_BITS) in (12, (12,)) else 8
    grey = (levels >> shift).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    if isinstance(image.info.get("transparency"), int):
        grey[levels == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation of an opened image, 1 to 8; 1 where it has none that can be read.

    Viewers show images with a broken header as they are stored. Read here rather than by Pillow, which
    warns of such headers, and decodes a PNG to find out that it has none.

    Source: TIFF 6.0, section 2, for the layout; EXIF 2.32, tag 274.
    """
    header = (image.info.get("exif") or b"").removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}L", header, 4)
        (count,) = struct.unpack_from(f"{order}H", header, start)
        for entry in range(count):
            place = start + 2 + 12 * entry
            tag, kind, _, value = struct.unpack_from(f"{order}HHLH", header, place)
            if (tag, kind) == (_ORIENTATION, _SHORT):
                return value if value in range(1, 9) else 1
    except struct.error:
        pass
    return 1


def _draft(image: Image.Image, side: int) -> tuple[int, int, float, float] | None:
    """Makes an opened JPEG decode at a fraction of its size; returns the part of it that has pixels.

    The last row and column of the reduced image may be half outside of the picture. None: all of it.
    """
    if not side or min(image.size) < 2 * _DRAFT * side:
        return None
    reduced = image.draft(None, (_DRAFT * side, _DRAFT * side))
    return reduced[1] if reduced else None


def _opaque(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        background = Image.new("RGB", image.size, _BACKGROUND)
        background.paste(shown, mask=shown)
        return background
    return image if image.mode == "RGB" else image.convert("RGB")


def _resized(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Returns (width, height) with the shorter one `side`, as torchvision's `resize` rounds."""
    width, height = size
    return (side, side * height // width) if width <= height else (side * width // height, side)


def _central(image: Image.Image, side: int) -> Image.Image:
    # Margins as `preprocessing.central_crop` splits them: half to even.
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))
