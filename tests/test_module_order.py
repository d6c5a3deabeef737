"""Imports between our modules only point upwards in the list of the style guide."""

import ast
import pathlib

import pytest

_REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
_ORDER = (
    "errors",
    "console",
    "files",
    "trees",
    "flops",
    "compiler_options",
    "compilation",
    "profiling",
    "statistics",
    "parallel",
    "data",
    "models",
    "augment",
    "porting",
    "freezing",
    "optim",
    "objectives",
    "features",
    "training",
    "checkpointing",
    "reporting",
    "protocols",
    "config",
    "runs",
    "strategies",
    "advice",
    "ablation",
)
# Variables that change the numbers of a compiled program are part of a key.
_ENVIRONMENT = ["os.environ"]
# The key of activations; which GPU a launcher has.
_USERS_OF_ENVIRONMENT = ("activation_banks.py", "gpus.py")
_READS_CONFIGS = ("", "config", "protocols", "runs", "strategies", "advice", "ablation")
_SOLE_USERS = {"flax": "models", "orbax": "checkpointing"}


def _files(folder: str) -> list[pathlib.Path]:
    return sorted((_REPOSITORY / folder).rglob("*.py"))


def _name(path: pathlib.Path) -> str:
    return path.relative_to(_REPOSITORY).as_posix()


def _module(path: pathlib.Path) -> str:
    """Returns the listed module in which a file of the library lies; "" for tl_jax/__init__.py."""
    parts = path.relative_to(_REPOSITORY / "tl_jax").with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imported(path: pathlib.Path, repository: pathlib.Path = _REPOSITORY) -> set[str]:
    """Returns the dotted names that a file imports, anywhere in it; relative ones made absolute."""
    package = path.relative_to(repository).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*base, *filter(None, [node.module])))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def _inner(path: pathlib.Path) -> set[str]:
    """Returns the modules of our list that a file imports."""
    parts = [name.split(".") for name in imported(path)]
    listed = {part[1] for part in parts if part[0] == "tl_jax" and len(part) > 1}
    return {name for name in listed if not name.startswith("__")}


def _outer(path: pathlib.Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", _files("tl_jax"), ids=_name)
def test_library_imports_point_upwards(path):
    module, found = _module(path), _inner(path)
    if not module:
        now = {
            node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert now == {"importlib", "typing"}, "tl_jax/__init__.py imports when first asked"
        return
    assert module in _ORDER, f"{module} is not in the module list of the style guide"
    later = {name for name in found if name != module and _index(name) >= _index(module)}
    assert not later, f"{module} may only import what comes before it in {_ORDER}"


def _index(module: str) -> int:
    return _ORDER.index(module) if module in _ORDER else len(_ORDER)


@pytest.mark.parametrize("path", _files("tl_jax"), ids=_name)
def test_library_imports_neither_experiments_nor_configs(path):
    reads_configs = _module(path) in _READS_CONFIGS
    forbidden = {"experiments", "configs", "tests"} | (
        set() if reads_configs else {"ml_collections"}
    )
    assert not _outer(path) & forbidden


@pytest.mark.parametrize("path", _files("tl_jax"), ids=_name)
def test_library_reads_neither_flags_nor_environment(path):
    allowed = _ENVIRONMENT if path.name in _USERS_OF_ENVIRONMENT else []
    assert read_from_outside(path.read_text(encoding="utf-8")) == allowed


def read_from_outside(code: str) -> list[str]:
    """Returns the environment variables, and the absl flags, that code reads or defines.

    `FLAGS.is_parsed` passes: it asks for a precondition of Grain and reads no flag.
    """
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            owner = getattr(node.value, "attr", getattr(node.value, "id", ""))
            reads_flag = owner == "FLAGS" and node.attr != "is_parsed"
            defines_flag = node.attr.startswith("DEFINE_")
            if node.attr in ("environ", "getenv") or reads_flag or defines_flag:
                found.append(f"{owner}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "absl.flags"):
            forbidden = ("environ", "getenv", "FLAGS")
            found += [alias.name for alias in node.names if alias.name in forbidden]
    return found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import os; os.environ['A']", ["os.environ"]),
        ("from os import getenv", ["getenv"]),
        ("from absl import flags; flags.FLAGS.workdir", ["FLAGS.workdir"]),
        ("from absl import flags; flags.DEFINE_string('a', '', '')", ["flags.DEFINE_string"]),
        ("from absl import flags; flags.FLAGS.is_parsed()", []),
        ("import os; os.fspath('a')", []),
    ],
)
def test_reading_from_outside_is_found(code, found):
    assert read_from_outside(code) == found


@pytest.mark.parametrize("path", _files("tl_jax"), ids=_name)
def test_flax_and_orbax_are_known_in_one_place(path):
    for package, owner in _SOLE_USERS.items():
        assert package not in _outer(path) or _module(path) == owner


@pytest.mark.parametrize("path", _files("experiments"), ids=_name)
def test_experiments_know_neither_flax_nor_orbax(path):
    assert not _outer(path) & _SOLE_USERS.keys()


@pytest.mark.parametrize("path", _files("configs"), ids=_name)
def test_configs_import_the_library_alone(path):
    assert _outer(path) <= {"tl_jax", "pathlib"}


def test_imports_are_found_in_every_form(tmp_path):
    path = tmp_path / "tl_jax" / "data" / "sample.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import jax.numpy as jnp\n"
        "from tl_jax import freezing as later\n"
        "from . import order\n"
        "from ..trees import flatten\n"
        "def late():\n"
        "    import tl_jax.optim\n"
    )
    assert imported(path, tmp_path) == {
        "jax.numpy",
        "tl_jax.freezing",
        "tl_jax.data.order",
        "tl_jax.trees.flatten",
        "tl_jax.optim",
    }
