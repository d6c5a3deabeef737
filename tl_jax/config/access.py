"""Making configs, and reading and setting their fields by dotted names."""

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from tl_jax import trees
from tl_jax.config.field import Field
from tl_jax.config.table import COMMAND_SECTIONS, FIELDS, RENAMED
from tl_jax.errors import InputError, nearest


def default_config(**overrides: Any) -> ml_collections.ConfigDict:
    """Returns a config of all fields at their defaults: nothing pretrained, nothing frozen, CIFAR-10.

    A field that does not exist cannot be set, except in `compare.methods`, whose names are the user's.

    Args:
        **overrides: fields to set, a dot as two underscores.

    Raises:
        InputError: if there is no such field, or the value is of another type.

    Example:
        >>> default_config(optim__learning_rate=0.01).optim.learning_rate
        0.01
    """
    config = ml_collections.ConfigDict()
    for field in FIELDS.values():
        section, _, last = field.name.rpartition(".")
        if section and section not in config:
            config[section] = ml_collections.ConfigDict()
        inner = config[section] if section else config
        inner[last] = ml_collections.ConfigDict() if field.kind is dict else field.default
    config.lock()
    config.compare.methods.unlock()
    for name, value in overrides.items():
        set_value(config, name.replace("__", "."), value)
    return config


def flat(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns {dotted name: value} of all fields that hold a value."""
    fields = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
    return trees.flatten(fields, ".")


def changes(
    base: ml_collections.ConfigDict,
    config: ml_collections.ConfigDict,
    leave_out: Collection[str] = (),
) -> tuple[str, ...]:
    """Returns the assignments that make `base` say what `config` says.

    Args:
        base: with all fields.
        config: likewise.
        leave_out: names of fields that stay as they are.

    Example:
        >>> changes(default_config(), default_config(seed=3, augment__flip=False))
        ('augment.flip=False', 'seed=3')
    """
    ours = flat(base)
    return tuple(
        f"{name}={value}"
        for name, value in sorted(flat(config).items())
        if name in FIELDS and name not in leave_out and value != ours[name]
    )


def of_command(config: ml_collections.ConfigDict, command: str = "") -> dict[str, Any]:
    """Returns what a run folder records of a config: its fields without the sections of other commands.

    Args:
        config: of the run.
        command: such as "sweep"; "" for a training run.
    """
    fields = config.to_dict()
    return {
        name: value
        for name, value in fields.items()
        if command in COMMAND_SECTIONS.get(name, (command,))
    }


def upgraded(recorded: Any) -> Any:
    """Returns a config.json of an earlier version as this one writes it.

    Fields have the names of today, and an empty tuple is empty: it may be `[""]` there. Anything but a
    JSON object comes back as it is.
    """
    found = _with_empty_tuples(recorded)
    if not isinstance(found, dict):
        return found  # not ours
    for old, new in RENAMED.items():
        (section, last), (new_section, new_last) = old.split("."), new.split(".")
        if last in found.get(section, {}):
            found.setdefault(new_section, {})[new_last] = found[section].pop(last)
    return found


def _with_empty_tuples(recorded: Any) -> Any:
    if isinstance(recorded, Mapping):
        return {name: _with_empty_tuples(value) for name, value in recorded.items()}
    return [] if recorded == [""] else recorded


def completed(fields: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Returns a config of `fields`, those it lacks at their defaults: it may be of an older version."""
    return _completed(upgraded(fields), default_config())


def _completed(
    fields: Mapping[str, Any], defaults: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(fields)
    for name, value in defaults.items():
        if name not in config:
            config[name] = value
        elif isinstance(value, ml_collections.ConfigDict):
            config[name] = _completed(config[name].to_dict(), value)
    return config


def is_field(name: str) -> bool:
    """Returns whether there is a field `name`; names of methods in `compare.methods` are the user's."""
    return name in FIELDS or name.startswith("compare.methods.")


def check_field(name: str) -> None:
    """Raises InputError, with the nearest names, unless there is a field `name`."""
    if name not in FIELDS:
        section = name.rpartition(".")[0]
        siblings = [field for field in FIELDS if field.startswith(f"{section}.")]
        top = dict.fromkeys(field.partition(".")[0] for field in FIELDS)
        raise InputError(f"{unknown_field(name)}; known: {', '.join(siblings or top)}")


def unknown_field(name: str) -> str:
    """Returns the message about a field that does not exist, with the three that are most like it."""
    if name in RENAMED:
        return f"unknown config field {name!r}: it is {RENAMED[name]} now"
    return f"unknown config field {name!r}; nearest: {', '.join(_nearest(name, FIELDS)) or 'none'}"


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    section, _, last = name.rpartition(".")
    by_last: dict[str, list[str]] = {}
    for field in known:
        by_last.setdefault(field.rpartition(".")[2], []).append(field)
    initials = [
        field
        for field in known
        if "".join(word[:1] for word in field.rpartition(".")[2].split("_")) == last
    ]
    near = (
        [field for field in initials if field.startswith(f"{section}.")]
        or nearest(name, known)
        or [f for match in nearest(last, by_last) for f in by_last[match]]
    )
    return near[:3]


def set_field(config: ml_collections.ConfigDict, assignment: str, prefix: str = "") -> None:
    """Sets one field of `config` from text such as `optim.learning_rate=0.1`, keeping its type.

    Args:
        config: with all fields.
        assignment: FIELD=VALUE.
        prefix: what the user typed before it, for messages.

    Raises:
        InputError: if there is no such field, or the text is of another type.
    """
    name, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"{assignment!r}: expected FIELD=VALUE, such as optim.learning_rate=0.1")
    if name.startswith("compare.methods.") and name in flat(config):
        field = Field(name, (), "", element=str)
    else:
        check_field(name)
        field = FIELDS[name]
    try:
        value = field.parse(text)
    except ValueError as error:
        raise InputError(f"{prefix}{assignment}: expected {field.expected}") from error
    config.update_from_flattened_dict({name: value})


def set_value(config: ml_collections.ConfigDict, name: str, value: object) -> None:
    """Sets one field of `config`.

    Raises:
        InputError: if there is no such field, or the value is of another type.
    """
    check_field(name)
    problem = FIELDS[name].type_problem(value)
    if problem:
        raise InputError(problem)
    if FIELDS[name].kind is float:
        value = float(value)  # type: ignore[arg-type]
    config.update_from_flattened_dict({name: value})


@contextlib.contextmanager
def naming_fields(
    config: ml_collections.ConfigDict, *names: str, **arguments: str
) -> Iterator[None]:
    """Makes InputErrors raised inside name fields of the config instead of arguments of a function.

    With `naming_fields(config, "optim.momentum")`, "momentum is 2, expected ..." becomes "optim.momentum is 2,
    expected ..."; a message that names no field begins with these and their values.

    Args:
        config: of the run.
        *names: dotted fields, whose arguments are called as their last part.
        **arguments: more arguments, and the field of each.
    """
    try:
        yield
    except InputError as error:
        fields = {name.rpartition(".")[2]: name for name in names} | arguments
        text = str(error)
        for argument, name in fields.items():
            text = re.sub(rf"(?<![\w.]){argument}(?= is |=)", name, text)
        if not any(name in text for name in fields.values()):
            values = flat(config)
            text = f"{', '.join(f'{name}={values[name]!r}' for name in names)}: {text}"
        raise InputError(text) from error
