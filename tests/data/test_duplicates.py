import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from tl_jax.data import duplicates


def bits_of(image: Image.Image) -> str:
    """The definition: whether each of 8 x 8 cells is brighter than its left neighbour, row by row."""
    levels = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX)).tolist()
    return "".join("01"[row[x + 1] > row[x]] for row in levels for x in range(8))


def test_a_hash_has_a_bit_for_each_cell_that_is_brighter_than_the_one_before():
    # Eight rows of nine levels: rising, falling, then flat.
    levels = np.array([range(0, 90, 10), range(90, 0, -10), *[[50] * 9] * 6], np.uint8)
    pixels = np.repeat(levels[..., None], 3, axis=-1)
    found, thumbnail = duplicates.look(pixels)
    assert f"{found:064b}" == "1" * 8 + "0" * 56 == bits_of(Image.fromarray(pixels))
    assert thumbnail.shape == (16, 16, 3)


def noise(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns hashes and thumbnails of unlike images."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 63, count, dtype=np.int64).astype(np.uint64)
    return hashes, rng.integers(0, 256, (count, 16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("flipped", "brighter", "near"),
    [
        ((0, 9, 18, 27, 32, 41, 50, 59), 12, True),
        ((0, 9, 18, 27, 32, 41, 50, 59, 63), 12, False),
        ((), 13, False),
        ((0, 1, 2, 3, 4, 5, 6, 7), 0, True),
    ],
    ids=["eight bits, twelve levels", "nine bits", "thirteen levels", "bits of one byte"],
)
def test_near_means_few_bits_and_few_levels(flipped, brighter, near):
    hashes, thumbnails = noise(40)
    thumbnails //= 2
    hashes[31] = hashes[7]
    for bit in flipped:
        hashes[31] ^= np.uint64(1 << bit)
    thumbnails[31] = thumbnails[7] + brighter
    assert duplicates.near_pairs(hashes, thumbnails).tolist() == ([[7, 31]] if near else [])


def test_every_pair_is_found_by_one_band_or_another():
    """Against all pairs, one by one."""
    rng = np.random.default_rng(1)
    hashes, thumbnails = noise(60)
    hashes[30:] = hashes[:30]
    for place in range(30, 60):
        for bit in rng.choice(64, rng.integers(0, 17), replace=False):
            hashes[place] ^= np.uint64(1 << int(bit))
    thumbnails[:] = thumbnails[0]
    found = duplicates.near_pairs(hashes, thumbnails).tolist()
    expected = [
        [one, other]
        for one in range(60)
        for other in range(one + 1, 60)
        if int(hashes[one] ^ hashes[other]).bit_count() <= 8
    ]
    assert found == expected and 5 < len(expected) < 30


def test_each_image_has_the_closest_before_it_in_every_split(monkeypatch):
    """Frames of a video: all are near each other; brighter by one level each."""
    hashes, thumbnails = noise(6)
    hashes[:], thumbnails[:] = hashes[0], np.minimum(thumbnails[0], 200)
    thumbnails += np.array([0, 3, 4, 1, 9, 8], np.uint8)[:, None, None, None]
    splits = np.array([0, 0, 0, 1, 1, 1])
    expected = [[0, 1], [0, 3], [1, 2], [2, 4], [2, 5], [3, 4], [4, 5]]
    assert duplicates.near_pairs(hashes, thumbnails, splits).tolist() == expected
    assert duplicates.near_pairs(hashes, thumbnails).tolist() == [
        [0, 1], [0, 3], [1, 2], [2, 4], [4, 5],
    ]  # fmt: skip
    monkeypatch.setattr(duplicates, "_MOST_AT_ONCE", 3)
    assert duplicates.near_pairs(hashes, thumbnails, splits).tolist() == expected


def test_images_without_contrast_are_not_compared():
    hashes, thumbnails = np.zeros(3, np.uint64), np.full((3, 16, 16, 3), 200, np.uint8)
    assert len(duplicates.near_pairs(hashes, thumbnails)) == 0
    assert len(duplicates.near_pairs(hashes[:0], thumbnails[:0])) == 0


def test_equal_images_are_paired_with_the_first_of_every_split():
    digests = np.array([5, 9, 5, 7, 5, 9, 5])
    splits = np.array([0, 0, 0, 0, 1, 1, 1])
    found = duplicates.same_pairs(digests, splits).tolist()
    assert sorted(found) == [[0, 2], [0, 4], [0, 6], [1, 5], [4, 6]]
    assert duplicates.same_pairs(digests[:0], splits[:0]).shape == (0, 2)


@pytest.fixture(scope="module")
def flowers(real_data):
    """Two hundred photos of 128 pixels."""
    with zipfile.ZipFile(real_data / "flowers128.zip") as opened:
        names = [name for name in opened.namelist() if name.endswith(".jpg")][::21][:200]
        return [Image.open(io.BytesIO(opened.read(name))).convert("RGB") for name in names]


def stored_again(image: Image.Image, how: str) -> np.ndarray:
    buffer = io.BytesIO()
    size = {"smaller": (96, 96), "larger": (256, 256)}.get(how, image.size)
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("how", ["worse", "smaller", "larger"])
def test_photos_that_are_stored_again_are_found_and_others_are_not(flowers, how):
    looks = [duplicates.look(np.asarray(image)) for image in flowers]
    looks += [duplicates.look(stored_again(image, how)) for image in flowers]
    hashes = np.array([found for found, _ in looks], np.uint64)
    pairs = duplicates.near_pairs(hashes, np.stack([thumbnail for _, thumbnail in looks]))
    assert all(other - one == 200 for one, other in pairs.tolist())
    assert len(pairs) >= 196
