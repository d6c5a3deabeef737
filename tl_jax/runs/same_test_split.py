"""Whether two runs were measured on the same test images in the same order, so that images can be paired.

Equal labels prove nothing: two data sets can share them by accident. A training run records digests of its test
split (`data.json`); a run without them is known by the names of its data set and split.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

# Which test split is read: of two runs these must be equal.
_TEST_FIELDS = ("data.name", "data.test_split", "data.folds")
# With folds, these say which images are the fold.
_FOLD_FIELDS = ("data.fold", "data.seed", "data.train_split")


def differing_fields(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Returns the fields, of those that say which images are the test split, in which two configs differ.

    Args:
        config: {dotted name: value}, see `config.flat`.
        other: likewise.
    """
    names = (*_TEST_FIELDS, *(_FOLD_FIELDS if config["data.folds"] else ()))
    return [name for name in names if config[name] != other[name]]


@dataclasses.dataclass(frozen=True)
class TestSplit:
    """What a run folder says of the N images that the run was measured on.

    Attributes:
        config: {dotted name: value} of the run, complete.
        class_names: in the order of the labels.
        labels: int [N].
        indices: int [N], the places of the images in the split.
        digests: `test` of `data.json`: `names`, of file names and places in the data set, and `content`, of the
            pixels, where these were in memory; None where the folder has no such file.
    """

    config: Mapping[str, Any]
    class_names: tuple[str, ...]
    labels: np.ndarray
    indices: np.ndarray
    digests: Mapping[str, Any] | None


def difference(split: TestSplit, other: TestSplit) -> str:
    """Returns in what two test splits differ, as the end of a sentence; "" where they are the same images.

    Args:
        split: of the one run.
        other: of the run that it is compared with.
    """
    if split.class_names != other.class_names:
        return _other_classes(split.class_names, other.class_names)
    if len(split.labels) != len(other.labels):
        return f"it has {len(split.labels):,} test images, not {len(other.labels):,}"
    differing = int(np.sum(split.labels != other.labels))
    if differing:
        return f"{differing:,} of {len(split.labels):,} test images have another label there"
    if not np.array_equal(split.indices, other.indices):
        return "its test images are in another order"
    there, here = split.digests, other.digests
    if there and here:
        of_pixels = [digests.get("content") for digests in (there, here)]
        if all(of_pixels) and there["shape"] == here["shape"]:
            same = of_pixels[0] == of_pixels[1]
            return "" if same else "the pixels of its test images are others (data.json)"
        # Stored at another size, or decoded on access: names of files and places in the data set remain.
        if there["names"] != here["names"]:
            return "its test images are other files, or in another order (data.json)"
        names = ["data.name"] if split.config["data.name"] != other.config["data.name"] else []
    else:
        names = differing_fields(split.config, other.config)
    return ", ".join(
        f"its {name} is {split.config[name]}, not {other.config[name]}" for name in names
    )


def _other_classes(names: tuple[str, ...], others: tuple[str, ...]) -> str:
    """Returns how the classes differ: their number, or the first that is another one."""
    if len(names) != len(others):
        return f"it has {len(names):,} classes, not {len(others):,}"
    place = next(
        place for place, pair in enumerate(zip(names, others, strict=True)) if len(set(pair)) > 1
    )
    return f"its class {place} is {names[place]!r}, not {others[place]!r}"
