"""From the name of a data set to the splits that training and evaluation read."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tl_jax import errors
from tl_jax.data import (
    archive,
    arrays,
    broken,
    csv_table,
    folder,
    listing,
    notation,
    order,
    prepare,
    records,
    skipping,
    tfds_source,
)
from tl_jax.data.decoded import DecodedCache
from tl_jax.data.file_records import FileSource
from tl_jax.data.selection import Selection, few_shot, folds_of, hold_out
from tl_jax.data.split import InMemorySplit, Split
from tl_jax.errors import InputError, taken

FORMS = ("digits", "folder:PATH", "csv:PATH", "npz:PATH", "tfds:NAME", "tfds:NAME/CONFIG")
DEFAULT_DATA_DIR = "~/tensorflow_datasets"
_SLICE_ORDER = 3 << 40
_REGISTERED: dict[str, Callable[[str], "Source"]] = {}
_FEW = 20

_Stored = InMemorySplit | records.LazySplit


class Source(Protocol):
    """A data set with named splits."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    @property
    def split_names(self) -> tuple[str, ...]:
        """What `split` takes."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of it, a line each: files that were ignored, suspicious names."""
        ...

    def split(self, name: str) -> _Stored:
        """Returns one of `split_names`."""
        ...


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

    Raises:
        InputError: if a value is out of range.
    """

    image_size: int = 0
    interpolation: str = "bilinear"
    max_memory_bytes: int = 8 << 30
    cache_dir: str | Path | None = None
    unreadable: str = "stop"

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
    train, test = selection.train, selection.test
    source, skip = _open(name, decoding, data_dir, download)
    chosen, reported, notes = choose(source, selection, decoding.interpolation, skip)
    notes += _shared_images(source, chosen)
    notes += skip.note(source.name) if skip is not None else []
    chosen = _one_shape(chosen, decoding.image_size)
    cache = DecodedCache(decoding.cache) if decoding.cache else None
    splits = _in_memory(chosen, decoding.max_memory_bytes, cache)
    splits = _in_memory(held_out(source, splits, selection), decoding.max_memory_bytes, cache)
    if train:
        notes += _class_notes(source, splits, train)
    elif test == "test" and "all" in source.split_names:
        notes.append(
            f"{source.name}: {len(splits['test']):,} of {len(source.split('all')):,} images are test; for all of "
            "them: --config.data.test_split=all"
        )
    if wait:
        wait_for(splits)
    return Splits(splits, reported, notes, None if skip is None else list(skip.found))


def open_undecoded(
    name: str | Source,
    selection: Selection = _USUAL,
    decoding: Decoding = _AS_STORED,
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
) -> Splits:
    """Returns the splits as `load_splits` does, images of any size, none of them decoded.

    Splits of the data set that play no part in these are added under their own names. Where there is nothing
    to report on, the splits are those of the data set, and `notes` says why.
    """
    source, skip = _open(name, decoding, data_dir, download)
    usual = (selection.train, selection.test, selection.validation) == ("train", "test", "")
    splits: dict[str, Split] = {}
    try:
        chosen, reported, notes = choose(source, selection, decoding.interpolation, skip)
        splits = held_out(source, chosen, selection)
    except InputError as error:
        if not usual:
            raise
        reported, notes = "", [*source.notes, str(error)]
    texts = (selection.train, reported.partition(" (")[0], selection.validation) if splits else ()
    used = {
        notation.find(part.name, source.split_names)
        for text in filter(None, texts)
        for part in notation.parse(text)
    }
    # Only data without splits of their own have `all`, of which theirs are parts.
    for other in () if "all" in source.split_names else source.split_names:
        if other not in used:
            splits[other] = _readable(source, source.split(other), skip)
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


def choose(
    source: Source, selection: Selection, interpolation: str, skip: skipping.Skip | None = None
) -> tuple[dict[str, _Stored], str, list[str]]:
    """Returns the stored split of each role, the one that is reported on, and notes.

    Nothing is held out yet, see `held_out`.
    """
    train, test = selection.train, selection.test
    if selection.folds:
        tested, reported = "", f"fold {selection.fold} of {selection.folds} of {train}"
        notes = [f"{source.name}: {reported} is reported on; no test split is read"]
    else:
        tested, notes = _choose_test(source, train, test, selection.validation)
        stands_in = "" if tested == test else " (there is no test split with labels)"
        reported = f"{tested}{stands_in}"
    wanted = {"train": train, "test": tested, "validation": selection.validation}
    wanted = {role: text for role, text in wanted.items() if text}
    chosen = _resolve(source, wanted, interpolation, skip)
    return chosen, reported, [*source.notes, *notes]


def wait_for(splits: Mapping[str, Split]) -> None:
    """Returns once the images of all splits can be read.

    Raises:
        BrokenImages: listing all images that cannot be decoded.
    """
    broken.gather(functools.partial(split.gather, np.arange(0)) for split in splits.values())


def open_source(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int = 0,
    download: bool = True,
    cache_dir: Path | None = None,
    skip: skipping.Skip | None = None,
) -> Source:
    """Returns the source that `name` stands for; see `load_splits` and `FileSource`."""
    kind, _, rest = name.partition(":")
    if name == "digits":
        return arrays.Digits()
    if kind == "npz" and rest:
        return arrays.Npz(_find(rest, data_dir))
    if kind == "folder" and rest:
        return folder.Folder(_find(rest, data_dir), image_size, skip, cache_dir)
    if kind == "csv" and rest:
        return csv_table.CsvTable(_find(rest, data_dir), image_size, skip)
    if kind == "tfds" and rest:
        root = Path(data_dir or DEFAULT_DATA_DIR).expanduser()
        parsed = tfds_source.Name.parse(rest)
        found = prepare.find_or_prepare(parsed, root, fetch=download)
        return tfds_source.Tfds(found, parsed, image_size)
    if kind in _REGISTERED:
        return _REGISTERED[kind](rest)
    raise errors.unknown("data set", name, (*FORMS, *(f"{own}:..." for own in _REGISTERED)))


def register(kind: str, open_named: Callable[[str], Source], *, replace: bool = False) -> None:
    """Makes `KIND:REST` a name of data sets, for `data.name` in a config.

    Args:
        kind: without a colon, and none of ours.
        open_named: from REST to the source; see `Source`.
        replace: whether it takes the place of another kind of that name, registered before.

    Raises:
        InputError: if the kind is taken and `replace` is False, is one of ours, or has a colon.
    """
    ours = {form.partition(":")[0] for form in FORMS}
    if not kind or ":" in kind or kind in ours:
        raise InputError(
            f"data.register({kind!r}): expected a name without a colon that is none of "
            f"{', '.join(sorted(ours))}"
        )
    if _REGISTERED.get(kind, open_named) != open_named and not replace:
        raise taken("kind of data set", kind)
    _REGISTERED[kind] = open_named


def _choose_test(source: Source, train: str, test: str, validation: str) -> tuple[str, list[str]]:
    """Returns the split to report on, in tfds notation, and a line if it stands for an absent one.

    Raises:
        InputError: if there is no test split with labels, and none to stand for it.
    """
    for part in notation.parse(train) if train else ():
        _split_name(source, part.name)
    parts = notation.parse(test)
    if all(part.name != "test" or notation.find("test", source.split_names) for part in parts):
        return test, []
    stand_in = notation.find("val", source.split_names)
    fields = {"data.train_split": train, "data.validation_split": validation}
    used_by = [
        f"{field}={text}"
        for field, text in fields.items()
        if text
        and stand_in in [notation.find(p.name, source.split_names) for p in notation.parse(text)]
    ]
    if stand_in is None or used_by:
        reason = (
            f"its split {stand_in!r} would be reported on, were it not for {' and '.join(used_by)}"
            if stand_in
            else "a part of train can be reported on: --config.data.train_split='train[:80%]' "
            "--config.data.test_split='train[80%:]'"
        )
        error = errors.unknown(f"split of {source.name}", "test", source.split_names)
        raise InputError("; ".join([f"{error} (data.test_split)", reason, *source.notes]))
    renamed = [
        dataclasses.replace(part, name=stand_in) if part.name == "test" else part for part in parts
    ]
    line = f"{source.name} has no test split with labels: its split {stand_in!r} is reported on as test"
    return "+".join(map(str, renamed)), [line]


def _resolve(
    source: Source, wanted: dict[str, str], interpolation: str, skip: skipping.Skip | None = None
) -> dict[str, _Stored]:
    """Returns the split of each role; raises InputError where two share examples."""
    whole: dict[str, _Stored] = {}
    chosen, rows = {}, {}
    for role, text in wanted.items():
        parts, places = [], []
        for part in notation.parse(text):
            split = _split_name(source, part.name)
            if split not in whole:
                whole[split] = _readable(source, source.split(split), skip)
            indices = _slice(
                part, len(whole[split]), shuffled=not isinstance(source, tfds_source.Tfds)
            )
            parts.append(_part(whole[split], indices, f"{source.name} {text}", interpolation))
            places.append((split, indices))
        chosen[role], rows[role] = _join(parts), places
    for first, second in itertools.combinations(wanted, 2):
        shared = _shared(rows[first], rows[second], whole)
        if shared:
            raise InputError(
                f"{first}={wanted[first]!r} and {second}={wanted[second]!r} of {source.name} share "
                f"{shared} examples; expected none"
            )
    return chosen


def _readable(source: Source, split: _Stored, skip: skipping.Skip | None) -> _Stored:
    """Returns a split without the images that are left out."""
    if skip is None or not isinstance(split, records.LazySplit):
        return split
    if isinstance(source, FileSource) and source.skip is skip:
        return split  # done before it was divided
    return _part(split, skip.readable(split), split.name, split.interpolation)


def held_out(source: Source, splits: Mapping[str, Split], selection: Selection) -> dict[str, Split]:
    """Returns the splits with what is held out of train, and the few examples that train keeps."""
    splits = dict(splits)
    if selection.folds:
        whole = splits["train"]
        fold = folds_of(whole.labels, selection.folds, selection.seed)
        name = f"{source.name} fold {selection.fold} of {selection.folds} of {selection.train}"
        splits["test"] = whole.subset(np.flatnonzero(fold == selection.fold), name)
        splits["train"] = whole.subset(np.flatnonzero(fold != selection.fold))
    if selection.validation_fraction:
        whole = splits["train"]
        count = round(selection.validation_fraction * len(whole))
        stay, held = hold_out(whole.labels, count, selection.seed)
        splits["validation"] = whole.subset(held, f"{source.name} held out of {selection.train}")
        splits["train"] = whole.subset(stay)
    if selection.examples_per_class:
        whole, count = splits["train"], selection.examples_per_class
        few = few_shot(whole.labels, count, selection.seed, whole.class_names)
        splits["train"] = whole.subset(few)
    return splits


def _part(split: _Stored, indices: np.ndarray, name: str, interpolation: str) -> _Stored:
    """Returns some rows of a stored split; encoded ones as a whole of their own.

    What is computed for a whole is then computed for the images that were asked for only.
    """
    if isinstance(split, records.LazySplit):
        return records.LazySplit(
            split.records, split.rows[indices], split.image_side, name, interpolation
        )
    return split.subset(indices, name)


def _slice(part: notation.Part, num_examples: int, *, shuffled: bool) -> np.ndarray:
    start, stop = part.bounds(num_examples)
    if not shuffled or (start, stop) == (0, num_examples):
        return np.arange(start, stop)
    return np.sort(order.shuffled(num_examples, _SLICE_ORDER)[start:stop])


def _shared(first, second, whole) -> int:
    count = 0
    for (split, indices), (other, others) in itertools.product(first, second):
        if {split, other} == {"all", "train"} or {split, other} == {"all", "test"}:
            # Only folders without splits have `all`, which overlaps their own train and test.
            files = whole[split].rows[indices], whole[other].rows[others]
            count += len(np.intersect1d(*files))
        elif split == other:
            count += len(np.intersect1d(indices, others))
    return count


def _join(parts: Sequence[_Stored]) -> _Stored:
    if len(parts) == 1:
        return parts[0]
    lazy = [part for part in parts if isinstance(part, records.LazySplit)]
    if lazy:
        return records.join(lazy)
    decoded = [part for part in parts if isinstance(part, InMemorySplit)]
    images = np.concatenate([part.images for part in decoded])
    labels = np.concatenate([part.labels for part in decoded])
    return InMemorySplit(images, labels, parts[0].class_names, parts[0].name)


def _one_shape(chosen: dict[str, _Stored], image_size: int) -> dict[str, _Stored]:
    """Returns the splits with images of one shape; raises InputError where they cannot have it."""
    encoded = [split for split in chosen.values() if isinstance(split, records.LazySplit)]
    try:
        for split in encoded:
            split.image_shape  # noqa: B018 (the first use reads all headers)
    except broken.BrokenImages as error:
        raise broken.BrokenImages(
            problem for split in encoded for problem in split.broken_images()
        ) from error
    if image_size and len({split.image_shape for split in chosen.values()}) > 1:
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
    splits: Mapping[str, Split], max_memory_bytes: int, cache: DecodedCache | None
) -> dict[str, Split]:
    """Returns the splits, those decoded into memory for which there is room beside the ones before.

    Splits that are in memory already take what their images take; parts of one split share them.
    """
    wholes = {id(split.whole()[0]): split.whole()[0] for split in splits.values()}
    room = max_memory_bytes - sum(
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
            placed[role] = split.in_memory(None if few else cache)
    return placed


def _shared_images(source: Source, chosen: dict[str, _Stored]) -> list[str]:
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


def _split_name(source: Source, name: str) -> str:
    found = notation.find(name, source.split_names)
    if found is not None:
        return found
    error = errors.unknown(f"split of {source.name}", name, source.split_names)
    fields = "(data.train_split, data.test_split and data.validation_split name them)"
    raise InputError("; ".join([f"{error} {fields}", *source.notes]))


def _find(path: str, data_dir: str | Path | None) -> Path:
    given = Path(path).expanduser()
    if data_dir is not None and not _exists(given):
        below = Path(data_dir).expanduser() / given
        return below if _exists(below) else given
    return given


def _exists(path: Path) -> bool:
    return os.path.exists(path) or archive.find(path) is not None
