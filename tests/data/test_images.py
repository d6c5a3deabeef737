import importlib.machinery
import io
import itertools
import struct
import sys
import types
import zlib

import broken_files
import numpy as np
import pytest
from PIL import Image, features

from tl_jax.augment import preprocessing
from tl_jax.data import images, listing
from tl_jax.errors import InputError


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_png_is_lossless():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(images.decode(encode(Image.fromarray(pixels)), "x"), pixels)
    assert images.stored_size(encode(Image.fromarray(pixels)), "x") == (5, 7)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK"])
def test_every_eight_bit_mode_becomes_rgb(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    decoded = images.decode(
        encode(Image.new("RGB", (4, 3), (255, 255, 255)).convert(mode), kind), "x"
    )
    assert decoded.shape == (3, 4, 3)
    assert (decoded == 255).all()


def test_the_centre_square_of_the_resized_image_remains():
    # 4 rows by 12 columns in three flat squares: halved to 2x6, the middle two columns remain.
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, :4, 0], pixels[:, 4:8, 1], pixels[:, 8:, 2] = 200, 100, 50
    decoded = images.decode(encode(Image.fromarray(pixels)), "x", image_size=2)
    assert decoded.shape == (2, 2, 3)
    assert abs(int(decoded[0, 0, 1]) - int(decoded[0, 1, 1])) <= 1
    assert decoded[..., 1].min() >= 85


def test_the_longer_side_is_rounded_down_as_on_the_device():
    assert images._resized((30, 50), 16) == (16, 26)  # 26.67
    for width, height, side in itertools.product(range(1, 70, 3), range(1, 70, 4), (1, 7, 16, 32)):
        rows, columns = preprocessing.resized_shape(height, width, side)
        assert images._resized((width, height), side) == (columns, rows)


def test_an_image_of_the_size_is_left_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    np.testing.assert_array_equal(images.decode(encode(Image.fromarray(pixels)), "x", 6), pixels)


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", encode(Image.new("RGB", (64, 64)), "JPEG")[:400]],
    ids=["empty", "text", "cut short"],
)
def test_unreadable_images_are_named(data):
    with pytest.raises(InputError, match=r"cat\.png cannot be read as an image"):
        images.decode(data, "cat.png")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow does not read AVIF")
def test_a_damaged_avif_is_named():
    """Whichever byte is wrong: for some of them Pillow raises what it raises for no other format."""
    whole, refused = encode(Image.new("RGB", (16, 16), (9, 99, 200)), "AVIF"), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 255
        images.decoding_bytes(bytes(damaged))
        try:
            images.decode(bytes(damaged), "cat.avif")
        except InputError as error:
            refused += 1
            assert str(error).startswith("cat.avif cannot be read as an image: ")
    assert refused > len(whole) // 4


LEVELS = np.array([[0, 255, 256], [257, 40_000, 65_535]], np.uint16)
UPPER = [[0, 0, 1], [1, 156, 255]]  # of each, divided by 256


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_of_sixteen_bits_of_grey_the_upper_eight_are_kept(kind):
    if kind == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("this Pillow does not read JPEG 2000")
    content = encode(Image.fromarray(LEVELS), kind)
    decoded = images.decode(content, "x")
    np.testing.assert_array_equal(decoded, np.repeat(np.array(UPPER)[..., None], 3, axis=-1))
    assert images.stored_size(content, "x") == (2, 3)


def test_sixteen_bits_of_colour_are_those_of_grey():
    """A PNG written by hand, as Pillow writes none."""
    rows = np.repeat(LEVELS[..., None], 3, axis=-1).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        broken_files.chunk(*part)
        for part in ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    )
    np.testing.assert_array_equal(
        images.decode(content, "x"), images.decode(encode(Image.fromarray(LEVELS)), "x")
    )


def test_white_is_zero_in_some_tiff_files():
    buffer = io.BytesIO()
    Image.fromarray(LEVELS).save(buffer, "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(
        images.decode(buffer.getvalue(), "x")[..., 0], 255 - np.array(UPPER)
    )


def test_a_transparent_level_of_sixteen_bits_is_white():
    buffer = io.BytesIO()
    Image.fromarray(LEVELS).save(buffer, "PNG", transparency=256)
    assert images.decode(buffer.getvalue(), "x")[0, :, 0].tolist() == [0, 0, 255]


def test_twelve_bits_fill_the_range():
    """A TIFF written by hand, of one row: 0, 2048 and 4095, then half a byte."""
    entries = [
        (256, 3),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, 5),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHLL", tag, 3, 1, value) for tag, value in entries
    )
    content = (
        b"II*\0" + struct.pack("<L", 14) + bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0]) + directory
    )
    assert images.decode(content + b"\0\0\0\0", "x")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "floats"), (np.int32, "integers")])
def test_images_without_a_range_are_refused(dtype, kind):
    deep = encode(Image.fromarray(np.full((2, 2), 1000, dtype)), "TIFF")
    for read in (images.decode, images.stored_size):
        with pytest.raises(InputError, match=f"x holds {kind} of 32 bits a channel"):
            read(deep, "x")


def test_cmyk_is_ink_on_white_as_adobe_stores_it_or_not():
    """Half of the cyan and all of the yellow ink: what Pillow shows, (255 - C) (255 - K) / 255."""
    image = Image.new("CMYK", (16, 16), (128, 0, 255, 0))
    decoded = images.decode(encode(image, "JPEG"), "x")
    assert np.abs(decoded[8, 8].astype(int) - [127, 255, 0]).max() <= 2
    # Pillow writes Adobe's marker, with which levels are stored inverted.
    assert b"Adobe" in encode(image, "JPEG")
    assert images.decode(encode(image, "TIFF"), "x")[8, 8].tolist() == [127, 255, 0]


def test_of_several_pages_the_first_counts():
    pages = [Image.new("L", (4, 2), level) for level in (10, 200)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    assert (images.decode(buffer.getvalue(), "x") == 10).all()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow does not read AVIF")
def test_avif_is_read():
    flat = images.decode(encode(Image.new("RGB", (16, 16), (9, 99, 200)), "AVIF"), "x")
    assert np.abs(flat.astype(int) - [9, 99, 200]).max() <= 4


def test_installed_plugins_teach_more_formats(monkeypatch):
    """As pillow-heif, which registers itself when it is asked to."""
    called = []
    plugin = types.ModuleType("pillow_heif")
    plugin.__spec__ = importlib.machinery.ModuleSpec("pillow_heif", None)
    plugin.register_heif_opener = lambda: called.append(True)
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    images.register_plugins.cache_clear()
    assert listing.image_endings()
    images.stored_size(encode(Image.new("RGB", (2, 2))), "x")
    images.register_plugins.cache_clear()
    assert called == [True]


@pytest.mark.parametrize(("content", "said"), broken_files.BROKEN.values(), ids=broken_files.BROKEN)
def test_what_is_wrong_with_a_file_is_said(content, said):
    with pytest.raises(InputError, match=r"cat\.png (cannot be read|holds)") as raised:
        images.decode(content, "cat.png")
    assert said in str(raised.value) and " at 0x" not in str(raised.value)


@pytest.mark.parametrize("content", broken_files.ODD.values(), ids=broken_files.ODD)
def test_files_are_read_by_what_they_are(content):
    assert images.decode(content, "x").shape == (16, 16, 3)


def with_exif(image: Image.Image, orientation: int, kind: str = "PNG", **options) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


# What a camera stores for an upright picture: EXIF 2.32, tag 274, says where row 0 and column 0 are.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_photos_are_turned_upright(orientation, kind):
    upright = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    encoded = with_exif(stored, orientation, kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(images.decode(encoded, "x"), upright)
    assert images.stored_size(encoded, "x") == (6, 10)


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_a_photo_that_is_shrunk_is_turned_too(orientation):
    rows, columns = np.mgrid[0:96, 0:130]
    upright = np.stack([2 * rows, columns, rows + columns], -1).astype(np.uint8)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    encoded = with_exif(stored, orientation, "JPEG", quality=100, subsampling=0)
    expected = images.decode(encode(Image.fromarray(upright)), "x", 12)
    found = images.decode(encoded, "x", 12)
    # Levels: what JPEG loses, and the passes of the resize in the other order.
    assert np.abs(found.astype(int) - expected).max() <= 3


def test_the_orientation_is_found_among_other_entries():
    exif = Image.Exif()
    exif[271], exif[274], exif[305] = "maker", 8, "software"
    for endian in ("<", ">"):
        exif.endian = endian
        buffer = io.BytesIO()
        Image.new("RGB", (4, 2)).save(buffer, "JPEG", exif=exif)
        assert images.stored_size(buffer.getvalue(), "x") == (4, 2)


def test_a_plugin_may_give_no_header():
    """As pillow-heif, whose `exif` is None where the file has none."""
    image = Image.new("RGB", (4, 2))
    image.info["exif"] = None
    assert images._orientation(image) == 1


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\x00\x00",
        b"text",
        b"MM\x00*nonsense",
        b"MM\x00*\x00\x00\x00\x08\x00\x02",
        b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x09\x00\x00",
        b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x04\x00\x00\x00\x01\x00\x06\x00\x00",
    ],
    ids=["empty", "prefix", "text", "no directory", "cut short", "orientation 9", "not a short"],
)
def test_a_broken_header_turns_nothing(exif):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2), (9, 9, 9)).save(buffer, "PNG", exif=exif)
    assert images.stored_size(buffer.getvalue(), "x") == (2, 4)
    assert images.decode(buffer.getvalue(), "x").shape == (2, 4, 3)


def transparent(mode: str) -> tuple[Image.Image, dict]:
    """Returns two pixels, the first hidden and the second not, each of them dark; and how to save them."""
    if mode in ("RGBA", "LA"):
        dark = (40,) * (len(mode) - 1)
        image = Image.new(mode, (2, 1), (*dark, 255))
        image.putpixel((0, 0), (*dark, 0))
        return image, {}
    image = Image.new(mode, (2, 1))
    if mode == "P":
        image.putpalette([40, 40, 40, 40, 40, 40])
        image.putpixel((1, 0), 1)
        return image, {"transparency": bytes([0, 255])}
    other = (40,) * 3 if mode == "RGB" else 40
    image.putpixel((1, 0), other)
    return image, {"transparency": (0, 0, 0) if mode == "RGB" else 0}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_what_is_transparent_is_white(mode):
    image, options = transparent(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    decoded = images.decode(buffer.getvalue(), "x")
    np.testing.assert_array_equal(decoded[0, :, 0], [255, 40])
    np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (1, 1), (100, 0, 255, 51))
    np.testing.assert_array_equal(images.decode(encode(image), "x"), [[[224, 204, 255]]])


def test_a_palette_with_alpha_is_laid_over_white():
    image = Image.new("PA", (1, 1))
    image.putpalette([40, 40, 40])
    assert images._opaque(image).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "MPO"])
def test_of_several_frames_the_first_counts(kind):
    frames = [Image.new("RGB", (16, 16), (level,) * 3) for level in (0, 255)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    assert images.decode(buffer.getvalue(), "x").max() <= 3


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_shrinking_is_pillows_resize_and_torchvisions_centre(interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 67, 3), np.uint8)
    found = images.decode(encode(Image.fromarray(pixels)), "x", 10, interpolation)
    # 67 * 10 / 40 = 16.75, rounded down; margins of 3.
    kernel = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    small = np.asarray(Image.fromarray(pixels).resize((16, 10), kernel[interpolation]))
    np.testing.assert_array_equal(found, small[:, 3:13])


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(InputError, match="nearest: bicubic"):
        images.decode(encode(Image.new("RGB", (2, 2))), "x", 1, "bicubc")


@pytest.mark.parametrize(
    ("size", "side", "drafted"),
    [
        pytest.param((640, 480), 30, (80, 60), id="an eighth: twice the side"),
        pytest.param((640, 480), 31, (160, 120), id="a quarter"),
        pytest.param((641, 481), 100, (321, 241), id="a half, rounded up"),
        pytest.param((640, 480), 121, (640, 480), id="less than four times the side"),
        pytest.param((640, 480), 0, (640, 480), id="as stored"),
    ],
)
def test_a_jpeg_is_decoded_at_twice_the_side_at_least(size, side, drafted):
    with Image.open(io.BytesIO(encode(Image.new("RGB", size), "JPEG"))) as opened:
        images._draft(opened, side)
        assert opened.size == drafted


def test_a_reduced_jpeg_is_close_to_the_whole_one_resized():
    rows, columns = np.mgrid[0:333, 0:457] / 9
    waves = 128 + 100 * np.sin(rows)[..., None] * np.cos(columns)[..., None] * [1, 0.6, -0.8]
    encoded = encode(Image.fromarray(waves.astype(np.uint8)), "JPEG")
    whole = Image.open(io.BytesIO(encoded))
    small = whole.resize((27, 20), Image.Resampling.BILINEAR)
    found = images.decode(encoded, "x", 20)
    difference = np.abs(found.astype(int) - np.asarray(small)[:, 4:24])  # a margin of 3.5, to even
    assert difference.mean() < 1
    assert difference.max() <= 6  # levels of 255, the picture ranging over 200


def test_the_memory_of_decoding_is_that_of_what_is_decoded():
    photo = Image.new("RGB", (800, 600))
    jpeg, png = encode(photo, "JPEG"), encode(photo)
    assert images.decoding_bytes(jpeg, 30) == 4 * 100 * 75
    assert images.decoding_bytes(png, 30) == 4 * 800 * 600
    assert images.decoding_bytes(png) == (4 + 6) * 800 * 600
    assert images.decoding_bytes(encode(photo.convert("RGBA")), 30) == 3 * 4 * 800 * 600
    assert images.decoding_bytes(b"no image") == 0
