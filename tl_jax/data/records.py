"""Splits of encoded images: decoded into memory where they fit, on access where they do not."""

import collections
import concurrent.futures
import copy
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from tl_jax.data import chunks, fingerprint, images
from tl_jax.data.broken import BrokenImages
from tl_jax.data.decoded import DecodedCache
from tl_jax.data.shared import SharedPixels
from tl_jax.data.split import InMemorySplit, label_problems
from tl_jax.errors import InputError

# Pixels of a stored image from which several threads are faster than one: Pillow holds the interpreter's
# lock while it reads headers, and two threads decode 32-pixel images at 2/3 of the pace of one (64 pixels:
# 3/4, 96: 1.1, 224: 1.8; two cores).
THREADS_PAY = 96 * 96
# Images read at once: each read of an array_record costs a millisecond or two, but the images of a batch
# should keep several threads busy, and photos (encoded, one byte for three pixels or so) little memory.
_LARGE_CHUNK, _CHUNK_PIXELS = 32, 16 << 20
# Images of one size are decoded at the size that is asked for where they have more than so many times its
# pixels. Smaller ones stay as stored: the accelerator resizes them, each time, in float32.
SHRUNK_ABOVE = 4
# Of the largest images, how many are looked at for the memory that decoding takes.
_INSPECTED = 16
# Once one image proves broken, so many are decoded to name others in the same error.
_MOST_CHECKED = 10_000


class Records(Protocol):
    """Encoded images with labels, read by index; can be pickled for worker processes.

    Attributes:
        class_names: one name per class.
        declared_size: (H, W) of every image where the data set says so, else None.
    """

    class_names: tuple[str, ...]
    declared_size: tuple[int, int] | None

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        """Returns the encoded images and their labels, integers, at `indices`."""
        ...

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """Returns the labels at `indices`, integers."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Returns (H, W) of one image as stored."""
        ...

    def describe(self, index: int) -> str:
        """Returns how a message calls one record."""
        ...

    def file(self, index: int) -> str:
        """Returns the path of a record's file; "" if there is none."""
        ...

    def fingerprint(self, *, labelled: bool = False) -> str:
        """Returns what tells the stored images, in their order, from any others: hexadecimal.

        Args:
            labelled: whether labels count too.

        Raises:
            InputError: if a file cannot be read.
        """
        ...


@dataclasses.dataclass(frozen=True)
class _Framing:
    """How the images of a split are decoded.

    Attributes:
        shape: (H, W, 3) of every decoded image.
        side: to which each is brought, or 0 where they stay as stored.
        pixels: of the largest stored image.
        largest: int64, the records with the largest images, a few.
    """

    shape: tuple[int, int, int]
    side: int
    pixels: int
    largest: np.ndarray


class LazySplit:
    """A split whose images are decoded on access, by a few threads; it can be pickled.

    What is decoded at what size, S being `image_size`:

    * Images of one stored size H x W, and H * W is at most `SHRUNK_ABOVE` * S * S, or S is 0: as stored.
      Resizing them belongs on the accelerator (32-pixel images for a network that sees 224).
    * Images of one size above that, such as photos: the shorter side is brought to S, the centre square
      cut out, while they are decoded (`images.decode`). They then take S * S * 3 bytes.
    * Images of several sizes: the same, whether larger than S or smaller.

    The pixels that are shrunk here are Pillow's, which torchvision's transforms use too: resized with the
    antialiased filter named `interpolation` and rounded to whole levels. The reduced decoding of a JPEG
    moves them by less than one level of 255 on average (0.3 to 0.95 on two photos of busy detail, a
    single pixel by up to 17), as the last halving at least is the filter's.

    Args:
        records: where they come from.
        rows: int64 [N], the records that belong to the split, in order.
        image_size: S: the side of the square that the network's preprocessing starts from; 0: none.
        name: how messages call the split.
        interpolation: of the resize, `bilinear` or `bicubic`.

    Raises:
        InputError: if stored sizes differ and no `image_size` is given; the sizes are named.
    """

    def __init__(
        self,
        records: Records,
        rows: np.ndarray,
        image_size: int,
        name: str,
        interpolation: str = "bilinear",
    ):
        self.records = records
        self.rows = np.asarray(rows, np.int64)
        self.class_names = records.class_names
        self.name = name
        self.image_side = image_size
        self.interpolation = interpolation
        self.decoded = 0  # images so far, about: threads do not wait for each other to count
        self._whole: LazySplit | None = None
        self._places: np.ndarray | None = None
        self._labels: np.ndarray | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of every image; the first use reads all headers where no size is declared."""
        return self._framing.shape

    @functools.cached_property
    def _framing(self) -> _Framing:
        side = self.image_side
        if self.records.declared_size:
            sizes = np.array([self.records.declared_size])
        else:
            found = list(chunks.map_chunks(self._sizes, self.rows))
            broken = [size for size in found if isinstance(size, str)]
            if broken:
                raise BrokenImages(broken)
            sizes = np.array(found, np.int64).reshape(-1, 2)
        if not len(sizes):
            raise InputError(f"{self.name} has no images; expected one at least")
        pixels = sizes.prod(1)
        largest = self.rows[np.argsort(-pixels, kind="stable")[:_INSPECTED]]
        height, width = sizes[0].tolist()
        if (sizes == sizes[0]).all():
            if not side or height * width <= SHRUNK_ABOVE * side * side:
                return _Framing((height, width, 3), 0, height * width, largest)
        elif not side:
            counts = collections.Counter(map(tuple, sizes.tolist()))
            common = ", ".join(f"{h}x{w} ({count})" for (h, w), count in counts.most_common(5))
            raise InputError(
                f"{self.name}: its {len(self)} images have {len(counts)} different sizes, the most "
                f"common {common}; data.image_size must say to which side they are resized, such as 128"
            )
        return _Framing((side, side, 3), side, int(pixels.max()), largest)

    @property
    def labels(self) -> np.ndarray:
        """int32 [N]; the first use reads them."""
        if self._labels is None:
            self._labels = self._checked(
                np.array(list(chunks.map_chunks(self.records.labels, self.rows)))
            )
        return self._labels

    @property
    def dtype(self) -> np.dtype:
        """Of the decoded images: uint8."""
        return np.dtype(np.uint8)

    @property
    def num_bytes(self) -> int:
        """Bytes that all images take once decoded."""
        return len(self) * int(np.prod(self.image_shape))

    @functools.cached_property
    def decoding_bytes(self) -> int:
        """Bytes that decoding takes at most beside the images: of all threads, estimated from headers."""
        framing = self._framing
        chunk, alone = self._chunk()
        threads = 1 if alone else min(chunks.threads(), -(-len(self) // chunk))
        each = 0
        for row in framing.largest:
            (encoded,), _ = self.records.read(np.array([row]))
            needed = images.decoding_bytes(encoded, framing.side)
            each = max(each, needed + min(chunk, len(self)) * len(encoded))
        return threads * each

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns the images at `indices`, decoded now: uint8 [B, H, W, C]."""
        return self._decode(self.rows[np.asarray(indices)])

    def encoded(self, indices: np.ndarray) -> list[bytes]:
        """Returns the images at `indices` as they are stored: the bytes of their files."""
        return self.records.read(self.rows[np.asarray(indices)])[0]

    def file(self, index: int) -> str:
        """Returns the path of the image file at `index`; "" if there is none."""
        return self.records.file(int(self.rows[index]))

    def subset(self, indices: np.ndarray, name: str = "") -> "LazySplit":
        """Returns the split of the examples at `indices`."""
        indices = np.asarray(indices, np.int64)
        chosen = LazySplit(
            self.records,
            self.rows[indices],
            self.image_side,
            name or self.name,
            self.interpolation,
        )
        chosen._whole = self._whole or self
        chosen._places = indices if self._places is None else self._places[indices]
        if "_framing" in self.__dict__:
            chosen.__dict__["_framing"] = self._framing
        if self._labels is not None:
            chosen._labels = self._labels[indices]
        return chosen

    def whole(self) -> tuple["LazySplit", np.ndarray]:
        """Returns the split that this one was taken from, and which of its rows this is: int64 [N]."""
        if self._whole is None or self._places is None:
            return self, np.arange(len(self))
        return self._whole, self._places

    def fingerprint(self) -> str:
        """Returns what tells these images, in this order, from any others; see `split.Split`.

        The files of the records are read whole, once; the decoder and the side to which images are
        brought count too.
        """
        return self._fingerprint(labelled=False)

    def _fingerprint(self, *, labelled: bool) -> str:
        stored = self.records.fingerprint(labelled=labelled)
        framing = self._framing
        brought = f"{framing.side} {self.interpolation}" if framing.side else "as stored"
        return fingerprint.combine(stored, images.DECODER, f"{framing.shape} {brought}", self.rows)

    def resized(self) -> "LazySplit":
        """Returns the same split with every image brought to `image_side`, equal in size or not."""
        chosen = copy.copy(self)
        chosen._whole = chosen._places = None
        shape = (self.image_side, self.image_side, 3)
        chosen.__dict__["_framing"] = dataclasses.replace(
            self._framing, shape=shape, side=self.image_side
        )
        chosen.__dict__.pop("decoding_bytes", None)
        return chosen

    def in_memory(self, cache: DecodedCache | None = None) -> InMemorySplit:
        """Returns the same split with all images decoded, each once, in the background.

        Labels are available when this returns; the first read of images waits for them, and is stopped
        by an InputError if one of them cannot be decoded.

        Args:
            cache: where decoded images are kept for later runs, if anywhere.
        """
        key = self._fingerprint(labelled=True) if cache else ""
        kept = cache.find(key) if cache else None
        if kept is not None and len(kept.labels) == len(self):
            self._labels = self._checked(kept.labels)
        labels = self.labels
        if cache and kept is None:
            cache.announce(key, len(self), self.num_bytes)

        def decode() -> np.ndarray:
            pixels = kept.images() if kept is not None else None
            if pixels is None:
                pixels = self._decode(self.rows)
                if cache:
                    cache.keep(key, pixels, labels)
            return pixels

        pixels = _Decoding(self, decode, mapped=kept is not None)
        return InMemorySplit.of(pixels, labels, self.class_names, self.name)

    def shared(self, cache: DecodedCache | None = None) -> InMemorySplit:
        """Returns the same split, of whose images this process is going to keep a share; see `InMemorySplit.keep`.

        Args:
            cache: see `in_memory`; used by a process that keeps all of them.
        """
        return InMemorySplit.of(SharedPixels(self, cache), self.labels, self.class_names, self.name)

    def broken_images(self) -> list[str]:
        """Returns what is wrong with each image that cannot be read; slow, as images are decoded.

        All headers are read; of a very large split, only the first images are decoded.
        """
        found = list(chunks.map_chunks(self._sizes, self.rows))
        broken = [size for size in found if isinstance(size, str)]
        good = [place for place, size in enumerate(found) if not isinstance(size, str)]
        places = np.array(good[:_MOST_CHECKED], np.int64)
        return broken + list(self.undecodable(places).values())

    def undecodable(
        self, places: np.ndarray | None = None, unread: list[int] | None = None
    ) -> dict[int, str]:
        """Returns what is wrong with each image that cannot be decoded, by its place in the split.

        Args:
            places: int64, those that are looked at, each decoded as the split does; None: all.
            unread: gets the places of those whose bytes cannot be read, which may pass.
        """
        places = np.arange(len(self)) if places is None else places
        unread = [] if unread is None else unread

        def work(some: np.ndarray) -> list[tuple[int, str]]:
            problems: dict[int, str] = {}
            failed: dict[int, str] = {}
            for number, encoded in self.read(self.rows[some], failed):
                name = self.records.describe(int(self.rows[some[number]]))
                try:
                    images.decode(encoded, name, self.image_side, self.interpolation)
                except InputError as error:
                    problems[number] = str(error)
            unread.extend(int(some[number]) for number in failed)
            return [(int(some[number]), problem) for number, problem in (problems | failed).items()]

        return dict(sorted(chunks.map_chunks(work, places, self.chunk_size(places))))

    def chunk_size(self, places: np.ndarray | None = None) -> int:
        """Returns how many of the images are read at once, by the size of the largest.

        All headers are read where the data set does not declare a size; broken ones count nothing.

        Args:
            places: int64, those that are to be read; None: all.
        """
        if self.records.declared_size:
            return _chunk_of(math.prod(self.records.declared_size))
        rows = self.rows if places is None else self.rows[places]
        sizes = chunks.map_chunks(self._sizes, rows)
        return _chunk_of(
            max((math.prod(size) for size in sizes if not isinstance(size, str)), default=0)
        )

    def read(self, rows: np.ndarray, problems: dict[int, str]) -> Iterator[tuple[int, bytes]]:
        """Yields places in `rows` and encoded images; `problems` gets those that cannot be read.

        Args:
            rows: int64, of the records.
            problems: what is wrong, by place in `rows`.
        """
        try:
            encoded, _ = self.records.read(rows)
        except InputError:
            # Reading several fails as a whole.
            for place in range(len(rows)):
                try:
                    (one,), _ = self.records.read(rows[place : place + 1])
                except BrokenImages as error:
                    problems[place] = error.problems[0]
                except InputError as error:
                    problems[place] = str(error)
                else:
                    yield place, one
        else:
            yield from enumerate(encoded)

    def _decode(self, rows: np.ndarray) -> np.ndarray:
        pixels = np.empty((len(rows), *self.image_shape), np.uint8)
        broken: list[str] = []

        def work(places: np.ndarray) -> Sequence[int]:
            problems: dict[int, str] = {}
            for number, encoded in self.read(rows[places], problems):
                try:
                    row = int(rows[places[number]])
                    pixels[places[number]] = self._decode_one(encoded, row)
                except InputError as error:
                    problems[number] = str(error)
            broken.extend(problems.values())
            return ()

        chunk, alone = self._chunk()
        done = chunks.map_chunks(work, np.arange(len(rows)), chunk, alone=alone)
        collections.deque(done, maxlen=0)
        if broken:
            raise BrokenImages(broken)
        return pixels

    def _chunk(self) -> tuple[int, bool]:
        """Returns how many images are read at once, and whether one thread is to decode all."""
        pixels = self._framing.pixels
        return _chunk_of(pixels), pixels < THREADS_PAY

    def _decode_one(self, encoded: bytes, row: int) -> np.ndarray:
        shape, side = self._framing.shape, self._framing.side
        name = self.records.describe(row)
        pixels = images.decode(encoded, name, side, self.interpolation)
        if pixels.shape != shape:
            raise InputError(
                f"{name} is {pixels.shape[0]}x{pixels.shape[1]} pixels, "
                f"expected {shape[0]}x{shape[1]}"
            )
        self.decoded += 1
        return pixels

    def _sizes(self, rows: np.ndarray) -> list[tuple[int, int] | str]:
        """Returns (H, W) of each image, or what is wrong with it."""
        sizes: list[tuple[int, int] | str] = []
        for row in rows:
            try:
                sizes.append(self.records.size(int(row)))
            except InputError as error:
                sizes.append(str(error))
        return sizes

    def _checked(self, labels: np.ndarray) -> np.ndarray:
        problems = label_problems(labels, self.class_names)
        if problems:
            raise InputError(f"{self.name}: " + "; ".join(problems))
        return labels.astype(np.int32)


def _chunk_of(pixels: int) -> int:
    """Returns how many images are read at once, `pixels` being those of the largest."""
    if pixels < THREADS_PAY:
        return chunks.SMALL_CHUNK
    return max(1, min(_LARGE_CHUNK, _CHUNK_PIXELS // pixels))


class _Decoding:
    """The images of a split, being decoded; see `split.Pixels`."""

    def __init__(self, split: LazySplit, decode: Callable[[], np.ndarray], *, mapped: bool):
        self._split, self._mapped = split, mapped
        self.decoding_bytes = 0 if mapped else split.decoding_bytes
        self._future: concurrent.futures.Future[np.ndarray] = concurrent.futures.Future()
        self.shape = (len(split), *split.image_shape)
        # A daemon, so that a run that ends early need not wait for it.
        threading.Thread(target=self._work, args=(decode,), name="tl_jax", daemon=True).start()

    def _work(self, decode: Callable[[], np.ndarray]) -> None:
        try:
            with _ONE_SPLIT_AT_A_TIME:
                self._future.set_result(decode())
        except BaseException as error:
            self._future.set_exception(error)

    def get(self, rows: np.ndarray | None = None) -> np.ndarray:
        images = self._future.result()
        return images if rows is None else images[rows]

    @property
    def num_bytes(self) -> int:
        return self._split.num_bytes

    @property
    def bytes_in_memory(self) -> int:
        if self._mapped:
            return 0
        if self._future.done():
            return self._split.num_bytes
        return self._split.decoded * int(np.prod(self._split.image_shape))

    def file(self, row: int) -> str:
        return self._split.file(row)

    def fingerprint(self, rows: np.ndarray | None) -> str:
        split = self._split if rows is None else self._split.subset(rows)
        return split.fingerprint()


# Two would only hold up each other, and what is started first is wanted first.
_ONE_SPLIT_AT_A_TIME = threading.Lock()


class JoinedRecords:
    """Records of several sources with the same classes, one after the other."""

    def __init__(self, parts: Sequence[Records]):
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.class_names = parts[0].class_names
        declared = {part.declared_size for part in parts}
        self.declared_size = declared.pop() if len(declared) == 1 else None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        """See `Records`."""
        encoded: list[bytes] = [b""] * len(indices)
        labels = np.empty(len(indices), np.int64)
        for part, places, local in self._by_part(indices):
            found, labels[places] = part.read(local)
            for place, one in zip(places, found, strict=True):
                encoded[place] = one
        return encoded, labels

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """See `Records`."""
        labels = np.empty(len(indices), np.int64)
        for part, places, local in self._by_part(indices):
            labels[places] = part.labels(local)
        return labels

    def size(self, index: int) -> tuple[int, int]:
        """See `Records`."""
        part, local = self._locate(index)
        return part.size(local)

    def describe(self, index: int) -> str:
        """See `Records`."""
        part, local = self._locate(index)
        return part.describe(local)

    def file(self, index: int) -> str:
        """See `Records`."""
        part, local = self._locate(index)
        return part.file(local)

    def fingerprint(self, *, labelled: bool = False) -> str:
        """See `Records`."""
        parts = (part.fingerprint(labelled=labelled) for part in self._parts)
        return fingerprint.combine(*parts)

    def _locate(self, index: int) -> tuple[Records, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[number], int(index - self._starts[number])

    def _by_part(self, indices: np.ndarray):
        owners = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(owners):
            places = np.flatnonzero(owners == number)
            yield self._parts[number], places, indices[places] - self._starts[number]


def join(splits: Sequence[LazySplit]) -> LazySplit:
    """Returns the examples of `splits`, which have the same classes, one split after the other."""
    first = splits[0]
    joined = JoinedRecords([split.records for split in splits])
    starts = np.cumsum([0, *(len(split.records) for split in splits)])
    rows = np.concatenate(
        [split.rows + start for split, start in zip(splits, starts, strict=False)]
    )
    return LazySplit(joined, rows, first.image_side, first.name, first.interpolation)
