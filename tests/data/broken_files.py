"""A folder of images with files as people have them: broken ones, and odd ones that are read."""

import io
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (16, 16), **options) -> bytes:
    """Returns an image of noise, as the content of a file."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Returns a chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """Returns a PNG whose header says that size, without pixels of it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def tiff_of_floats() -> bytes:
    """Returns a TIFF of 32-bit floats."""
    buffer = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)).save(buffer, "TIFF")
    return buffer.getvalue()


def flipped(content: bytes, place: int) -> bytes:
    """Returns the content with one byte changed."""
    changed = bytearray(content)
    changed[place] ^= 255
    return bytes(changed)


# File name: (its content, a part of what is said of it).
BROKEN = {
    "cut_short.jpg": (encoded("JPEG", size=(64, 64))[:900], "truncated"),
    "cut_short.png": (encoded("PNG")[:-300], "truncated"),
    "empty.jpg": (b"", "the file is empty"),
    "text.jpg": (b"not an image", "it is text that begins with 'not'"),
    "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "it is an HTML page"),
    "half.gif": (encoded("GIF", "P")[:-200], "truncated"),
    "checksum.png": (flipped(encoded("PNG"), 60), "broken data stream"),
    "header.png": (flipped(encoded("PNG"), 3), "its header is damaged"),
    "no_pixels.png": (png_of_size(0, 0), "cannot be read as an image"),
    "bomb.png": (png_of_size(60_000, 60_000), "decompression bomb"),
    "floats.tiff": (tiff_of_floats(), "floats of 32 bits"),
    "noise.bmp": (bytes(range(128, 256)), "its header is damaged"),
}
# Read by what they are, whatever their names say.
ODD = {
    "really_a_png.jpg": encoded("PNG"),
    "cmyk.jpg": encoded("JPEG", "CMYK"),
    "grey_alpha.png": encoded("PNG", "LA"),
    "palette.png": encoded("PNG", "P"),
    "UPPER.JPG": encoded("JPEG"),
}


def write(folder: pathlib.Path, *, broken: bool = True, good: int = 8) -> list[pathlib.Path]:
    """Writes {cat,dog}/* of 16x16 pixels: good and odd images and, if asked for, broken ones; returns these."""
    written = []
    rng = np.random.default_rng(1)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(good):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
        for file, content in ODD.items():
            (folder / name / file).write_bytes(content)
    for number, (file, (content, _)) in enumerate(BROKEN.items()):
        if broken:
            written.append(folder / ("cat", "dog")[number % 2] / file)
            written[-1].write_bytes(content)
    if broken:
        written.append(folder / "dog" / "gone.png")
        written[-1].symlink_to("nowhere.png")
    return written
