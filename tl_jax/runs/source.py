"""The run that another one starts from, where `init.source` describes it: trained first, in its own folder."""

import copy
import hashlib
import json
import pathlib

import ml_collections

from tl_jax import files
from tl_jax.config import (
    FIELDS,
    assigned,
    default_config,
    flat,
    naming_fields,
    of_command,
)
from tl_jax.errors import InputError

FOLDER = "source"  # of a run's folder
# What the target says of these is of the target alone.
_OF_THE_TARGET = ("init", "freeze", "objective", "solver", "average", "soup")


def source_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of the run that `init.source` describes.

    It is `config` with these assignments; what they do not set is as in `config`, but for phases, the sections init,
    freeze, objective, solver, average, soup and cache, `data.examples_per_class` and, of another data set, folds,
    which are at their defaults.

    Raises:
        InputError: if weights are given beside, or an assignment is of another run's weights or makes no sense.
    """
    assignments = tuple(config.init.source)
    if config.init.weights:
        raise InputError(
            f"init.weights={config.init.weights} and init.source={assignments}: give one; the weights of the source "
            "run are those that this one starts from (the source's own are 'init.weights=...' in init.source)"
        )
    source = copy.deepcopy(config)
    defaults, kept = default_config(), config.cache.dir
    for section in (*_OF_THE_TARGET, "cache"):
        source[section] = defaults[section]
    source.cache.dir = kept
    # Adapters are of the target: the network that they adapt is trained without them.
    for name in ("adapters", "adapter_rank"):
        source.model[name] = defaults.model[name]
    source.phases, source.data.examples_per_class = (), 0
    with naming_fields(config, "init.source"):
        source = assigned(source, assignments)
    if source.data.name != config.data.name:
        # Folds are of the target's images; of the same ones, a fold must not be seen by the source.
        source.data.folds, source.data.fold = defaults.data.folds, defaults.data.fold
    if source.init.source:
        raise InputError(f"init.source={assignments}: a source run has no source of its own")
    return source


def shared_folder(source: ml_collections.ConfigDict, sources: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a source, teacher or member among those that runs share: one for each that differs."""
    values = {
        name: value
        for name, value in flat(of_command(source)).items()
        if name in FIELDS and FIELDS[name].changes_numbers
    }
    text = json.dumps(files.plain(values), sort_keys=True)
    return sources / hashlib.sha256(text.encode()).hexdigest()[:12]
