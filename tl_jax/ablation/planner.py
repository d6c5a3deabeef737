"""What cells are made together: those that one program trains, and those that read the same activations."""

import copy
import dataclasses
import json
from collections.abc import Iterable, Sequence

import ml_collections
import numpy as np

from tl_jax import files
from tl_jax.ablation.cells import Cell
from tl_jax.config import flat
from tl_jax.runs import together
from tl_jax.runs.splits import make_undecoded_splits

# Cells that are trained by one program, at most.
WIDTH = 32
# Of the data, what chooses among the images of a stored split.
_CHOICE = (
    "data.seed",
    "data.examples_per_class",
    "data.validation_fraction",
    "data.folds",
    "data.fold",
)


@dataclasses.dataclass(frozen=True)
class Unit:
    """Cells that are made together.

    Attributes:
        cells: one at least.
        why_alone: why the updates of each are a program of its own; "" where one program makes those of all.
    """

    cells: tuple[Cell, ...]
    why_alone: str = ""


def plan(cells: Sequence[Cell], width: int = WIDTH) -> list[Unit]:
    """Returns all cells in units, in the order of the first cell of each.

    Args:
        cells: of an ablation.
        width: cells of a unit, at most.
    """
    reasons: dict[str, str] = {}
    units: dict[tuple[str, int], list[Cell]] = {}
    counts: dict[str, int] = {}
    for cell in cells:
        key = together.key(cell.config)
        if key not in reasons:
            reasons[key] = together.why_alone(cell.config)
        number = counts.get(key, 0)
        counts[key] = number + 1
        units.setdefault((key, number // (1 if reasons[key] else width)), []).append(cell)
    return [
        Unit(tuple(of), reasons[key] or ("" if len(of) > 1 else "no other like it"))
        for (key, _), of in units.items()
    ]


def sharing_activations(cells: Sequence[Cell]) -> list[Cell]:
    """Returns the cells, each told to have the activations of whole stored splits computed where that is less work.

    That is where what the cells choose among the images of the same split is as many images as the split has, every
    choice counted once.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if _stores_images_as_they_are(cell.config):
            groups.setdefault(_data_of(cell.config), []).append(cell)
    whole = {id(cell) for of in groups.values() if _reads_as_much(of) for cell in of}
    return [_told(cell) if id(cell) in whole else cell for cell in cells]


def _stores_images_as_they_are(config: ml_collections.ConfigDict) -> bool:
    """Returns whether a run computes the activations of every image once, as one whose head is solved does."""
    return bool(config.solver.name or (config.cache.boundary and config.cache.views == 1))


def _data_of(config: ml_collections.ConfigDict) -> str:
    """Returns what configs that choose among the same images have in common."""
    fields = {
        name: value
        for name, value in flat(config).items()
        if name.startswith("data.") and name not in _CHOICE
    }
    return json.dumps(files.plain(fields), sort_keys=True)


def _reads_as_much(cells: Iterable[Cell]) -> bool:
    """Returns whether what these cells choose is, each choice counted once, as many images as there are stored."""
    choices = {tuple(flat(cell.config)[name] for name in _CHOICE): cell for cell in cells}
    if len(choices) < 2:
        return False
    # Those that differ in their seed alone choose as many.
    sizes: dict[tuple, int] = {}
    read, stored = 0, 0
    for choice, cell in choices.items():
        if choice[1:] not in sizes:
            splits = make_undecoded_splits(cell.config)
            source, _ = splits["train"].whole()
            rows = [split.whole()[1] for split in splits.values() if split.whole()[0] is source]
            sizes[choice[1:]], stored = len(np.unique(np.concatenate(rows))), len(source)
        read += sizes[choice[1:]]
    return read >= stored


def _told(cell: Cell) -> Cell:
    config = copy.deepcopy(cell.config)
    config.cache.whole = True
    return dataclasses.replace(cell, config=config)
