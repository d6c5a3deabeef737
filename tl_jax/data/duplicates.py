"""Images that are in a data set more than once: the same bytes, the same pixels, or nearly the same.

N: images. Two images are nearly the same where their difference hashes differ in `HASH_BITS` bits of 64 at
most, and their thumbnails of 16x16 pixels by `THUMBNAIL_LEVELS` levels of 255 on average at most. An image that
is stored again at another quality or size, a little cropped or recoloured is within both; the same object in
another photo hardly ever is. Images without contrast all look alike and are not compared.

Source: N. Krawetz, "Kind of like that", 2013, for the difference hash.
"""

import itertools

import numpy as np
from PIL import Image

HASH_BITS = 8
THUMBNAIL_LEVELS = 12.0
THUMBNAIL = 16  # side, in pixels
_ROWS, _COLUMNS = 8, 9
_LEAST_CONTRAST = 6.0  # levels: standard deviation of a thumbnail
# Of images that agree in a band of their hashes, each is compared with so many that follow it.
_WINDOW = 1000
_CHUNK = 20_000  # pairs


def look(pixels: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns the difference hash of an image, 64 bits, and its thumbnail, uint8 [16, 16, 3].

    Args:
        pixels: uint8 [H, W, 3].
    """
    image = Image.fromarray(pixels)
    thumbnail = np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    grey = image.convert("L").resize((_COLUMNS, _ROWS), Image.Resampling.BOX)
    levels = np.asarray(grey)
    bits = levels[:, 1:] > levels[:, :-1]
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), thumbnail


def near_pairs(hashes: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """Returns the pairs of images that are nearly the same: int64 [P, 2], sorted, the smaller first.

    Hashes that differ in `HASH_BITS` bits agree in one of `HASH_BITS` + 1 bands of bits at least: only images
    that agree in a band are compared. Where thousands do, each is compared with the next thousand of them by
    hash.

    Args:
        hashes: uint64 [N], see `look`.
        thumbnails: uint8 [N, 16, 16, 3].
    """
    flat = thumbnails.reshape(len(thumbnails), 3 * THUMBNAIL**2)
    contrast = flat.std(axis=1) if len(flat) else np.zeros(0)
    compared = np.flatnonzero(contrast >= _LEAST_CONTRAST)
    hashes = np.asarray(hashes, np.uint64)[compared]
    found = []
    edges = np.linspace(0, 64, HASH_BITS + 2).round().astype(int)
    for low, high in itertools.pairwise(edges):
        bands = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.lexsort((hashes, bands))
        first = np.arange(len(order))
        for distance in range(1, min(_WINDOW, len(order) - 1) + 1):
            first = first[first + distance < len(order)]
            alike = bands[order[first]] == bands[order[first + distance]]
            first = first[alike]
            if not len(first):
                break
            one, other = order[first], order[first + distance]
            close = np.bitwise_count(hashes[one] ^ hashes[other]) <= HASH_BITS
            found.append(np.stack([one[close], other[close]], axis=1))
    pairs = np.concatenate([*found, np.zeros((0, 2), np.int64)])
    pairs = np.unique(np.sort(compared[pairs], axis=1), axis=0)
    kept = [
        part[_difference(flat, part) <= THUMBNAIL_LEVELS]
        for part in np.split(pairs, range(_CHUNK, len(pairs), _CHUNK))
    ]
    return np.concatenate(kept)


def _difference(flat: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Returns the mean absolute difference of thumbnails, in levels, for each pair."""
    one, other = flat[pairs[:, 0]].astype(np.int16), flat[pairs[:, 1]]
    return np.abs(one - other).mean(axis=1)


def same_pairs(digests: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Returns pairs of images with one digest: int64 [P, 2], the smaller first.

    Each image is paired with the first of its kind in every split, so that a thousand copies are no million
    pairs.

    Args:
        digests: [N], of bytes or pixels.
        splits: integers [N], rising: the split of each image.
    """
    _, kinds = np.unique(digests, return_inverse=True)
    pairs: list[tuple[int, int]] = []
    order = np.argsort(kinds, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1):
        if len(members) > 1:
            firsts = members[np.unique(splits[members], return_index=True)[1]]
            pairs += [(first, member) for first in firsts for member in members if first < member]
    return np.array(pairs, np.int64).reshape(-1, 2)
