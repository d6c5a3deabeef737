"""Phases: a run whose freezing, optimizer, objective, augmentation, cache and length change on the way.

`config.phases` holds a tuple of assignments for each phase, such as `("freeze.strategy=backbone", "train.steps=20")`.
A phase is the run's config with these assignments; one that gives no length has that of the config, and one that
stores every image as it is (`cache.boundary`, `cache.views=1`) takes no `augment.repeats` and `augment.once` from it.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections

from tl_jax.config.access import default_config, set_field
from tl_jax.errors import InputError

Phases = tuple[tuple[str, ...], ...]

# Sections whose fields a phase may set; the others are of the whole run.
PHASE_SECTIONS = ("freeze", "optim", "train", "cache", "augment", "objective", "average")
# Of these sections, what all phases have in common.
_OF_THE_RUN = (
    "train.fit_to_data",
    "train.rule",
    "train.patience",
    "train.select_by",
    "train.eval_statistics",
    "train.deterministic",
    "objective.teacher_source",
)
# The same in updates and in epochs: in a phase, one of them takes the place of the other.
_UNITS = ("train.", "train.eval_every_", "optim.warmup_", "optim.step_")
# Of random changes, and so not of a phase that stores every image as it is.
_ONLY_OF_CHANGED_IMAGES = {"augment.repeats": 1, "augment.once": False}


def phase_configs(config: ml_collections.ConfigDict) -> list[ml_collections.ConfigDict]:
    """Returns the config of each phase, without `phases`; `config` itself for a run without phases.

    Raises:
        InputError: listing the assignments that are no fields of a phase, or have another type.
    """
    given = _given(config.phases)
    if not given:
        return [config]
    problems = phase_problems(given)
    if problems:
        raise InputError("\n".join(problems))
    return [_phase_config(config, assignments) for assignments in given]


def phase_problems(phases: Sequence[Sequence[str]]) -> list[str]:
    """Returns what is wrong with the assignments of `phases`, a line each; [] if nothing is."""
    lines = []
    for number, assignments in enumerate(_given(phases), 1):
        names = [assignment.partition("=")[0] for assignment in assignments]
        for place, assignment in enumerate(assignments):
            problem = _assignment_problem(assignment)
            if problem is None and names[place] in names[:place]:
                problem = f"{names[place]} is set twice"
            if problem is not None:
                lines.append(f"phase {number}: {problem}")
    return lines


@contextlib.contextmanager
def naming_phase(config: ml_collections.ConfigDict, number: int) -> Iterator[None]:
    """Makes InputErrors raised inside begin with the phase; those of a run without phases stay as they are.

    Args:
        config: of the run, with its phases.
        number: of the phase, counted from 0.
    """
    try:
        yield
    except InputError as error:
        if not _given(config.phases):
            raise
        raise InputError(f"phase {number + 1}: {error}") from error


def gradual_unfreezing(boundaries: Sequence[str], assignments: Sequence[str] = ()) -> Phases:
    """Returns the phases of gradual unfreezing: the head alone, then one boundary more in each phase.

    Args:
        boundaries: the parts of the backbone from input to output, such as ("stem", "stage1", "stage2").
        assignments: of every phase, such as ("train.epochs=1",).

    Raises:
        InputError: if there are no boundaries, one is there twice, or the head is among them.

    Source: Howard and Ruder 2018 (arXiv:1801.06146), section 3.3.

    Example:
        >>> for phase in gradual_unfreezing(("stem", "stage1"), ("train.steps=10",)):
        ...     print(*phase)
        freeze.strategy=backbone train.steps=10
        freeze.strategy=up_to:stem train.steps=10
        freeze.strategy=none train.steps=10
    """
    _check_assignments(boundaries=boundaries, assignments=assignments)
    names = list(boundaries)
    if not names or "head" in names or len(set(names)) < len(names):
        raise InputError(
            f"boundaries={tuple(names)}: expected the parts of the backbone from input to output, each once and "
            'without the head, such as ("stem", "stage1", "stage2", "stage3")'
        )
    frozen = ["backbone", *(f"up_to:{name}" for name in reversed(names[:-1])), "none"]
    return tuple((f"freeze.strategy={strategy}", *assignments) for strategy in frozen)


def lp_ft(probe: Sequence[str] = (), finetune: Sequence[str] = ()) -> Phases:
    """Returns the two phases of LP-FT: a linear probe on stored features, then full fine-tuning from its head.

    Args:
        probe: more assignments of the first phase, such as ("train.steps=200", "optim.learning_rate=0.1").
        finetune: of the second one.

    Source: Kumar et al. 2022 (arXiv:2202.10054), section 3.4. Images are not augmented in the first phase.

    Example:
        >>> lp_ft(("train.steps=20",), ("train.steps=30",))[1]
        ('freeze.strategy=none', 'train.steps=30')
    """
    _check_assignments(probe=probe, finetune=finetune)
    plain = ("augment.flip=False", "augment.crop_padding=0", "augment.operations=")
    on_features = ("freeze.strategy=backbone", "cache.boundary=auto", *plain)
    return (*on_features, *probe), ("freeze.strategy=none", *finetune)


def _check_assignments(**arguments: Sequence[str]) -> None:
    """Raises InputError where a text is given for a tuple of texts: its letters would be taken one by one."""
    for name, value in arguments.items():
        if isinstance(value, str):
            raise InputError(f"{name}={value!r}: expected a tuple, such as ({value!r},)")


def _given(phases: Sequence[Any]) -> list[tuple[str, ...]]:
    for number, assignments in enumerate(phases, 1):
        _check_assignments(**{f"phase {number}": assignments})
    return [tuple(assignments) for assignments in phases]


def _assignment_problem(assignment: str) -> str | None:
    name = assignment.partition("=")[0]
    section = name.partition(".")[0]
    try:
        set_field(default_config(), assignment)
    except InputError as error:
        return str(error).partition("; known:")[0]
    if section not in PHASE_SECTIONS:
        return (
            f"{assignment}: {name} is of the whole run; a phase may set fields of "
            f"{', '.join(PHASE_SECTIONS)}"
        )
    if name in _OF_THE_RUN:
        return f"{assignment}: {name} is of the whole run, not of a phase"
    return None


def assigned(
    config: ml_collections.ConfigDict, assignments: Sequence[str]
) -> ml_collections.ConfigDict:
    """Returns a copy of a config with fields set, such as "train.epochs=2".

    Of a length in steps and in epochs, the one that is set unsets the other.

    Raises:
        InputError: if there is no such field, or a value is of another type.
    """
    changed = copy.deepcopy(config)
    for assignment in assignments:
        set_field(changed, assignment)
    names = {assignment.partition("=")[0] for assignment in assignments}
    for prefix in _UNITS:
        for unit, other in (("steps", "epochs"), ("epochs", "steps")):
            section, _, field = f"{prefix}{unit}".partition(".")
            name, replaced = f"{prefix}{unit}", f"{prefix}{other}"
            if name in names and replaced not in names and changed[section][field]:
                value = changed[section][replaced.partition(".")[2]]
                changed[section][replaced.partition(".")[2]] = type(value)()
    return changed


def _phase_config(
    config: ml_collections.ConfigDict, assignments: Sequence[str]
) -> ml_collections.ConfigDict:
    phase = assigned(config, assignments)
    phase.phases = ()
    if phase.cache.boundary and phase.cache.views == 1:
        for name, value in _ONLY_OF_CHANGED_IMAGES.items():
            if not any(assignment.startswith(f"{name}=") for assignment in assignments):
                phase.update_from_flattened_dict({name: value})
    return phase
