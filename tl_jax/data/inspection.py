"""What is in a data set: classes, sizes, kinds of files, images that are there twice, images that cannot be read.

N: images of all splits, one split after the other.
"""

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tl_jax import console
from tl_jax.data import chunks, duplicates, images
from tl_jax.data.loading import Splits
from tl_jax.data.records import THREADS_PAY, LazySplit
from tl_jax.data.split import Split
from tl_jax.errors import InputError

# How two images are the same, the strongest first.
KINDS = ("bytes", "pixels", "near")
# Images with more pixels than four squares of this side are looked at shrunk to it.
_SIDE = 256
_CHUNK = 64
_PAIRS_SHOWN = 20
_PAIRS_LISTED = 10_000
_SIZES_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class _Look:
    """What is kept of an image; `problem` of one that cannot be read.

    Attributes:
        problem: why it cannot be read; "" where it can.
        size: (H, W) as stored.
        kind: what it is stored as, such as "JPEG RGB".
        content: digest of the bytes of its file, 64 bits; None of an array.
        pixels: digest of its pixels, 64 bits.
        difference_hash: see `duplicates.look`.
        thumbnail: likewise.
        moments: means of levels and of their squares, float64 [2, 3].
    """

    problem: str = ""
    size: tuple[int, int] = (0, 0)
    kind: str = ""
    content: int | None = None
    pixels: int = 0
    difference_hash: int = 0
    thumbnail: np.ndarray | None = None
    moments: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two images that are the same.

    Attributes:
        kind: one of `KINDS`.
        first: (split, place in it).
        second: likewise; of a later split, or later in the same one.
        other_class: whether their labels differ.
    """

    kind: str
    first: tuple[str, int]
    second: tuple[str, int]
    other_class: bool


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was found in a data set; `to_json` gives it as plain values.

    Attributes:
        name: of the data set.
        splits: as they were looked at.
        problems: why images cannot be read, by split and place in it.
        sizes: of each split, the number of images of each size (H, W).
        kinds: of each split, the number of images of each kind of file.
        pairs: images that are there twice, each image with the first of its kind in every split; of those that
            are nearly the same, with the closest before it in every split.
        mean: per channel, of the training images (else of the first split), in [0, 1]; every image counts alike.
        std: likewise, over all pixels.
    """

    name: str
    splits: Splits
    problems: Mapping[tuple[str, int], str]
    sizes: Mapping[str, Mapping[tuple[int, int], int]]
    kinds: Mapping[str, Mapping[str, int]]
    pairs: tuple[Pair, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes, in the order of the labels."""
        return next(iter(self.splits.values())).class_names

    @property
    def measured(self) -> str:
        """The split that mean and std are of: `train`, else the first."""
        return _measured(self.splits)

    def counts(self) -> dict[str, np.ndarray]:
        """Returns the number of images of each class, [K], of each split."""
        return {
            name: np.bincount(split.labels, minlength=len(self.class_names))
            for name, split in self.splits.items()
        }

    def repeated(self) -> list[dict[str, Any]]:
        """Returns, for each two splits and each one with itself, how many images of the second are in the first.

        A row has `first`, `second`, `bytes`, `pixels`, `near` (each image counts once, as the strongest of
        these), `images` (their sum), and those that have another label there: `other_class` of the same images,
        `near_other_class` of others. What is in two splits comes first.
        """
        strongest: dict[tuple[str, str], dict[int, str]] = collections.defaultdict(dict)
        relabelled: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
        alike: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
        for pair in sorted(self.pairs, key=lambda pair: KINDS.index(pair.kind)):
            splits = pair.first[0], pair.second[0]
            strongest[splits].setdefault(pair.second[1], pair.kind)
            if pair.other_class and pair.kind != "near":
                relabelled[splits].add(pair.second[1])
            elif pair.other_class and strongest[splits][pair.second[1]] == "near":
                alike[splits].add(pair.second[1])
        names = list(self.splits)
        order = [*itertools.combinations(names, 2), *((name, name) for name in names)]
        rows = []
        for splits in order:
            counted = collections.Counter(strongest[splits].values())
            row: dict[str, Any] = {"first": splits[0], "second": splits[1]}
            row |= {kind: counted[kind] for kind in KINDS}
            row |= {"images": counted.total(), "other_class": len(relabelled[splits])}
            row |= {"near_other_class": len(alike[splits])}
            rows.append(row)
        return rows

    def leakage(self) -> str:
        """Returns a line about images that are in two splits: the same bytes or pixels."""
        found = [
            f"{_same(row):,} of {len(self.splits[row['second']]):,} {row['second']} images are in "
            f"{row['first']} too ({_kinds(row)}"
            + (f"; {row['other_class']} with another class" if row["other_class"] else "")
            + ")"
            for row in self.repeated()
            if _same(row) and row["first"] != row["second"]
        ]
        if found:
            return "leakage: " + "; ".join(found)
        if len(self.splits) < 2:
            return "leakage: there is one split only"
        return f"no leakage: no image is in two of {', '.join(self.splits)}"

    def nearly_the_same(self) -> str:
        """Returns a line about images that are nearly the same as others; empty where there are none.

        These can be one picture stored twice, or two of one kind: handwritten digits look alike.
        """
        found = [
            f"{row['near']:,} of {len(self.splits[row['second']]):,} {row['second']} images are like some of "
            f"{row['first']}"
            + f" ({row['near_other_class']:,} with another class)"
            * bool(row["near_other_class"])
            for row in self.repeated()
            if row["near"]
        ]
        if not found:
            return ""
        return f"nearly the same (stored again, or only alike; look at them): {'; '.join(found)}"

    def summary(self) -> list[str]:
        """Returns lines for a terminal, leakage first."""
        lines = [self.leakage()]
        if self.problems:
            shown = list(self.problems.values())[:_PAIRS_SHOWN]
            more = len(self.problems) - len(shown)
            lines += [
                f"{console.count(len(self.problems), 'image')} cannot be read:",
                *(f"  {line}" for line in shown),
            ]
            lines += [f"  and {more:,} more"] * (more > 0)
        counts = {name: f"{len(split):,} {name}" for name, split in self.splits.items()}
        lines.append(
            f"{self.name}: {', '.join(counts.values())} images, "
            + console.count(len(self.class_names), "class")
        )
        lines += [self.nearly_the_same()] * bool(self.nearly_the_same())
        for row in self.repeated():
            if _same(row) and row["first"] == row["second"]:
                other = f", {row['other_class']:,} of them with another class" * bool(
                    row["other_class"]
                )
                lines.append(
                    f"{_same(row):,} {row['first']} image{'s are' if _same(row) > 1 else ' is'} there twice "
                    f"({_kinds(row)}){other}"
                )
        for name, counted in self.counts().items():
            lines.append(
                f"{name}: {counted.min():,} to {console.count(int(counted.max()), 'image')} a class"
            )
        lines += [f"sizes: {_five(self.sizes.values())}", f"files: {_five(self.kinds.values())}"]
        mean, std = ([round(value, 4) for value in values] for values in (self.mean, self.std))
        lines.append(
            f"pixels of {self.measured}: preprocess.mean={tuple(mean)} preprocess.std={tuple(std)}"
        )
        return [*lines, *self.splits.notes]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as plain values; of sizes and pairs the first ones and the number of all.

        Pairs of the same images come before those that are nearly the same.
        """
        counts = self.counts()
        conflicts = [pair for pair in self.pairs if pair.other_class and pair.kind != "near"]
        listed = sorted(self.pairs, key=lambda pair: KINDS.index(pair.kind))[:_PAIRS_LISTED]
        return {
            "name": self.name,
            "leakage": self.leakage(),
            "nearly_the_same": self.nearly_the_same(),
            "repeated": self.repeated(),
            "near_means": {
                "hash_bits": duplicates.HASH_BITS,
                "thumbnail_levels": duplicates.THUMBNAIL_LEVELS,
            },
            "splits": {
                name: {
                    "examples": len(split),
                    "per_class": dict(zip(self.class_names, counts[name].tolist(), strict=True)),
                    "sizes": _most_common(self.sizes[name]),
                    "number_of_sizes": len(self.sizes[name]),
                    "files": _most_common(self.kinds[name]),
                }
                for name, split in self.splits.items()
            },
            "unreadable": [
                {"split": split, "index": place, "reason": reason}
                for (split, place), reason in self.problems.items()
            ],
            "left_out": list(self.splits.skipped or ()),
            "pairs": [self.describe(pair) for pair in listed],
            "number_of_pairs": len(self.pairs),
            "conflicts": len(conflicts),
            "measured": self.measured,
            "mean": list(self.mean),
            "std": list(self.std),
            "notes": list(self.splits.notes),
        }

    def describe(self, pair: Pair) -> dict[str, Any]:
        """Returns a pair as plain values: the split, place, file and class of both images."""
        row: dict[str, Any] = {"kind": pair.kind, "other_class": pair.other_class}
        for which, (name, place) in (("first", pair.first), ("second", pair.second)):
            split = self.splits[name]
            row[which] = {
                "split": name,
                "index": place,
                "file": split.file(place),
                "class": self.class_names[split.labels[place]],
            }
        return row


def inspect(splits: Splits, name: str) -> Inspection:
    """Returns what is in the splits of a data set; every image is decoded once.

    Args:
        splits: as `loading.open_undecoded` or `load_splits` returns them, in any form.
        name: how messages call the data set.
    """
    looks = {split: list(_looks(found)) for split, found in splits.items()}
    problems: dict[tuple[str, int], str] = {}
    sizes, kinds = {}, {}
    for split, found in looks.items():
        problems |= {
            (split, place): look.problem for place, look in enumerate(found) if look.problem
        }
        good = [look for look in found if not look.problem]
        sizes[split] = collections.Counter(look.size for look in good)
        kinds[split] = collections.Counter(look.kind for look in good)
    moments = [look.moments for look in looks[_measured(splits)] if look.moments is not None]
    mean, square = np.mean(moments, axis=0) / [[255], [255**2]] if moments else np.zeros((2, 3))
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return Inspection(
        name,
        splits,
        problems,
        sizes,
        kinds,
        tuple(_pairs(splits, looks)),
        tuple(mean.tolist()),
        tuple(std.tolist()),
    )


def examples(split: Split, count: int, side: int = 64) -> dict[int, list[np.ndarray]]:
    """Returns the first `count` images of each class that can be read, by label: uint8 [side, side, 3] each.

    Args:
        split: of any form; its images are shrunk and their centre squares cut out.
        count: images of each class, at most.
        side: in pixels.
    """
    shown: dict[int, list[np.ndarray]] = {}
    by_class = np.argsort(split.labels, kind="stable")
    for label, places in itertools.groupby(by_class, key=lambda place: int(split.labels[place])):
        for place in itertools.islice(places, 2 * count):
            pixels = picture(split, int(place), side)
            if pixels is not None and len(shown.setdefault(label, [])) < count:
                shown[label].append(pixels)
    return shown


def picture(split: Split, place: int, side: int = 64) -> np.ndarray | None:
    """Returns an image of a split as uint8 [side, side, 3]; None if it cannot be read."""
    try:
        if isinstance(split, LazySplit):
            (encoded,), _ = split.records.read(split.rows[[place]])
            return images.decode(encoded, "image", side)
        return images.shrink(split.gather(np.array([place]))[0], side)
    except InputError:
        return None


def _looks(split: Split) -> Iterator[_Look]:
    """Yields what is kept of each image of a split, in order."""

    def work(places: np.ndarray) -> list[_Look]:
        if not isinstance(split, LazySplit):
            return [_of_pixels(pixels, "array RGB") for pixels in split.gather(places)]
        rows = split.rows[places]
        problems: dict[int, str] = {}
        looks = {
            number: _of_encoded(encoded, split.records.describe(int(rows[number])))
            for number, encoded in split.read(rows, problems)
        }
        looks |= {number: _Look(problem=problem) for number, problem in problems.items()}
        return [looks[number] for number in range(len(places))]

    size = split.chunk_size() if isinstance(split, LazySplit) else _CHUNK
    yield from chunks.map_chunks(work, np.arange(len(split)), size, alone=_is_small(split))


def _is_small(split: Split) -> bool:
    """Returns whether one thread is faster than several, judged by the first image."""
    try:
        if isinstance(split, LazySplit):
            size: Sequence[int] = split.records.size(int(split.rows[0]))
        else:
            size = split.image_shape[:2]
        return int(np.prod(size)) < THREADS_PAY
    except (InputError, IndexError):
        return False


def _of_encoded(encoded: bytes, name: str) -> _Look:
    try:
        size, kind = images.stored(encoded, name)
        shrunk = size[0] * size[1] > 4 * _SIDE**2
        pixels = images.decode(encoded, name, _SIDE if shrunk else 0)
    except InputError as error:
        return _Look(problem=str(error))
    look = _of_pixels(pixels, kind, size)
    return dataclasses.replace(look, content=_digest(encoded))


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def _of_pixels(pixels: np.ndarray, kind: str, size: tuple[int, int] | None = None) -> _Look:
    size = size or pixels.shape[:2]
    # Products of matrices are many times faster than sums over the first axis.
    levels = pixels.reshape(-1, 3).astype(np.float64)
    count = len(levels)
    moments = np.stack([np.ones(count) @ levels, np.diagonal(levels.T @ levels)]) / count
    difference_hash, thumbnail = duplicates.look(pixels)
    return _Look(
        size=size,
        kind=kind,
        pixels=_digest(repr(tuple(size)).encode() + pixels.tobytes()),
        difference_hash=difference_hash,
        thumbnail=thumbnail,
        moments=moments,
    )


def _pairs(splits: Splits, looks: Mapping[str, list[_Look]]) -> Iterator[Pair]:
    """Yields the images that are there twice, each two of them once, by the strongest kind."""
    places = [
        (number, split, place)
        for number, (split, found) in enumerate(looks.items())
        for place, look in enumerate(found)
        if not look.problem
    ]
    good = [looks[split][place] for _, split, place in places]
    numbers = np.array([number for number, _, _ in places], np.int64)
    pixels = np.array([look.pixels for look in good], np.uint64)
    found: dict[tuple[int, int], str] = {}
    if all(look.content is not None for look in good):
        content = np.array([look.content for look in good], np.uint64)
        pairs = duplicates.same_pairs(content, numbers)
        found |= dict.fromkeys(map(tuple, pairs.tolist()), "bytes")
    for one, other in duplicates.same_pairs(pixels, numbers).tolist():
        found.setdefault((one, other), "pixels")
    # Of equal images one in each split is compared with those that are not.
    keys = np.stack([pixels, numbers.astype(np.uint64)])
    _, first = np.unique(keys, axis=1, return_index=True)
    first = np.sort(first)
    hashes = np.array([good[place].difference_hash for place in first], np.uint64)
    thumbnails = np.array([good[place].thumbnail for place in first], np.uint8)
    thumbnails = thumbnails.reshape(-1, duplicates.THUMBNAIL, duplicates.THUMBNAIL, 3)
    for one, other in first[duplicates.near_pairs(hashes, thumbnails, numbers[first])].tolist():
        if pixels[one] != pixels[other]:
            found.setdefault((one, other), "near")
    for (one, other), kind in sorted(found.items()):
        images_of_pair = places[one][1:], places[other][1:]
        labels = [splits[split].labels[place] for split, place in images_of_pair]
        yield Pair(kind, *images_of_pair, bool(labels[0] != labels[1]))


def _measured(splits: Mapping[str, Any]) -> str:
    return "train" if "train" in splits else next(iter(splits))


def _same(row: Mapping[str, Any]) -> int:
    return row["bytes"] + row["pixels"]


def _kinds(row: Mapping[str, Any]) -> str:
    words = {"bytes": "byte for byte", "pixels": "the same pixels"}
    return ", ".join(f"{row[kind]:,} {word}" for kind, word in words.items() if row[kind])


def _five(counts: Iterable[Mapping[Any, int]]) -> str:
    """Returns the five most common values of several counts together."""
    total: collections.Counter = collections.Counter()
    for counted in counts:
        total.update(counted)
    shown = [f"{_text(value)} ({count:,})" for value, count in total.most_common(5)]
    return ", ".join(shown) + (f" and {len(total) - 5} more" if len(total) > 5 else "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value[0]}x{value[1]}"


def _most_common(counted: Mapping[Any, int]) -> dict[str, int]:
    return {
        _text(value): count
        for value, count in collections.Counter(counted).most_common(_SIZES_SHOWN)
    }
