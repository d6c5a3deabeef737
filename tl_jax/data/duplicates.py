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
_MOST_AT_ONCE = 2_000_000  # pairs, of 16 bytes


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


def near_pairs(
    hashes: np.ndarray, thumbnails: np.ndarray, splits: np.ndarray | None = None
) -> np.ndarray:
    """Returns pairs of images that are nearly the same: int64 [P, 2], sorted, the smaller first.

    Each image is paired with the closest of those before it in every split, by thumbnail, so that a thousand
    frames of a video are no million pairs.

    Hashes that differ in `HASH_BITS` bits agree in one of `HASH_BITS` + 1 bands of bits at least: only images
    that agree in a band are compared. Where thousands do, each is compared with the next thousand of them by
    hash.

    Args:
        hashes: uint64 [N], see `look`.
        thumbnails: uint8 [N, 16, 16, 3].
        splits: integers [N], rising: the split of each image; None: all are of one.
    """
    splits = np.zeros(len(hashes), np.int64) if splits is None else np.asarray(splits)
    flat = thumbnails.reshape(len(thumbnails), 3 * THUMBNAIL**2)
    contrast = flat.std(axis=1) if len(flat) else np.zeros(0)
    compared = np.flatnonzero(contrast >= _LEAST_CONTRAST)
    hashes = np.asarray(hashes, np.uint64)[compared]
    kept = np.zeros((0, 2), np.int64)
    found: list[np.ndarray] = []
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
            found.append(compared[np.stack([one[close], other[close]], axis=1)])
            if sum(map(len, found)) > _MOST_AT_ONCE:
                kept, found = _closest(flat, splits, [kept, *found]), []
    return _closest(flat, splits, [kept, *found])


def _closest(flat: np.ndarray, splits: np.ndarray, found: list[np.ndarray]) -> np.ndarray:
    """Returns those of the pairs that are near and the closest of their second image in a split, sorted."""
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    parts = np.split(pairs, range(_CHUNK, len(pairs), _CHUNK))
    difference = np.concatenate([_difference(flat, part) for part in parts])
    near = difference <= THUMBNAIL_LEVELS
    pairs, difference = pairs[near], difference[near]
    pairs = pairs[np.lexsort((difference, splits[pairs[:, 0]], pairs[:, 1]))]
    group = np.stack([splits[pairs[:, 0]], pairs[:, 1]], axis=1)
    first = np.concatenate(
        [np.ones(min(len(pairs), 1), bool), (np.diff(group, axis=0) != 0).any(1)]
    )
    return np.unique(pairs[first], axis=0)


def _difference(flat: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Returns the mean absolute difference of thumbnails, in levels, for each pair."""
    one, other = flat[pairs[:, 0]], flat[pairs[:, 1]]
    # In eight bits: most of the time goes into moving bytes.
    difference = np.maximum(one, other)
    difference -= np.minimum(one, other)
    return difference.sum(axis=1, dtype=np.uint32) / difference.shape[1]


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
