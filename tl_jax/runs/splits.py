"""The splits of a run: what is trained on, held out to choose by, and tested."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from tl_jax import console, data
from tl_jax.config import flat, naming_fields
from tl_jax.data import selection
from tl_jax.errors import InputError
from tl_jax.parallel import placement
from tl_jax.runs import weights


def make_splits(
    config: ml_collections.ConfigDict, source: data.Source | None = None
) -> data.Splits:
    """Returns the splits `train`, `test` and, where a part of train is held out, `validation`.

    Labels are loaded; images may still be decoding, see `data.wait_for`. What the user should know
    of the data is printed to stderr, by the first process.

    Args:
        config: of the run.
        source: of the data; None: what `data.name` says.

    Raises:
        InputError: if the data cannot be found or read, or the batch size does not fit the training split.
    """
    splits = _load_splits(config, source, shared=jax.process_count() > 1, **_chosen(config))
    if not config.train.fit_to_data:
        _check_batch_size(config, splits["train"])
    return splits


def make_stored_splits(
    config: ml_collections.ConfigDict, source: data.Source | None = None
) -> data.Splits:
    """Returns the splits of `make_splits` whose images are decoded on access, where they are encoded.

    Args:
        config: of a run; any batch size fits.
        source: of the data; None: what `data.name` says.

    Raises:
        InputError: if the data cannot be found or read.
    """
    return _load_splits(config, source, room=0, **_chosen(config))


def folds_of_train(config: ml_collections.ConfigDict, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of train, int32 [N], and the fold of each example, from 1: int64 [N].

    No image is decoded.

    Args:
        config: of the run, whose `data.seed` counts.
        folds: how many.

    Raises:
        InputError: if the data cannot be found, or there are fewer examples than folds.
    """
    section = config.data
    halves = _load_splits(config, None, room=0, quiet=True, train=section.train_split, folds=2)
    parts = [halves["train"], halves["test"]]
    # Back in the order of train.
    order = np.argsort(np.concatenate([part.whole()[1] for part in parts]))
    labels = np.concatenate([part.labels for part in parts])[order]
    with naming_fields(config, "cross_validate.folds"):
        return labels, selection.folds_of(labels, folds, section.seed)


def make_test_split(
    config: ml_collections.ConfigDict, source: data.Source | None = None, square: bool = False
) -> data.Splits:
    """Returns the split `test` alone, for an evaluation; no other split need exist.

    Of a run that is reported on a fold of train, it is `data.test_split` too, and a note says so.

    Args:
        config: of the evaluation.
        source: of the data; None: what `data.name` says.
        square: see `data.Decoding`.

    Raises:
        InputError: if the data cannot be found or read, or a config that names its weights asks for folds.
    """
    section = config.data
    if section.folds and config.init.weights:
        raise InputError(
            f"data.folds={section.folds}: an evaluation of weights reads data.test_split={section.test_split}, not a "
            "fold of train; expected data.folds=0, and a slice such as --config.data.test_split='train[:20%]' for a "
            "part of train"
        )
    splits = _load_splits(config, source, square=square, train="")
    if section.folds:
        note = (
            f"{splits.reported} is evaluated, not fold {section.fold} of {section.folds} of {section.train_split}: "
            "the accuracy on the fold is in the result of its run"
        )
        splits.notes = (*splits.notes, note)
        console.note(note)
    return splits


def _chosen(config: ml_collections.ConfigDict) -> dict[str, Any]:
    section = config.data
    return {
        "train": section.train_split,
        "validation": section.validation_split,
        "validation_fraction": section.validation_fraction,
        "examples_per_class": section.examples_per_class,
        "folds": section.folds,
        "fold": section.fold,
    }


def make_undecoded_splits(
    config: ml_collections.ConfigDict, source: data.Source | None = None
) -> data.Splits:
    """Returns the splits of a run, none of them decoded, and what else the data set holds; for an inspection.

    Prints nothing: an inspection shows the notes on the data.
    """
    return _load_splits(config, source, load=data.open_undecoded, quiet=True, **_chosen(config))


def check_data(config: ml_collections.ConfigDict, *, download: bool = True) -> None:
    """Looks whether the splits of a run can be made; decodes nothing.

    Args:
        config: of the run.
        download: whether data that are missing are fetched, where they can be; if not, that is no error.

    Raises:
        InputError: if there are no such data or splits, not as many labels, or fewer images than a batch has.
    """
    load = functools.partial(data.open_undecoded, strict=True, download=download)
    try:
        splits = _load_splits(config, None, load=load, quiet=True, **_chosen(config))
    except InputError as error:
        if isinstance(error.__cause__, data.NotFetched):
            return
        raise
    _check_batch_size(config, splits["train"])


def _load_splits(
    config: ml_collections.ConfigDict,
    source: data.Source | None,
    room: int | None = None,
    quiet: bool = False,
    load: Callable[..., data.Splits] | None = None,
    square: bool = False,
    shared: bool = False,
    **chosen: Any,
) -> data.Splits:
    """Returns the splits of a selection.

    Args:
        config: of the run.
        source: of the data; None: what `data.name` says.
        room: bytes for decoded images; None: as the machine has.
        quiet: whether notes on the data are left out.
        load: makes the splits; None: `data.load_splits`, images decoding in the background.
        square: see `data.Decoding`.
        shared: likewise.
        **chosen: arguments of `data.Selection`.
    """
    section = config.data
    load = load or functools.partial(data.load_splits, wait=False)
    fields = {
        "train": "data.train_split",
        "test": "data.test_split",
        "validation": "data.validation_split",
        "validation_fraction": "data.validation_fraction",
        "examples_per_class": "data.examples_per_class",
        "folds": "data.folds",
        "fold": "data.fold",
        "image_size": "data.image_size",
        "seed": "data.seed",
    }
    # Besides the data set, messages name what was asked of it other than the usual.
    usual = {"data.data_dir": "", "data.train_split": "train", "data.test_split": "test"}
    values = flat(config) | ({} if "validation" in chosen else {"data.train_split": "train"})
    named = [name for name, value in usual.items() if values[name] != value]
    with naming_fields(config, "data.name", *named, **fields):
        splits = load(
            section.name if source is None else source,
            data.Selection(test=section.test_split, seed=section.seed, **chosen),
            data.Decoding(
                weights.host_size(config),
                weights.host_interpolation(config),
                placement.room_for_decoded_images() if room is None else room,
                cache_dir=section.cache_dir or None,
                unreadable=section.unreadable,
                square=square,
                shared=shared,
            ),
            data_dir=section.data_dir or None,
        )
    for note in () if quiet else splits.notes:
        console.note(note)
    return splits


def _check_batch_size(config: ml_collections.ConfigDict, split: data.Split) -> None:
    section, count = config.data, len(split)
    if section.batch_size <= count:
        return
    few = ""
    hint = f"add --config.data.batch_size={count} or a smaller number"
    if section.examples_per_class:
        classes = len(split.class_names)
        few = (
            f", {section.examples_per_class} of each of {classes} classes (data.examples_per_class)"
        )
        enough = -(-section.batch_size // classes)
        hint += f", or --config.data.examples_per_class={enough} or more (0: all images)"
    raise InputError(
        f"data.batch_size={section.batch_size} is larger than the training split of "
        f"{console.count(count, 'image')}{few}; {hint}"
    )
