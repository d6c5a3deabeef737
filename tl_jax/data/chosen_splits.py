"""Which examples of a data set are the splits of a run: by name and slice, held out, few."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tl_jax import console, errors
from tl_jax.data import notation, order, records, skipping, tfds_source
from tl_jax.data.file_records import FileSource
from tl_jax.data.selection import Selection, few_shot, folds_of, hold_out
from tl_jax.data.sources import Source, Stored
from tl_jax.data.split import InMemorySplit, Split
from tl_jax.errors import InputError

_SLICE_ORDER = 3 << 40


def choose(
    source: Source, selection: Selection, interpolation: str, skip: skipping.Skip | None = None
) -> tuple[dict[str, Stored], str, list[str]]:
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
        if not 0 < count < len(whole):
            expected = (
                "a smaller fraction, which leaves images to train on"
                if count
                else "a fraction that is at least one image"
            )
            raise InputError(
                f"validation_fraction={selection.validation_fraction} holds {count:,} of "
                f"{console.count(len(whole), 'training image')} out; expected {expected}, or 0 to hold nothing out"
            )
        stay, held = hold_out(whole.labels, count, selection.seed)
        splits["validation"] = whole.subset(held, f"{source.name} held out of {selection.train}")
        splits["train"] = whole.subset(stay)
    if selection.examples_per_class:
        whole, count = splits["train"], selection.examples_per_class
        few = few_shot(whole.labels, count, selection.seed, whole.class_names)
        splits["train"] = whole.subset(few)
    return splits


def readable(source: Source, split: Stored, skip: skipping.Skip | None) -> Stored:
    """Returns a split without the images that are left out."""
    if skip is None or not isinstance(split, records.LazySplit):
        return split
    if isinstance(source, FileSource) and source.skip is skip:
        return split  # done before it was divided
    return _part(split, skip.readable(split), split.name, split.interpolation)


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
        first = notation.find("train", source.split_names) or source.split_names[0]
        reason = (
            f"its split {stand_in!r} would be reported on, were it not for {' and '.join(used_by)}"
            if stand_in
            else f"a part of {first} can be reported on: --config.data.train_split='{first}[:80%]' "
            f"--config.data.test_split='{first}[80%:]'"
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
) -> dict[str, Stored]:
    """Returns the split of each role; raises InputError where two share examples."""
    whole: dict[str, Stored] = {}
    chosen, rows = {}, {}
    for role, text in wanted.items():
        parts, places = [], []
        for part in notation.parse(text):
            split = _split_name(source, part.name)
            if split not in whole:
                whole[split] = readable(source, source.split(split), skip)
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
                f"{console.count(shared, 'example')}; expected none"
            )
    return chosen


def _part(split: Stored, indices: np.ndarray, name: str, interpolation: str) -> Stored:
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


def _join(parts: Sequence[Stored]) -> Stored:
    if len(parts) == 1:
        return parts[0]
    lazy = [part for part in parts if isinstance(part, records.LazySplit)]
    if lazy:
        return records.join(lazy)
    decoded = [part for part in parts if isinstance(part, InMemorySplit)]
    images = np.concatenate([part.images for part in decoded])
    labels = np.concatenate([part.labels for part in decoded])
    return InMemorySplit(images, labels, parts[0].class_names, parts[0].name)


def _split_name(source: Source, name: str) -> str:
    found = notation.find(name, source.split_names)
    if found is not None:
        return found
    error = errors.unknown(f"split of {source.name}", name, source.split_names)
    fields = "(data.train_split, data.test_split and data.validation_split name them)"
    raise InputError("; ".join([f"{error} {fields}", *source.notes]))
