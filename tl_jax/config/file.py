"""Reading a config file, which may lie anywhere: every field that it sets must exist and have its type."""

import os
import pathlib
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from tl_jax.config import source
from tl_jax.config.access import completed, default_config, flat, set_field, unknown_field
from tl_jax.config.check import lacking
from tl_jax.config.phases import phase_problems
from tl_jax.config.table import COMMAND_SECTIONS, FIELDS, SECTIONS
from tl_jax.errors import InputError, unknown

_METHODS = "compare.methods"  # whose names are the user's


def load(path: str | os.PathLike[str]) -> ml_collections.ConfigDict:
    """Returns `get_config()` of a config file, every field of which exists and has its type.

    Args:
        path: of the file; `~` is the home folder.

    Raises:
        InputError: if there is no such file, it does not run, or it sets what does not exist; lists all
            of it, with the lines.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        known = [str(p) for p in pathlib.Path("configs").glob("*.py") if p.stem != "__init__"]
        raise unknown("config file", str(path), known)
    assigned: list[source.Assignment] = []
    try:
        assigned = source.assignments(path)
        namespace = runpy.run_path(str(path))
        if "get_config" not in namespace:
            raise InputError(f"config file {path} defines no get_config()")
        config = namespace["get_config"]()
    except InputError:
        raise
    except Exception as error:
        raise _cannot_run(path, assigned, error) from error
    if not isinstance(config, ml_collections.ConfigDict):
        line = source.line_of_function(path, "get_config")
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
    return completed(config.to_dict())


def _cannot_run(
    path: pathlib.Path, assigned: list[source.Assignment], error: Exception
) -> InputError:
    """Returns the message about a config file that raises, with all else that its source shows."""
    line = source.line_of(error, path)
    if isinstance(error, SyntaxError):
        return _all_problems(path, [(line, f"SyntaxError: {error.msg}")])
    problems: list[tuple[int | None, str]] = [
        (row.line, problem) for row in assigned if (problem := _problem_of_assignment(row))
    ]
    if line not in [found for found, _ in problems]:
        # ml_collections explains over several lines, the first of which says what is wrong.
        text = str(error).strip().splitlines()[0] if str(error).strip() else ""
        problems.append((line, f"{type(error).__name__}: {text}"))
    return _all_problems(path, problems)


def _problem_of_assignment(row: source.Assignment) -> str | None:
    if row.name in FIELDS:
        return None if row.value is source.UNKNOWN else FIELDS[row.name].type_problem(row.value)
    if row.name in SECTIONS or row.name.startswith(f"{_METHODS}."):
        return None
    return unknown_field(row.name)


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


def _problems(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Returns {field: what is wrong with it} of what a config file made."""
    given = flat(config)
    problems: dict[str, str] = {}
    for name, value in given.items():
        if name.startswith(f"{_METHODS}."):
            problem = _method_problem(value)
            if problem:
                problems[name] = f"{name}: {problem}"
        elif name not in FIELDS:
            problems[name] = unknown_field(name)
        elif problem := FIELDS[name].type_problem(value):
            problems[name] = problem
        elif name == "phases" and (lines := phase_problems(value)):
            problems[name] = "; ".join(lines)
    missing = [
        name
        for name, field in FIELDS.items()
        if name not in given
        and field.kind is not dict
        and field.section not in COMMAND_SECTIONS  # which a file may replace as a whole
        and not any(name.startswith(f"{found}.") for found in problems)
    ]
    if missing:
        problems[""] = lacking(missing)
    return problems


def _method_problem(assignments: Any) -> str | None:
    if not isinstance(assignments, tuple | list):
        return (
            f"{assignments!r}: expected a tuple of assignments, such as "
            '("optim.learning_rate=0.1",) with its comma'
        )
    plain, lines = default_config(), []
    for assignment in assignments:
        if not isinstance(assignment, str):
            lines.append(f"{assignment!r}: expected text such as 'optim.learning_rate=0.1'")
            continue
        try:
            set_field(plain, assignment)
        except InputError as error:
            lines.append(str(error).partition("; known:")[0])
    return "; ".join(lines) or None
