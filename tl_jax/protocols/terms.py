"""Terms that several protocols have."""

import math
from typing import Any

from tl_jax.protocols.protocol import TRIALS, Facts, Term

_NATIVE = ("mean", "std")
_NOTHING = "nothing held out"


def field(name: str, value: Any, about: str = "", expected: str = "") -> Term:
    """Returns the term that a field of the last phase has a value.

    Args:
        name: of the field.
        value: that it has to have.
        about: what the term is called; "" for the field's name.
        expected: the value, in words; "" for the value itself.
    """
    section, _, last = name.partition(".")

    def found(facts: Facts) -> Any:
        value = facts.config[section][last]
        return tuple(value) if isinstance(value, list | tuple) else value

    def holds(given: Any) -> bool:
        if isinstance(value, float):
            return math.isclose(given, value, rel_tol=1e-9)
        return given == value

    filled = (f"{name}={value}",)
    return Term(about or name, expected or str(value), found, holds, filled)


def resolution(pixels: int) -> Term:
    """Returns the term that the network sees squares of so many pixels a side."""
    return Term(
        "resolution",
        f"{pixels} pixels",
        lambda facts: facts.preprocessing["image_size"],
        lambda size: size == pixels,
        (f"data.image_size={pixels}",),
    )


def normalisation_of_weights() -> Term:
    """Returns the term that the input is normalised as that of the weights was."""

    def found(facts: Facts) -> str:
        if facts.native is None:
            return "weights that do not say how theirs was"
        differing = [
            f"{name} {list(facts.preprocessing[name])}"
            for name in _NATIVE
            if not _alike(facts.preprocessing[name], facts.native[name])
        ]
        return ", ".join(differing) or "that of the weights"

    return Term(
        "normalisation",
        "that of the weights",
        found,
        lambda text: text == "that of the weights",
        ("preprocess.mean=()", "preprocess.std=()"),
    )


def trials(count: int) -> Term:
    """Returns the term that one of so many combinations of hyper-parameters is chosen."""
    return Term(TRIALS, str(count), lambda facts: facts.trials, lambda found: found == count)


def selected_by(split: str, fraction: float = 0.1) -> Term:
    """Returns the term that steps and hyper-parameters are chosen by a split.

    Args:
        split: "validation", held out of train; "test"; or "" for nothing.
        fraction: of train that is held out where the config is filled in.
    """
    expected = {
        "validation": "images held out of train",
        "test": "the test split",
        "": _NOTHING,
    }[split]
    filled = {
        "validation": (f"data.validation_fraction={fraction}",),
        "test": (),
        "": ("data.validation_fraction=0.0", "data.validation_split="),
    }[split]
    return Term("selection", expected, _selected_by, lambda found: found == expected, filled)


def pretrained() -> Term:
    """Returns the term that the network starts from pretrained weights."""
    return Term(
        "initialisation",
        "pretrained weights",
        lambda facts: facts.config.init.weights or "random weights",
        lambda found: found != "random weights",
    )


def no_augmentation() -> Term:
    """Returns the term that images are not changed at random."""
    fields = (
        "augment.crop_padding=0",
        "augment.flip=False",
        "augment.operations=",
        "augment.mixing=",
    )

    def found(facts: Facts) -> str:
        section = facts.config.augment
        changes = [f"crop_padding={section.crop_padding}"] if section.crop_padding else []
        changes += ["flip"] if section.flip else []
        return ", ".join([*changes, *section.operations, *section.mixing]) or "none"

    return Term("augmentation", "none", found, lambda found: found == "none", fields)


def length(steps: int) -> Term:
    """Returns the term that so many updates are made."""
    return Term(
        "length",
        f"{steps:,} updates",
        lambda facts: f"{facts.steps:,} updates",
        lambda found: found == f"{steps:,} updates",
        (f"train.steps={steps}", "train.epochs=0.0"),
    )


def epochs(count: float) -> Term:
    """Returns the term that each image is seen so many times."""

    def found(facts: Facts) -> str:
        passed = facts.steps * facts.config.data.batch_size / facts.train_examples
        return f"{passed:.4g} epochs"

    return Term(
        "length",
        f"{count:g} epochs",
        found,
        # An epoch need not end with an update.
        lambda text: math.isclose(float(text.split()[0]), count, rel_tol=0.01),
        (f"train.epochs={float(count)}", "train.steps=0"),
    )


def labels_per_class(*counts: int) -> Term:
    """Returns the term that one of these numbers of images per class is labelled."""
    return Term(
        "labels per class",
        f"one of {', '.join(map(str, counts))}",
        lambda facts: facts.config.data.examples_per_class or "all",
        lambda found: found in counts,
    )


def whole_test_split() -> Term:
    """Returns the term that all of the test split is reported on."""

    def found(facts: Facts) -> str:
        section = facts.config.data
        if section.folds:
            return f"fold {section.fold} of train"
        return section.test_split

    return Term(
        "test split", "all of it", found, lambda split: "[" not in split and "fold" not in split
    )


def _selected_by(facts: Facts) -> str:
    if not facts.validation_examples:
        return _NOTHING
    chosen, reported = facts.config.data.validation_split, facts.config.data.test_split
    if chosen and chosen.partition("[")[0] == reported.partition("[")[0]:
        return "the test split"
    return "images held out of train" if not chosen else f"{chosen}, a split of its own"


def _alike(values: Any, others: Any) -> bool:
    return all(abs(one - other) < 1e-3 for one, other in zip(values, others, strict=True))
