"""Whether every field of a config has its type and a value that is allowed, each judged alone."""

from collections.abc import Sequence

import ml_collections

from tl_jax.config.access import flat, is_field, unknown_field
from tl_jax.config.phases import phase_problems
from tl_jax.config.table import FIELDS
from tl_jax.errors import InputError


def check(config: ml_collections.ConfigDict) -> None:
    """Looks at the type and the value of every field.

    Raises:
        InputError: listing all fields that have another type, or else all whose value is not allowed.
    """
    given = flat(config)
    missing = [
        name for name, field in FIELDS.items() if name not in given and field.kind is not dict
    ]
    if missing:
        raise InputError(lacking(missing))
    unheard = [name for name in given if not is_field(name)]
    if unheard:
        raise InputError("\n".join(map(unknown_field, unheard)))
    values = {name: given[name] for name in FIELDS if name in given}
    mistyped = [FIELDS[name].type_problem(value) for name, value in values.items()]
    if any(mistyped):
        raise InputError("\n".join(filter(None, mistyped)))
    problems = [FIELDS[name].value_problem(value) for name, value in values.items()]
    for name in ("preprocess.mean", "preprocess.std"):
        channels = tuple(values[name])
        if len(channels) not in (0, 3):
            problems.append(
                f"{name}={channels}: {len(channels)} channels; expected three numbers, or none: as the weights say"
            )
    if not values["data.train_split"]:
        problems.append("data.train_split='': expected a split, such as train or train[:80%]")
    problems += phase_problems(values["phases"])
    if any(problems):
        raise InputError("\n".join(filter(None, problems)))


def lacking(names: Sequence[str]) -> str:
    """Returns the message about fields that a config does not have."""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
    return (
        f"the config lacks {shown}; begin with tl_jax.default_config(), and set the fields of a section one "
        "by one"
    )
