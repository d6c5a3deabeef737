"""What several processes of a run must have alike, compared before anything is written.

They would wait for each other for ever, or mix two data sets, each having its own share of the images.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from tl_jax import config as fields
from tl_jax import files
from tl_jax.data import Splits
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.runs import resuming

# Where a machine has its files, and how many processes read them.
OF_A_MACHINE = ("data.name", "data.data_dir", "data.cache_dir", "data.workers", "cache.dir")


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raises InputError in every process unless all have the same config, but for what is of a machine.

    Args:
        config: of this process.
    """
    values = {
        name: value for name, value in fields.flat(config).items() if name not in OF_A_MACHINE
    }
    lines = [f"{name} (here {values[name]!r})" for name in _differing(values)]
    if lines:
        raise InputError(
            f"the {jax.process_count()} processes have other values of {', '.join(lines)}; expected the same command "
            "in every one"
        )


def check_data(splits: Splits) -> None:
    """Raises InputError in every process unless all have the same splits: names of files, pixels and labels.

    Args:
        splits: of this process.
    """
    if jax.process_count() == 1:
        return
    facts = resuming.facts_of(splits)
    differing = _differing(facts)
    lines = [
        f"{role} ({facts[role]['examples']:,} images here)" for role in differing if role in facts
    ]
    if differing:
        raise InputError(
            f"the {jax.process_count()} processes see other images, names or labels in {', '.join(lines)}; expected "
            "the same files, in the same order, on every machine"
        )


def _differing(values: Mapping[str, Any]) -> list[str]:
    """Returns the names, of those that this process has, whose values are not the same in all processes."""
    if jax.process_count() == 1 or _same(values):
        return []
    # Names first, or the processes would not compare the same ones.
    if not _same(sorted(values)):
        return sorted(values)
    return [name for name in sorted(values) if not _same(values[name])]


def _same(value: Any) -> bool:
    digest = hashlib.sha256(files.to_json(value).encode()).digest()
    return len(set(sharding.each(int.from_bytes(digest[:7])))) == 1
