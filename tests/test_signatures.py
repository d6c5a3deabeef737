"""No function takes more parameters than can be remembered."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOST = 8
FILES = sorted(
    path for folder in ("tl_jax", "experiments") for path in (ROOT / folder).rglob("*.py")
)
# Functions that may have more, and why.
EXCEPTIONS = {
    "tl_jax/runs/api.py: finetune": "what users bring, each by keyword",
}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Returns the number of parameters of a function, without the object of a method."""
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    more = (given.vararg is not None) + (given.kwarg is not None)
    return len(names) - (names[:1] in (["self"], ["cls"])) + more


def long_functions(text: str) -> list[str]:
    """Returns the names of the functions of a file that have more parameters than `MOST`."""
    functions = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return sorted(function.name for function in functions if parameters(function) > MOST)


def test_functions_have_at_most_eight_parameters():
    """More of them are a dataclass, or two functions."""
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        for name in long_functions(path.read_text())
    }
    assert found == EXCEPTIONS.keys()


@pytest.mark.parametrize(
    ("signature", "long"),
    [
        ("a, b, c, d, e, f, g, h", False),
        ("self, b, c, d, e, f, g, h, i", False),
        ("a, b, c, d, e, f, g, h, i", True),
        ("a, b, /, c, d, *, e, f, g, h, i=1", True),
        ("a, b, c, d, e, f, g, *h, **i", True),
    ],
)
def test_all_kinds_of_parameters_count(signature, long):
    assert long_functions(f"def function({signature}): ...") == (["function"] if long else [])
