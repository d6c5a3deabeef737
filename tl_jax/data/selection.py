"""Which examples make the splits of a run; class-balanced choices that depend only on labels and a seed."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tl_jax import console
from tl_jax.data import order
from tl_jax.errors import InputError

# Keep the choices independent of one another and of the order of epochs, which uses [seed, epoch].
_HOLD_OUT, _FEW_SHOT, _FOLDS = 1 << 40, 2 << 40, 7 << 40


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which examples of a data set are the splits of a run.

    Attributes:
        train: training split in tfds notation, such as `train[:80%]`; "" for none, where `test` alone is
            wanted: no other split need exist then.
        test: test split in tfds notation, such as `val`.
        validation: validation split in tfds notation, or "" for none.
        validation_fraction: in [0, 1): this part of `train`, the same of each class, is held out.
        examples_per_class: when above 0, `train` keeps this many of each class, chosen after the
            validation split is held out.
        folds: for cross-validation: `train` is divided into so many parts (`folds_of`); one of them takes the
            role `test`, `validation_fraction` and `examples_per_class` choose from the others, and no other test
            split is opened. 0: none.
        fold: which of them, from 1.
        seed: of all choices, an integer from 0; `test` depends on it only where there are folds.

    Raises:
        InputError: if a value is out of range, or two contradict each other.
    """

    train: str = "train"
    test: str = "test"
    validation: str = ""
    validation_fraction: float = 0.0
    examples_per_class: int = 0
    folds: int = 0
    fold: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        fraction, few = self.validation_fraction, self.examples_per_class
        if not 0 <= fraction < 1:
            raise InputError(f"validation_fraction={fraction} is not in [0, 1)")
        if self.validation and fraction:
            raise InputError(
                f"validation={self.validation!r} and validation_fraction={fraction}: give one"
            )
        if not self.train and (fraction or few):
            raise InputError(
                f"train='' with validation_fraction={fraction} and examples_per_class={few}: both choose from "
                "train; expected a split, such as train, or 0 for both"
            )
        if self.folds < 0 or self.folds == 1:
            raise InputError(f"folds={self.folds}: expected 2 or more, or 0 for none")
        if not 1 <= self.fold <= max(1, self.folds):
            raise InputError(
                f"fold={self.fold} with folds={self.folds}: expected an integer from 1 to "
                f"{max(1, self.folds)}"
            )
        if self.folds and not self.train:
            raise InputError(f"train='' with folds={self.folds}: expected a split, such as train")
        if min(self.seed, few) < 0:
            raise InputError(
                f"expected integers from 0: seed={self.seed}, examples_per_class={few}"
            )


def at_most(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Returns the places of `most` examples at most, each class in proportion: int64, in rising order.

    Args:
        labels: integers [N].
        most: from 1.
        seed: integer from 0.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    return hold_out(labels, most, seed)[1]


def hold_out(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits examples into those that stay and `count` held out, each class in proportion.

    Class shares are rounded by largest remainder, so that exactly `count` are held out and no class
    is off its share by one or more. Classes that rounding up would leave without an example are
    rounded up last.

    Args:
        labels: integers [N].
        count: number of examples to hold out, from 1 to N - 1.
        seed: integer from 0.

    Returns:
        Indices of the examples that stay and of those held out, int64, each in rising order.

    Raises:
        InputError: if there are fewer than two examples, or `count` leaves one of the two parts empty.

    Example:
        >>> stay, held = hold_out(np.array([0, 0, 1, 1]), 2, seed=0)
        >>> np.array([0, 0, 1, 1])[held].tolist()
        [0, 1]
    """
    if len(labels) < 2:
        raise InputError(
            f"{console.count(len(labels), 'example')} cannot be divided in two; expected 2 or more"
        )
    if not 0 < count < len(labels):
        raise InputError(
            f"{count} of {len(labels)} examples cannot be held out: one part would be empty"
        )
    classes, sizes = np.unique(labels, return_counts=True)
    shares = sizes * (count / len(labels))
    counts = np.floor(shares).astype(np.int64)
    # By the last key first: exact shares come last, with or without rounding errors.
    largest = np.lexsort((counts - shares, counts + 1 >= sizes, shares - counts < 1e-9))
    counts[largest[: count - counts.sum()]] += 1
    held = _choose(labels, classes, counts, seed, _HOLD_OUT)
    mask = np.zeros(len(labels), bool)
    mask[held] = True
    return np.flatnonzero(~mask), held


def folds_of(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Returns the fold of every example, from 1: int64 [N], a pure function of labels and seed.

    Every example is in one fold. The sizes of two folds differ by one example at most, and so does the number
    of examples of a class in two folds: examples are dealt to the folds in turn, class after class, in a
    random order within the class. A class with fewer examples than folds is absent from some.

    Args:
        labels: integers [N].
        folds: how many, from 2 to N.
        seed: integer from 0.

    Raises:
        InputError: if there are fewer examples than folds.

    Example:
        >>> folds_of(np.array([0, 0, 1, 1]), 2, seed=0)[[0, 1]].tolist() in ([1, 2], [2, 1])
        True
    """
    if not 2 <= folds <= len(labels):
        raise InputError(
            f"folds={folds}: expected an integer from 2 to {len(labels)}, the examples"
        )
    fold = np.empty(len(labels), np.int64)
    fold[_by_class(labels, seed, _FOLDS)] = np.arange(len(labels)) % folds + 1
    return fold


def few_shot(
    labels: np.ndarray, examples_per_class: int, seed: int, class_names: Sequence[str]
) -> np.ndarray:
    """Returns the indices of `examples_per_class` examples of every class: int64, in rising order.

    With one seed, a smaller choice is part of every larger one.

    Raises:
        InputError: if classes have fewer examples; all of them are listed.
    """
    sizes = np.bincount(labels, minlength=len(class_names))
    short = [
        f"{class_names[c]} ({sizes[c]})"
        for c in np.flatnonzero(sizes < examples_per_class).tolist()
    ]
    if (sizes == 0).any():
        empty = np.flatnonzero(sizes == 0)
        shown = ", ".join(class_names[c] for c in empty[:20].tolist())
        raise InputError(
            f"examples_per_class={examples_per_class} is not possible, as {len(empty)} of "
            f"{len(sizes)} classes have no examples: {shown}"
            + (f" and {len(empty) - 20} more" if len(empty) > 20 else "")
        )
    if short or examples_per_class < 1:
        shown = ", ".join(short[:20]) + (f" and {len(short) - 20} more" if len(short) > 20 else "")
        raise InputError(
            f"examples_per_class={examples_per_class} is not possible; expected an integer from 1 "
            f"to {sizes.min()}" + (f"; classes with fewer examples: {shown}" if short else "")
        )
    classes = np.arange(len(class_names))
    return _choose(labels, classes, np.full(len(classes), examples_per_class), seed, _FEW_SHOT)


def _choose(
    labels: np.ndarray, classes: np.ndarray, counts: np.ndarray, seed: int, purpose: int
) -> np.ndarray:
    chosen = []
    by_class = _by_class(labels, seed, purpose)
    starts = np.searchsorted(labels[by_class], classes)
    for start, count in zip(starts, counts, strict=True):
        chosen.append(by_class[start : start + count])
    return np.sort(np.concatenate(chosen))


def _by_class(labels: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """Returns all places, class after class, in a random order within each: int64 [N]."""
    # One sort of the shuffled labels in place of a scan per class: quadratic for 1,000 classes.
    shuffled = order.shuffled(len(labels), seed, purpose)
    return shuffled[np.argsort(labels[shuffled], kind="stable")]
