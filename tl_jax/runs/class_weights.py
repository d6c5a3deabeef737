"""The weights of the classes in the cross-entropy of a run, from its config and its training images."""

from collections.abc import Sequence

import ml_collections
import numpy as np

from tl_jax import objectives, porting
from tl_jax.config import FIELDS
from tl_jax.data import Split
from tl_jax.errors import InputError
from tl_jax.objectives import class_weights


def make_class_weights(config: ml_collections.ConfigDict, train_split: Split) -> tuple[float, ...]:
    """Returns the weights of the classes in cross-entropy, in their order; () for none.

    Args:
        config: of the run.
        train_split: whose labels are counted.

    Raises:
        InputError: if the config gives another number of them than the data have classes, or zeros alone.
    """
    section, names = config.objective, train_split.class_names
    if section.class_weighting:
        counts = np.bincount(train_split.labels, minlength=len(names))
        found = class_weights.from_counts(section.class_weighting, counts, section.effective_beta)
        return tuple(found.tolist())
    given = tuple(map(float, section.class_weights))
    if given and (len(given) != len(names) or not any(given)):
        raise InputError(
            f"objective.class_weights={given}: expected {len(names)} numbers, not all of them 0, for the classes "
            f"{porting.list_names(names)}"
        )
    return given


def problems_of_class_weights(section: ml_collections.ConfigDict) -> list[str]:
    """Returns what is wrong with the weights of the classes as far as the config alone says."""
    given = [
        f"objective.{name}={section[name]!r}"
        for name in ("class_weighting", "class_weights")
        if section[name]
    ]
    problems = []
    if len(given) == 2:
        problems.append(f"{' and '.join(given)}: expected one of them")
    if given and (section.name != objectives.CROSS_ENTROPY or not section.weight):
        problems.append(
            f"{' and '.join(given)}: of cross_entropy, without effect on objective.name={section.name} with "
            f"objective.weight={section.weight:g}; expected no weights of classes"
        )
    return problems


def check_effective_beta(sections: Sequence[ml_collections.ConfigDict]) -> None:
    """Raises InputError where `effective_beta` is set and no phase weights its classes by it.

    Args:
        sections: `objective` of every phase.
    """
    default = FIELDS["objective.effective_beta"].default
    changed = [section for section in sections if section.effective_beta != default]
    if changed and all(section.class_weighting != "effective" for section in sections):
        raise InputError(
            f"objective.effective_beta={changed[0].effective_beta!r} without objective.class_weighting=effective has "
            f"no effect; expected {default!r}, the default"
        )
