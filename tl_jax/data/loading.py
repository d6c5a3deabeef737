"""From the name of a data set to the splits that training and evaluation read."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tl_jax import errors
from tl_jax.data import arrays, folder, notation, order, prepare, records, selection, tfds_source
from tl_jax.data.decoded import DecodedCache
from tl_jax.data.split import InMemorySplit, Split
from tl_jax.errors import InputError

FORMS = ("digits", "folder:PATH", "npz:PATH", "tfds:NAME", "tfds:NAME/CONFIG")
DEFAULT_DATA_DIR = "~/tensorflow_datasets"
_ALIASES = {"val": "validation", "validation": "val"}
_SLICE_ORDER = 3 << 40
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

    def split(self, name: str) -> _Stored:
        """Returns one of `split_names`."""
        ...


def load_splits(
    name: str,
    *,
    data_dir: str | Path | None = None,
    train: str = "train",
    test: str = "test",
    validation: str = "",
    validation_fraction: float = 0.0,
    examples_per_class: int = 0,
    seed: int = 0,
    image_size: int = 0,
    interpolation: str = "bilinear",
    max_memory_bytes: int = 8 << 30,
    download: bool = True,
    cache_dir: str | Path | None = None,
    wait: bool = True,
) -> dict[str, Split]:
    """Returns the splits of a data set: `train`, `test`, and `validation` where one is asked for.

    Slices such as `train[:80%]` mean the stored order of a tfds data set, which is shuffled; other
    sources are often stored class by class, so there a slice is one of a fixed shuffled order.

    Args:
        name: `digits`, `npz:PATH`, `folder:PATH`, `tfds:NAME` or `tfds:NAME/CONFIG`.
        data_dir: where prepared tfds data sets lie (None: `~/tensorflow_datasets`); a relative PATH
            is looked up here when it is not in the working directory.
        train: training split in tfds notation, such as `train[:80%]`; "" for none, where `test` alone is
            wanted: no other split need exist then.
        test: test split in tfds notation, such as `val`.
        validation: validation split in tfds notation, or "" for none.
        validation_fraction: in [0, 1): this part of `train`, the same of each class, is held out.
        examples_per_class: when above 0, `train` keeps this many of each class, chosen after the
            validation split is held out.
        seed: of both choices, an integer from 0; `test` does not depend on it.
        image_size: the side to which images are brought while they are decoded (shorter side resized,
            centre square cut out) where their sizes differ or are far larger; images of one size near
            it or below keep theirs. See `records.LazySplit` for the rule. 0: all keep theirs.
        interpolation: of that resize, `bilinear` or `bicubic`.
        max_memory_bytes: for the decoded images of all splits together. A split for which nothing is
            left is decoded on access.
        download: whether CIFAR-10 and CIFAR-100 are prepared from the publisher's archive when they
            are missing: one placed in `data_dir`, or else downloaded.
        cache_dir: where images that took decoding are kept for later calls, checked by the content
            of their files; None: nowhere.
        wait: whether to return only when all images are decoded. Otherwise labels are at hand and
            images on their way; `wait_for` waits for them.

    Raises:
        InputError: if a name is unknown, the data is absent or not as promised, a split does not
            exist, or two splits share examples.
    """
    if not 0 <= validation_fraction < 1:
        raise InputError(f"validation_fraction={validation_fraction} is not in [0, 1)")
    if validation and validation_fraction:
        raise InputError(
            f"validation={validation!r} and validation_fraction={validation_fraction}: give one"
        )
    if min(seed, image_size, examples_per_class) < 0:
        raise InputError(
            f"expected integers from 0: seed={seed}, image_size={image_size}, "
            f"examples_per_class={examples_per_class}"
        )
    source = open_source(name, data_dir=data_dir, image_size=image_size, download=download)
    wanted = {"train": train, "test": test, "validation": validation}
    wanted = {role: text for role, text in wanted.items() if text or role == "test"}
    chosen = _resolve(source, wanted, interpolation)
    chosen = _one_shape(chosen, image_size)
    cache = DecodedCache(Path(cache_dir).expanduser()) if cache_dir else None
    splits = _in_memory(chosen, max_memory_bytes, cache)
    if validation_fraction:
        labels = splits["train"].labels
        stay, held = selection.hold_out(labels, round(validation_fraction * len(labels)), seed)
        splits["validation"] = splits["train"].subset(held, f"{source.name} held out of {train}")
        splits["train"] = splits["train"].subset(stay)
    if examples_per_class:
        split = splits["train"]
        few = selection.few_shot(split.labels, examples_per_class, seed, split.class_names)
        splits["train"] = split.subset(few)
    splits = _in_memory(splits, max_memory_bytes, cache)
    if wait:
        wait_for(splits)
    return splits


def wait_for(splits: Mapping[str, Split]) -> None:
    """Returns once the images of all splits can be read.

    Raises:
        InputError: if one of them cannot be decoded.
    """
    for split in splits.values():
        split.gather(np.arange(0))


def open_source(
    name: str, *, data_dir: str | Path | None = None, image_size: int = 0, download: bool = True
) -> Source:
    """Returns the source that `name` stands for; see `load_splits`."""
    kind, _, rest = name.partition(":")
    if name == "digits":
        return arrays.Digits()
    if kind == "npz" and rest:
        return arrays.Npz(_find(rest, data_dir))
    if kind == "folder" and rest:
        return folder.Folder(_find(rest, data_dir), image_size)
    if kind == "tfds" and rest:
        root = Path(data_dir or DEFAULT_DATA_DIR).expanduser()
        parsed = tfds_source.Name.parse(rest)
        found = prepare.find_or_prepare(parsed, root, fetch=download)
        return tfds_source.Tfds(found, parsed, image_size)
    raise errors.unknown("data set", name, FORMS)


def _resolve(source: Source, wanted: dict[str, str], interpolation: str) -> dict[str, _Stored]:
    """Returns the split of each role; raises InputError where two share examples."""
    whole: dict[str, _Stored] = {}
    chosen, rows = {}, {}
    for role, text in wanted.items():
        parts, places = [], []
        for part in notation.parse(text):
            split = _split_name(source, part.name)
            if split not in whole:
                whole[split] = source.split(split)
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
            # A few of very many are decoded sooner than the files they lie in are read for a fingerprint.
            few = _FEW * len(split) < len(split.records)
            placed[role] = split.in_memory(None if few else cache)
    return placed


def _split_name(source: Source, name: str) -> str:
    for choice in (name, _ALIASES.get(name)):
        if choice in source.split_names:
            return choice
    error = errors.unknown(f"split of {source.name}", name, source.split_names)
    raise InputError(
        f"{error} (data.train_split, data.test_split and data.validation_split name them)"
    )


def _find(path: str, data_dir: str | Path | None) -> Path:
    given = Path(path).expanduser()
    if data_dir is not None and not given.exists():
        below = Path(data_dir).expanduser() / given
        return below if below.exists() else given
    return given
