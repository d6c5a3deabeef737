import io

import numpy as np
import pytest
from PIL import Image

from tl_jax.data import images
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


def test_deep_images_are_refused():
    deep = Image.fromarray(np.full((2, 2), 1000, np.uint16))
    with pytest.raises(InputError, match="x has more than 8 bits a channel"):
        images.decode(encode(deep), "x")
