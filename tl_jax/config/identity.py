"""What makes two configs the same run."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from tl_jax import files
from tl_jax.config.access import default_config
from tl_jax.config.table import COMMAND_SECTIONS, FIELDS
from tl_jax.config.updates import ONLY_OF_UPDATES

# With these the first updates of a longer run are the updates of a shorter one.
EXTENDABLE_SCHEDULES = ("constant", "step", "exponential", "plateau")


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which fields of a config make a run the run that it is.

    Attributes:
        defaults: a config with every field's default: a field that one of two configs lacks, since it is
            of another version, counts as its default.
        without_effect: fields that cannot change a number of the result, by their dotted names;
            "sweep.*" stands for a section. Two configs that differ in these alone are one run.
        extendable: fields that hold a length of the run, or 0. Where one of them alone is larger than
            in the folder, the run goes on from its last checkpoint.
        not_extendable_because: why a longer run would differ from the start; "" where it would not.
    """

    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    without_effect: tuple[str, ...] = ()
    extendable: tuple[str, ...] = ()
    not_extendable_because: str = ""


def identity_of(config: ml_collections.ConfigDict, command: str = "") -> Identity:
    """Returns what makes a run folder that of `config`.

    Args:
        config: of the run.
        command: such as "sweep"; "" for a training run, which may be extended unless it makes no updates.
    """
    names = [name for name, field in FIELDS.items() if not field.changes_numbers]
    others = [
        f"{section}.*" for section, readers in COMMAND_SECTIONS.items() if command not in readers
    ]
    solved = not command and bool(config.solver.name)
    schedule = config.optim.schedule
    reason = ""
    if schedule not in EXTENDABLE_SCHEDULES:
        reason = (
            f"optim.schedule={schedule} depends on the number of updates, so a longer run would have had "
            "other learning rates from the start"
        )
    if config.average.name == "swa":
        reason = (
            "average.start is a share of the run, so a longer run would have taken other samples"
        )
    if config.phases:
        reason = "it has phases, which begin and end at fixed updates"
    if config.train.fit_to_data:
        reason = "train.fit_to_data chooses warm-up and intervals by the length"
    if config.init.source:
        reason = "init.source describes a run of the same length, which would be another one"
    if config.objective.teacher_source:
        reason = "objective.teacher_source describes a run of the same length, which would be another one"
    if config.soup.name:
        reason = "soup.members have this length, and their mean would be another one"
    return Identity(
        defaults=files.plain(default_config().to_dict()),
        without_effect=(*names, *others, *(ONLY_OF_UPDATES if solved else ())),
        extendable=() if command or solved else ("train.steps", "train.epochs"),
        not_extendable_because=reason,
    )
