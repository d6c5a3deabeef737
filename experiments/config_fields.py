"""Fields of a config by their dotted names: reading config files, checking names and types, setting them."""

import ast
import contextlib
import itertools
import json
import math
import pathlib
import re
import runpy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from configs import base
from experiments import config_lines
from tl_jax.errors import InputError, nearest, unknown
from tl_jax.run_folder import Identity

# Fields of one command alone; a config file may have these sections, base has not.
COMMAND_SECTIONS: dict[str, dict[str, Any]] = {
    "compare": {"seeds": (), "baseline": "", "methods": {}},
    "sweep": {
        "learning_rate": (),
        "weight_decay": (),
        "label_smoothing": (),
        "l2_sp": (),
        "seed": (),
        "patience": 0,
        "width": 0,
        "test": "",
    },
    "probe": {"least": 0.0, "most": 0.0, "count": 0, "max_evaluations": 0, "tolerance": 0.0},
}
# What the elements of a tuple are; of other tuples nothing is required.
ELEMENTS = {
    "preprocess.mean": float,
    "preprocess.std": float,
    "freeze.patterns": str,
    "optim.step_epochs": float,
    "optim.step_steps": int,
    "optim.lr_multipliers": str,
    "compare.seeds": int,
    "sweep.learning_rate": float,
    "sweep.weight_decay": float,
    "sweep.label_smoothing": float,
    "sweep.l2_sp": float,
    "sweep.seed": int,
}
# The one list of fields that cannot change a number of the result: where or how fast it is computed,
# what is written and when. Changing them resumes the same run. "report.*" is a section.
WITHOUT_EFFECT = (
    "cache.dir",
    "cache.storage",
    "cache.verify",
    "data.cache_dir",
    "data.eval_batch_size",
    "data.placement",
    "data.workers",
    "report.*",
    "train.checkpoint_every_seconds",
    "train.checkpoint_every_steps",
    "train.log_every_steps",
    "train.updates_per_dispatch",
)
# With these the first updates of a longer run are the updates of a shorter one.
EXTENDABLE_SCHEDULES = ("constant", "step")

_KINDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    tuple: "a tuple",
}
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")


def field_names(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the dotted names of all fields that hold a value, such as `optim.learning_rate`."""
    return list(flat(config))


def flat(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns {dotted name: value} of all fields that hold a value."""
    fields = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict | dict):
            fields |= {f"{name}.{inner}": held for inner, held in flat(value).items()}
        else:
            fields[name] = value
    return fields


def load(path: pathlib.Path) -> ml_collections.ConfigDict:
    """Returns `get_config()` of a config file, every field of which exists and has its type.

    Raises:
        InputError: if there is no such file, it does not run, or it sets what does not exist; lists all
            of it, with the lines.
    """
    if not path.is_file():
        known = [str(p) for p in pathlib.Path("configs").glob("*.py") if p.stem != "__init__"]
        raise unknown("config file", str(path), known)
    assigned: list[config_lines.Assignment] = []
    try:
        assigned = config_lines.assignments(path)
        namespace = runpy.run_path(str(path))
        if "get_config" not in namespace:
            raise InputError(f"config file {path} defines no get_config()")
        config = namespace["get_config"]()
    except InputError:
        raise
    except Exception as error:
        raise _cannot_run(path, assigned, error) from error
    if not isinstance(config, ml_collections.ConfigDict):
        line = config_lines.line_of_function(path, "get_config")
        where = f"config file {path}" if line is None else f"config file {path}, line {line}"
        hint = "; it has no `return config`" if config is None else ""
        raise InputError(
            f"{where}: get_config() returned {'None' if config is None else type(config).__name__}, "
            f"expected an ml_collections.ConfigDict{hint}"
        )
    lines = {row.name: row.line for row in assigned}
    problems = [
        (_line_of_field(lines, name), problem) for name, problem in _problems(config).items()
    ]
    if problems:
        raise _all_problems(path, problems)
    return config


def _cannot_run(
    path: pathlib.Path, assigned: list[config_lines.Assignment], error: Exception
) -> InputError:
    """Returns the message about a config file that raises, with all else that its source shows."""
    line = config_lines.line_of(error, path)
    if isinstance(error, SyntaxError):
        return _all_problems(path, [(line, f"SyntaxError: {error.msg}")])
    known = _known(base.get_config())
    problems = [
        (row.line, problem) for row in assigned if (problem := _problem_of_assignment(row, known))
    ]
    if line not in [found for found, _ in problems]:
        # ml_collections explains over several lines, the first of which says what is wrong.
        text = str(error).strip().splitlines()[0] if str(error).strip() else ""
        problems.append((line, f"{type(error).__name__}: {text}"))
    return _all_problems(path, problems)


def _problem_of_assignment(row: config_lines.Assignment, known: dict[str, Any]) -> str | None:
    if row.name in known:
        if row.value is config_lines.UNKNOWN:
            return None
        return type_problem(row.name, row.value, known[row.name])
    is_section = any(name.startswith(f"{row.name}.") for name in known)
    if is_section or row.name.startswith("compare.methods") or row.name in COMMAND_SECTIONS:
        return None
    return _unknown_field(row.name, known)


def _all_problems(path: pathlib.Path, problems: Sequence[tuple[int | None, str]]) -> InputError:
    rows = sorted(problems, key=lambda row: (row[0] is None, row[0] or 0))
    texts = [text if line is None else f"line {line}: {text}" for line, text in rows]
    if len(texts) == 1 and rows[0][0] is not None:
        return InputError(f"config file {path}, {texts[0]}")
    if len(texts) == 1:
        return InputError(f"config file {path}: {texts[0]}")
    return InputError("\n".join([f"config file {path}, {len(texts)} problems:", *texts]))


def _line_of_field(lines: Mapping[str, int], name: str) -> int | None:
    """Returns the line that sets a field, or the nearest section that holds it."""
    while name:
        if name in lines:
            return lines[name]
        name = name.rpartition(".")[0]
    return None


def _known(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns {dotted name: default} of all fields that a config may have."""
    return flat(config) | {
        f"{section}.{name}": value
        for section, fields in COMMAND_SECTIONS.items()
        for name, value in fields.items()
        if value != {}
    }


def _problems(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Returns {field: what is wrong with it} of what a config file made."""
    defaults = base.get_config()
    known, given = _known(defaults), flat(config)
    problems: dict[str, str] = {}
    section = config.get("compare", {})
    methods = section.get("methods", {}) if hasattr(section, "get") else {}
    methods = methods if hasattr(methods, "items") else {}
    for name, value in given.items():
        if name.startswith("compare.methods."):
            continue
        if name not in known:
            problems[name] = _unknown_field(name, known)
        elif problem := type_problem(name, value, known[name]):
            problems[name] = problem
    missing = [
        name
        for name in flat(defaults)
        if name not in given and not any(name.startswith(f"{found}.") for found in problems)
    ]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        problems[""] = (
            f"the config lacks {shown}; get_config() should begin with configs.base.get_config()"
        )
    for method, assignments in methods.items():
        problem = _method_problem(assignments)
        if problem:
            problems[f"compare.methods.{method}"] = f"compare.methods.{method}: {problem}"
    return problems


def _method_problem(assignments: Any) -> str | None:
    if not isinstance(assignments, tuple | list):
        return (
            f"{assignments!r}: expected a tuple of assignments, such as "
            '("optim.learning_rate=0.1",) with its comma'
        )
    plain, lines = base.get_config(), []
    for assignment in assignments:
        if not isinstance(assignment, str):
            lines.append(f"{assignment!r}: expected text such as 'optim.learning_rate=0.1'")
            continue
        try:
            set_field(plain, assignment)
        except InputError as error:
            lines.append(str(error).partition("; known:")[0])
    return "; ".join(lines) or None


def type_problem(name: str, value: object, default: object) -> str | None:
    """Returns what is wrong with the type of a field's value, or None; a float may be given as an integer."""
    kind = type(default)
    if kind is float and type(value) is int:
        return None
    if kind is tuple and isinstance(value, tuple | list):
        element = ELEMENTS.get(name)
        # An empty value on the command line reads as one empty text.
        bad = [
            held
            for held in value
            if element and held != "" and type_problem("", held, element()) is not None
        ]
        return f"{name}={tuple(value)!r}: expected {_expected(name, kind)}" if bad else None
    if type(value) is not kind or (kind is float and not math.isfinite(value)):  # type: ignore[arg-type]
        return f"{name}={value!r}: expected {_expected(name, kind)}"
    return None


def _expected(name: str, kind: type) -> str:
    if kind is tuple and name in ELEMENTS:
        examples = {int: "(1, 2)", float: "(0.1, 0.2)", str: '("text",)'}
        plural = {int: "integers", float: "numbers", str: "texts"}[ELEMENTS[name]]
        return f"a tuple of {plural}, such as {examples[ELEMENTS[name]]}"
    return _KINDS.get(kind, kind.__name__)


def completed(fields: dict, defaults: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a config of `fields`, those it lacks taken from `defaults`: it may be of an older version."""
    config = ml_collections.ConfigDict(fields)
    for name, value in defaults.items():
        if name not in config:
            config[name] = value
        elif isinstance(value, ml_collections.ConfigDict):
            config[name] = completed(config[name].to_dict(), value)
    return config


def identity(config: ml_collections.ConfigDict, section: str = "") -> Identity:
    """Returns what makes a run folder that of `config`; see `run_folder.Identity`.

    Args:
        config: of the run.
        section: the command's own, such as "sweep"; "" for a training run, which may be extended.
    """
    others = tuple(f"{name}.*" for name in COMMAND_SECTIONS if name != section)
    schedule = config.optim.schedule
    reason = ""
    if schedule not in EXTENDABLE_SCHEDULES:
        reason = (
            f"optim.schedule={schedule} depends on the number of updates, so a longer run would have had "
            "other learning rates from the start"
        )
    return Identity(
        defaults=json.loads(base.get_config().to_json()),
        without_effect=(*WITHOUT_EFFECT, *others),
        extendable=() if section else ("train.steps", "train.epochs"),
        not_extendable_because=reason,
    )


@contextlib.contextmanager
def naming(config: ml_collections.ConfigDict, *names: str, **arguments: str) -> Iterator[None]:
    """Makes InputErrors raised inside name fields of the config instead of arguments of a function.

    With `naming(config, "optim.momentum")`, "momentum is 2, expected ..." becomes "optim.momentum is 2,
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


def check_arguments(argv: list[str]) -> None:
    """Looks at `--config` and every `--config.FIELD` before absl does, which names no nearest choice.

    Raises:
        InputError: if the config file or a field is unknown, or a value has another type than its field.
    """
    given = [argument.lstrip("-") for argument in argv[1:] if argument.startswith("-")]
    files = [text.removeprefix("config=") for text in given if text.startswith("config=")]
    pairs = list(itertools.pairwise(argv[1:]))
    files += [value for flag, value in pairs if flag in ("--config", "-config")]
    if not files:
        fields = [text for text in given if text.startswith("config.")]
        if fields:
            raise InputError(
                f"--{fields[0]} without --config: give the config file too, such as "
                "--config=configs/quickstart.py"
            )
        return
    config = load(pathlib.Path(files[-1]))
    for name, text in overrides(argv):
        check_field(config, name)
        # A flag that is true or false takes its value after `=` alone.
        separate = f"config.{name}={text}" not in given
        if text is not None and not (separate and isinstance(flat(config)[name], bool)):
            _parse(config, name, text, f"--config.{name}={text}")


def overrides(argv: list[str]) -> list[tuple[str, str | None]]:
    """Returns (field, text) of every `--config.FIELD=VALUE` or `--config.FIELD VALUE`.

    The text is None where no value follows, which means true for a field that is true or false.
    """
    rows: list[tuple[str, str | None]] = []
    for argument, following in itertools.zip_longest(argv[1:], argv[2:]):
        name = argument.lstrip("-")
        if argument.startswith("-") and name.startswith("config."):
            name, equals, text = name.removeprefix("config.").partition("=")
            is_flag = following is None or re.match("--?[a-z]", following)
            spaced = None if is_flag else following
            rows.append((name, text if equals else spaced))
    return rows


def check_field(config: ml_collections.ConfigDict, name: str) -> None:
    """Raises InputError, with the nearest names, unless `name` is a field of `config`."""
    known = flat(config)
    if name not in known:
        siblings = [field for field in known if field.startswith(f"{name.rpartition('.')[0]}.")]
        raise InputError(
            f"{_unknown_field(name, known)}; known: {', '.join(siblings or list(config))}"
        )


def _unknown_field(name: str, known: Mapping[str, Any]) -> str:
    return f"unknown config field {name!r}; nearest: {', '.join(_nearest(name, known)) or 'none'}"


def _nearest(name: str, known: Mapping[str, Any]) -> list[str]:
    """Returns the fields that look most like `name`, three at most, best first."""
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


def set_field(config: ml_collections.ConfigDict, assignment: str) -> None:
    """Sets one field of `config` from text such as `optim.learning_rate=0.1`, keeping its type.

    Raises:
        InputError: if there is no such field, or the text is of another type.
    """
    name, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"{assignment!r}: expected FIELD=VALUE, such as optim.learning_rate=0.1")
    check_field(config, name)
    value = _parse(config, name, text, f"{name}={text}")
    config.update_from_flattened_dict({name: value})


def _parse(config: ml_collections.ConfigDict, name: str, text: str, given: str) -> object:
    """Returns the value that a text on the command line stands for; the field decides its type."""
    current = flat(config)[name]
    kind = tuple if isinstance(current, list) else type(current)
    try:
        value = _value(text, kind)
    except (ValueError, SyntaxError) as error:
        raise InputError(f"{given}: expected {_expected(name, kind)}") from error
    if type_problem(name, value, kind()):
        raise InputError(f"{given}: expected {_expected(name, kind)}")
    return value


def _value(text: str, kind: type) -> object:
    if kind is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ValueError(text)
        return text.lower() in _TRUE
    if kind is int:
        return int(text, 0) if text.lower().lstrip("+-").startswith(("0x", "0o")) else int(text)
    if kind is float:
        return float(text)
    if kind is tuple:
        return _tuple(text)
    return text


def _tuple(text: str) -> tuple:
    """Returns what absl makes of a text: a literal, or one text that needs no quotes."""
    try:
        value = ast.literal_eval(text)
    except ValueError:
        value = text
    except SyntaxError:
        if "," in text or " " in text:
            raise
        value = text
    return tuple(value) if isinstance(value, tuple | list | set) else (value,)
