"""Fields of a config by their dotted names: looking them up, setting them, naming the nearest one."""

import ast
import itertools
import pathlib
import runpy

import ml_collections

from tl_jax.errors import InputError, nearest, unknown


def field_names(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the dotted names of all fields that hold a value, such as `optim.learning_rate`."""
    names = []
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            names += [f"{name}.{inner}" for inner in field_names(value)]
        else:
            names.append(name)
    return names


def load(path: pathlib.Path) -> ml_collections.ConfigDict:
    """Returns `get_config()` of a config file.

    Raises:
        InputError: if there is no such file, or it defines no config.
    """
    if not path.is_file():
        known = [str(p) for p in pathlib.Path("configs").glob("*.py") if p.stem != "__init__"]
        raise unknown("config file", str(path), known)
    try:
        namespace = runpy.run_path(str(path))
    except SyntaxError as error:
        raise InputError(f"config file {path}: {error}") from error
    if "get_config" not in namespace:
        raise InputError(f"config file {path} defines no get_config()")
    return namespace["get_config"]()


def completed(fields: dict, defaults: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a config of `fields`, those it lacks taken from `defaults`: it may be of an older version."""
    config = ml_collections.ConfigDict(fields)
    for name, value in defaults.items():
        if name not in config:
            config[name] = value
        elif isinstance(value, ml_collections.ConfigDict):
            config[name] = completed(config[name].to_dict(), value)
    return config


def check_arguments(argv: list[str]) -> None:
    """Looks at `--config` and every `--config.FIELD` before absl does, which names no nearest choice.

    Raises:
        InputError: if the config file or a field is unknown.
    """
    given = [argument.lstrip("-") for argument in argv[1:] if argument.startswith("-")]
    files = [text.removeprefix("config=") for text in given if text.startswith("config=")]
    pairs = itertools.pairwise(argv[1:])
    files += [value for flag, value in pairs if flag in ("--config", "-config")]
    if not files:
        return
    config = load(pathlib.Path(files[-1]))
    for text in given:
        name = text.partition("=")[0]
        if name.startswith("config."):
            check_field(config, name.removeprefix("config."))


def check_field(config: ml_collections.ConfigDict, name: str) -> None:
    """Raises InputError, with the nearest names, unless `name` is a field of `config`."""
    known = field_names(config)
    if name in known:
        return
    section, _, last = name.rpartition(".")
    by_last: dict[str, list[str]] = {}
    for field in known:
        by_last.setdefault(field.rpartition(".")[2], []).append(field)
    initials = [
        field
        for field in known
        if "".join(word[0] for word in field.rpartition(".")[2].split("_")) == last
    ]
    near = (
        [field for field in initials if field.startswith(f"{section}.")]
        or nearest(name, known)
        or [f for match in nearest(last, by_last) for f in by_last[match]]
    )
    siblings = [field for field in known if field.startswith(f"{section}.")] or list(config)
    raise InputError(
        f"unknown config field {name!r}; nearest: {', '.join(near[:3]) or 'none'}; "
        f"known: {', '.join(siblings)}"
    )


def set_field(config: ml_collections.ConfigDict, assignment: str) -> None:
    """Sets one field of `config` from text such as `optim.learning_rate=0.1`, keeping its type.

    Raises:
        InputError: if there is no such field, or the text is of another type.
    """
    name, _, text = assignment.partition("=")
    check_field(config, name)
    current = config
    for part in name.split("."):
        current = current[part]
    try:
        value = _parsed(text, current)
    except (ValueError, SyntaxError) as error:
        raise InputError(f"{name}={text!r}: expected {type(current).__name__}") from error
    config.update_from_flattened_dict({name: value})


def _parsed(text: str, current: object) -> object:
    if isinstance(current, str):
        return text
    value = ast.literal_eval(text)
    if isinstance(current, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(current):
        raise ValueError(text)
    return value
