"""The runs of an ablation: a cell for each variant, number of labels, trial and seed."""

import copy
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from tl_jax import files
from tl_jax.ablation.spec import Spec
from tl_jax.config import default_config, flat, identity_of, set_field, set_value
from tl_jax.errors import InputError

_DIGITS = 10


@dataclasses.dataclass(frozen=True)
class Cell:
    """An ordinary run of an ablation.

    Attributes:
        variant: its name.
        shots: labelled images per class, 0 for all.
        trial: number of the combination of what is tuned, from 0.
        values: {field: value} of that combination.
        seed: of the run.
        config: of the run.
        name: of its folder below that of the cells; another one where anything that can change a number differs.
    """

    variant: str
    shots: int
    trial: int
    values: Mapping[str, Any]
    seed: int
    config: ml_collections.ConfigDict
    name: pathlib.PurePosixPath

    def __str__(self) -> str:
        """Returns how messages call it."""
        few = self.config.data.examples_per_class
        shots = f", {few} per class" if few else ""
        values = "".join(f", {name}={value}" for name, value in self.values.items())
        return f"{self.variant}{shots}{values}, seed {self.seed}"


def expand(spec: Spec) -> list[Cell]:
    """Returns all cells of a spec, seed after seed, so that what is compared in pairs is run together.

    Raises:
        InputError: if a variant sets a field that does not exist, or to what it cannot hold.
    """
    return [
        _cell(spec, variant, shots, trial, values, seed)
        for seed in spec.seeds
        for shots in spec.labelled
        for variant in spec.variants
        for trial, values in enumerate(spec.trials(variant))
    ]


def digest(config: ml_collections.ConfigDict) -> str:
    """Returns what tells a run from others, the same in every version: of fields that are not at their defaults.

    Fields that cannot change a number do not count.
    """
    without_effect = identity_of(config).without_effect
    sections = {name[:-2] for name in without_effect if name.endswith(".*")}
    defaults = flat(default_config())
    fields = {
        name: value
        for name, value in flat(config).items()
        if name not in without_effect
        and name.partition(".")[0] not in sections
        and value != defaults.get(name)
    }
    text = json.dumps(files.plain(fields), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _cell(
    spec: Spec, variant: str, shots: int, trial: int, values: Mapping[str, Any], seed: int
) -> Cell:
    config = copy.deepcopy(spec.base)
    of_the_spec = {"seed": seed, "data.seed": seed}
    if spec.shots:
        of_the_spec["data.examples_per_class"] = shots
    try:
        for field, value in {**values, **of_the_spec}.items():
            set_value(config, field, value)
        for assignment in spec.assignments(variant, config):
            set_field(config, assignment)
    except InputError as error:
        raise InputError(f"variant {variant}: {error}") from error
    folder = pathlib.PurePosixPath(variant, f"shots{shots}", f"trial{trial}")
    name = folder / f"seed{seed}-{digest(config)}"
    return Cell(variant, shots, trial, values, seed, config, name)
