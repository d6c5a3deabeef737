"""`import tl_jax` costs nothing, and what the package has is there when first used."""

import pathlib
import subprocess
import sys

import pytest

import tl_jax

FOLDER = pathlib.Path(tl_jax.__file__).parent
PARTS = sorted(
    path.stem
    for path in FOLDER.iterdir()
    if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()
)


def run(code: str) -> str:
    """Returns what a new process prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_else():
    """But two modules of Python's own, small ones."""
    code = """
import importlib, sys, typing
before = set(sys.modules)
import tl_jax
print(sorted(set(sys.modules) - before))
"""
    assert run(code) == "['tl_jax']"


@pytest.mark.parametrize("module", ["runs.training", "reporting.report"])
def test_a_run_with_its_report_needs_no_scikit_learn(module):
    """It takes a second or two to import."""
    code = f"import sys, tl_jax.{module}; print('sklearn' in sys.modules)"
    assert run(code) == "False"


@pytest.mark.parametrize("name", ["trees", "models", "runs"])
def test_a_part_is_there_right_after_the_import(name):
    """In a process of its own: here another test may have imported it."""
    code = f"import tl_jax; print(tl_jax.{name}.__name__, tl_jax.{name} is tl_jax.{name})"
    assert run(code) == f"tl_jax.{name} True"


def test_all_parts_are_listed_and_there():
    assert set(PARTS) | set(tl_jax.__all__) <= set(dir(tl_jax))
    for name in PARTS:
        assert getattr(tl_jax, name).__name__ == f"tl_jax.{name}"
    for name in tl_jax.__all__:
        assert getattr(tl_jax, name).__module__


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match="module 'tl_jax' has no attribute 'modls'"):
        tl_jax.modls  # noqa: B018
    assert not hasattr(tl_jax, "weights")  # a folder of files, no part
