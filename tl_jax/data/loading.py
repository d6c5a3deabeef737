"""The splits that training and evaluation read: chosen, decoded, and where they are then."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tl_jax.data import broken, listing, notation, records, skipping, tfds_source
from tl_jax.data.chosen_splits import choose, held_out, readable
from tl_jax.data.decoded import DecodedCache
from tl_jax.data.file_records import FileSource
from tl_jax.data.selection import Selection
from tl_jax.data.sources import Source, Stored, open_source
from tl_jax.data.split import InMemorySplit, Split
from tl_jax.errors import InputError

_FEW = 20


class Splits(dict[str, Split]):
    """The splits of a run by role: `train`, `test` and, where one is asked for, `validation`.

    Attributes:
        reported: the split that has the role `test`, as results call it: `test`, or another name.
        notes: what a user should know of the data, a line each: files that were ignored, a split that
            stands for another, classes without examples, images in two splits.
        skipped: images of the data set that cannot be read and were left out, by name, sorted; None where
            they were not looked for.
    """

    def __init__(
        self,
        splits: Mapping[str, Split],
        reported: str,
        notes: Sequence[str],
        skipped: Sequence[str] | None = None,
    ):
        super().__init__(splits)
        self.reported = reported
        self.notes = tuple(notes)
        self.skipped = None if skipped is None else tuple(sorted(skipped))


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How images are decoded, and where they are then.

    Attributes:
        image_size: the side to which images are brought while they are decoded (shorter side resized,
            centre square cut out) where their sizes differ or are far larger; images of one size near
            it or below keep theirs. See `records.LazySplit` for the rule. 0: all keep theirs.
        interpolation: of that resize, `bilinear` or `bicubic`.
        max_memory_bytes: for the decoded images of all splits together. A split for which nothing is
            left is decoded on access.
        cache_dir: where images that took decoding are kept for later calls, checked by the content
            of their files, and decompressed archives; None: nowhere.
        unreadable: "stop" at images that cannot be read, or "skip" them: they are left out before anything
            is computed from the size and order of a split, as if their files were not there.
        square: whether images of one size, too, are brought to `image_size`.
        shared: whether each of several processes is going to say which of the decoded images it keeps; see
            `InMemorySplit.keep`. Only a process that keeps all of them then writes them to `cache_dir`.

    Raises:
        InputError: if a value is out of range.
    """

    image_size: int = 0
    interpolation: str = "bilinear"
    max_memory_bytes: int = 8 << 30
    cache_dir: str | Path | None = None
    unreadable: str = "stop"
    square: bool = False
    shared: bool = False

    def __post_init__(self) -> None:
        if self.image_size < 0:
            raise InputError(f"expected an integer from 0: image_size={self.image_size}")
        skipping.check(self.unreadable)

    @property
    def cache(self) -> Path | None:
        """The folder `cache_dir`."""
        return Path(self.cache_dir).expanduser() if self.cache_dir else None


_USUAL, _AS_STORED = Selection(), Decoding()


def load_splits(
    name: str | Source,
    selection: Selection = _USUAL,
    decoding: Decoding = _AS_STORED,
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    wait: bool = True,
) -> Splits:
    """Returns the splits of a data set: `train`, `test`, and `validation` where one is asked for.

    The names of splits match in any case, and `training`, `testing`, `val`, `valid` and `validation`
    are known. Where a data set has no test split with labels, its validation split is reported on
    instead, and `notes` says so.

    Slices such as `train[:80%]` mean the stored order of a tfds data set, which is shuffled; other
    sources are often stored class by class, so there a slice is one of a fixed shuffled order.

    Args:
        name: `digits`, `npz:PATH`, `folder:PATH`, `csv:PATH`, `tfds:NAME`, `tfds:NAME/CONFIG`, a kind that was
            registered, or the source itself, such as `Arrays`.
        selection: which examples.
        decoding: how images are decoded, and where they are then.
        data_dir: of prepared tfds data sets (None: `~/tensorflow_datasets`); a relative PATH
            is looked up here when it is not in the working directory.
        download: whether CIFAR-10 and CIFAR-100 are prepared from the publisher's archive when they
            are missing: one placed in `data_dir`, or else downloaded.
        wait: whether to return only when all images are decoded. Otherwise labels are available, and
            images may still be decoding; `wait_for` waits for them.

    Raises:
        InputError: if a name is unknown, the data is absent or not as promised, a split does not
            exist, two splits share examples, or `train` has examples of one class only.
        BrokenImages: listing the images that cannot be read.
    """
    source, skip = _open(name, decoding, data_dir, download)
    try:
        splits, reported, notes = _loaded(source, skip, selection, decoding)
    finally:
        if isinstance(source, FileSource):
            source.save_index()
    if wait:
        wait_for(splits)
    return Splits(splits, reported, notes, None if skip is None else list(skip.found))


def _loaded(
    source: Source, skip: skipping.Skip | None, selection: Selection, decoding: Decoding
) -> tuple[dict[str, Split], str, list[str]]:
    """Returns the splits of a source, what they report on, and notes; their images may still be decoding."""
    train, test = selection.train, selection.test
    chosen, reported, notes = choose(source, selection, decoding.interpolation, skip)
    notes += _shared_images(source, chosen)
    notes += skip.note(source.name) if skip is not None else []
    chosen = _one_shape(chosen, decoding)
    cache = DecodedCache(decoding.cache) if decoding.cache else None
    splits = _in_memory(chosen, decoding, cache)
    splits = _in_memory(held_out(source, splits, selection), decoding, cache)
    if train:
        notes += _class_notes(source, splits, train)
    elif test == "test" and "all" in source.split_names:
        notes.append(
            f"{source.name}: {len(splits['test']):,} of {len(source.split('all')):,} images are test; for all of "
            "them: --config.data.test_split=all"
        )
    return splits, reported, notes


def open_undecoded(
    name: str | Source,
    selection: Selection = _USUAL,
    decoding: Decoding = _AS_STORED,
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    strict: bool = False,
) -> Splits:
    """Returns the splits as `load_splits` does, images of any size, none of them decoded.

    Splits of the data set that play no part in these are added under their own names (`test, unused` where a fold
    of train is `test`). Where they cannot be made as is usual, the splits are those of the data set, and `notes`
    says why; with `strict`, that is raised as an InputError.
    """
    source, skip = _open(name, decoding, data_dir, download)
    usual = (selection.train, selection.test, selection.validation) == ("train", "test", "")
    splits: dict[str, Split] = {}
    try:
        chosen, reported, notes = choose(source, selection, decoding.interpolation, skip)
        splits = held_out(source, chosen, selection)
    except InputError as error:
        if strict or not usual:
            raise
        reported, notes = "", [*source.notes, str(error)]
    tested = "" if selection.folds else reported.partition(" (")[0]
    texts = (selection.train, tested, selection.validation) if splits else ()
    used = {
        notation.find(part.name, source.split_names)
        for text in filter(None, texts)
        for part in notation.parse(text)
    }
    # Only data without splits of their own have `all`, of which theirs are parts.
    for other in () if "all" in source.split_names else source.split_names:
        if other not in used:
            # What is held out of train may have the name of a split that is not used.
            own = f"{other}, unused" if other in splits else other
            splits[own] = readable(source, source.split(other), skip)
    notes += skip.note(source.name) if skip is not None else []
    return Splits(splits, reported, notes, None if skip is None else list(skip.found))


def _open(
    name: str | Source, decoding: Decoding, data_dir: str | Path | None, download: bool
) -> tuple[Source, skipping.Skip | None]:
    """Returns a data set, and what leaves images out of it."""
    skip = skipping.Skip(decoding.cache) if decoding.unreadable == "skip" else None
    source = (
        open_source(
            name,
            data_dir=data_dir,
            image_size=decoding.image_size,
            download=download,
            cache_dir=decoding.cache,
            skip=skip,
        )
        if isinstance(name, str)
        else name
    )
    return source, skip


def wait_for(splits: Mapping[str, Split]) -> None:
    """Returns once the images of all splits can be read.

    Raises:
        BrokenImages: listing all images that cannot be decoded.
    """
    broken.gather(functools.partial(split.gather, np.arange(0)) for split in splits.values())


def _one_shape(chosen: dict[str, Stored], decoding: Decoding) -> dict[str, Stored]:
    """Returns the splits with images of one shape; raises InputError where they cannot have it."""
    encoded = [split for split in chosen.values() if isinstance(split, records.LazySplit)]
    try:
        for split in encoded:
            split.image_shape  # noqa: B018 (the first use reads all headers)
    except broken.BrokenImages as error:
        raise broken.BrokenImages(
            problem for split in encoded for problem in split.broken_images()
        ) from error
    several = len({split.image_shape for split in chosen.values()}) > 1
    if decoding.image_size and (several or decoding.square):
        chosen = {
            role: split.resized() if isinstance(split, records.LazySplit) else split
            for role, split in chosen.items()
        }
    shapes = {role: split.image_shape for role, split in chosen.items()}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{role} {height}x{width}" for role, (height, width, _) in shapes.items())
        raise InputError(
            f"images differ in size between splits: {sizes}; data.image_size must say one"
        )
    return chosen


def _in_memory(
    splits: Mapping[str, Split], decoding: Decoding, cache: DecodedCache | None
) -> dict[str, Split]:
    """Returns the splits, those decoded into memory for which there is room beside the ones before.

    Splits that are in memory already take what their images take; parts of one split share them.
    """
    wholes = {id(split.whole()[0]): split.whole()[0] for split in splits.values()}
    room = decoding.max_memory_bytes - sum(
        len(whole) * int(np.prod(whole.image_shape))
        for whole in wholes.values()
        if isinstance(whole, InMemorySplit)
    )
    placed = dict(splits)
    for role, split in splits.items():
        if isinstance(split, records.LazySplit) and split.num_bytes <= room:
            room -= split.num_bytes
            # A few of very many are decoded sooner than their files are read for a fingerprint.
            few = _FEW * len(split) < len(split.records)
            decoded = split.shared if decoding.shared else split.in_memory
            placed[role] = decoded(None if few else cache)
    return placed


def _shared_images(source: Source, chosen: dict[str, Stored]) -> list[str]:
    """Returns a line for each split other than train that has images of train."""
    if not isinstance(source, FileSource) or "train" not in chosen:
        return []
    train, *others = (split for split in chosen.values() if isinstance(split, records.LazySplit))
    return [line for line in (source.shared_images(train, other) for other in others) if line]


def _class_notes(source: Source, splits: Mapping[str, Split], train: str) -> list[str]:
    """Returns a line for train and for test if classes have no examples there.

    Raises:
        InputError: if train has examples of fewer than two classes.
    """
    names = splits["train"].class_names
    counts = _class_counts(source, splits["train"])
    if counts is None and len(names) > 1:
        return []
    if counts is None:
        counts = np.array([len(splits["train"])])
    if np.count_nonzero(counts) < 2:
        only = ", ".join(repr(names[place]) for place in np.flatnonzero(counts)) or "none"
        more = f" (the data set has {len(names)} classes)" if len(names) > 1 else ""
        raise InputError(
            f"data.train_split={train!r} of {source.name} has examples of one class only: {only}{more}; "
            "expected two or more, as any network is right on one class"
        )
    lines = []
    absent = np.flatnonzero(counts == 0)
    tested = _class_counts(source, splits["test"])
    if len(absent):
        share = (
            f"{tested[absent].sum():,} of {len(splits['test']):,} test images are of them"
            if tested is not None
            else "test may have some"
        )
        lines.append(
            f"train has no examples of {_classes(absent, names)}: they cannot be learned, and {share}"
        )
    untested = np.flatnonzero((counts > 0) & (1 if tested is None else tested == 0))
    if tested is not None and len(untested):
        lines.append(f"test has no examples of {_classes(untested, names)}")
    return [f"{source.name}: {line}" for line in lines]


def _class_counts(source: Source, split: Split) -> np.ndarray | None:
    """Returns the number of examples of each class, [K]; None where it would take long to count."""
    if isinstance(source, tfds_source.Tfds) and isinstance(split, records.LazySplit):
        return None  # larger than memory, and its labels are stored beside the images
    return np.bincount(split.labels, minlength=len(split.class_names))


def _classes(places: np.ndarray, names: Sequence[str]) -> str:
    listed = listing.some([names[place] for place in places])
    return f"{len(places)} of {len(names)} classes ({listed})"
