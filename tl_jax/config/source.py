"""Where a config file assigns its fields: read from the source, so that messages can name lines."""

import ast
import dataclasses
import pathlib
import traceback
from typing import Any

UNKNOWN = object()  # The value of an assignment that is not a literal.


@dataclasses.dataclass(frozen=True)
class Assignment:
    """One assignment to a field of a config, such as `config.optim.learning_rate = 0.1`.

    Attributes:
        name: of the field, dotted, without the name of the variable.
        line: in the file, from 1.
        value: the literal, or `UNKNOWN`.
    """

    name: str
    line: int
    value: Any


def assignments(path: pathlib.Path) -> list[Assignment]:
    """Returns the assignments to fields of the config that a file makes, in the order of its lines.

    The config is the variable `config`, and whatever is assigned from a call of `default_config` or `get_config`.

    Raises:
        SyntaxError: if the file is no Python, or its text is not in the encoding that it names.
    """
    tree = _parsed(path)
    variables = {"config"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _makes_config(node.value):
            variables |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    rows = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        else:
            continue
        plain = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        for target in targets:
            variable, *parts = _chain(target) or [""]
            if variable in variables and parts:
                rows.append(Assignment(".".join(parts), target.lineno, _literal(plain)))
    return sorted(rows, key=lambda row: row.line)


def line_of(error: BaseException, path: pathlib.Path) -> int | None:
    """Returns the last line of the file `path` that was running when `error` was raised, or None."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return lines[-1] if lines else None


def line_of_function(path: pathlib.Path, name: str) -> int | None:
    """Returns the line on which a function of the file begins, or None if there is none."""
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node.lineno
    return None


def _parsed(path: pathlib.Path) -> ast.Module:
    # As bytes, so that Python finds the encoding: a byte order mark or a line that names it.
    try:
        return ast.parse(path.read_bytes(), str(path))
    except ValueError as error:  # of a null byte, in some versions of Python
        raise SyntaxError(str(error), (str(path), None, None, None)) from error


def _makes_config(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name.endswith(("default_config", "get_config"))


def _chain(node: ast.expr) -> list[str] | None:
    """Returns the names of `a.b.c` or `a["b"]["c"]`; None for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        below, last = _chain(node.value), node.attr
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        below, last = _chain(node.value), str(node.slice.value)
    else:
        return None
    return None if below is None else [*below, last]


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        return UNKNOWN
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNKNOWN
