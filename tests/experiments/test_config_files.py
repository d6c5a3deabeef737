"""Config files of users: what they set must exist; all problems are listed at once, each with its line."""

import textwrap

import pytest
from running import tree_of

from tl_jax.config import default_config
from tl_jax.config import load as load_config
from tl_jax.errors import InputError

HEAD = """\
import pathlib
import ml_collections, tl_jax
def get_config():
    config = tl_jax.load_config(pathlib.Path("configs/quickstart.py"))
"""
FILES = {
    "a field that does not exist": (
        "config.optim.lr = 0.1",
        ", line 5: unknown config field 'optim.lr'; nearest: optim.learning_rate",
    ),
    "by subscript": (
        'config["augment"]["mixup"] = 0.2',
        ", line 5: unknown config field 'augment.mixup'; nearest: augment.",
    ),
    "a section that does not exist": (
        "config.early_stopping = ml_collections.ConfigDict({'patience': 3})",
        ", line 5: unknown config field 'early_stopping.patience'; nearest: ",
    ),
    "by update": (
        "with config.unlocked(), config.optim.unlocked():\n    config.optim.update({'lr': 0.1})",
        ": unknown config field 'optim.lr'; nearest: optim.learning_rate",
    ),
    "text for an integer": (
        "config.train.steps = 'many'",
        ", line 5: train.steps='many': expected an integer",
    ),
    "text for a tuple": (
        "config.freeze.patterns = 'stem/.*'",
        ", line 5: freeze.patterns='stem/.*': expected a tuple of texts, such as (\"text\",)",
    ),
    "texts for integers": (
        "config.optim.step_steps = ('ten', 20)",
        ", line 5: optim.step_steps=('ten', 20): expected a tuple of integers",
    ),
    "an integer for true or false": (
        "config.report.html = 2",
        ", line 5: report.html=2: expected true or false",
    ),
    "a field of compare": (
        "config.compare.sedes = (1,)",
        ", line 5: unknown config field 'compare.sedes'; nearest: compare.seeds",
    ),
    "an assignment of a method": (
        'config.compare.methods.mine = ("optim.lr=1", "train.steps=x", "seed")',
        ", line 5: compare.methods.mine: unknown config field 'optim.lr'; nearest: optim.learning_rate",
    ),
    "a method without its comma": (
        'config.compare.methods.mine = ("init.weights=")',
        ", line 5: compare.methods.mine: 'init.weights=': expected a tuple of assignments",
    ),
    "an error of its own": ("config.seed = 1 // 0", ", line 5: ZeroDivisionError: "),
    "a name that does not exist": ("confg.seed = 1", ", line 5: NameError: name 'confg'"),
    "a syntax error": ("config.seed =", ", line 5: SyntaxError: invalid syntax"),
    "nothing returned": (
        "return None",
        ", line 3: get_config() returned None, expected an ml_collections.ConfigDict; it has no `return",
    ),
    "a dict": ("return {'seed': 1}", ", line 3: get_config() returned dict, expected an ml_coll"),
    "no fields": (
        "config = ml_collections.ConfigDict()",
        ": the config lacks seed, phases, model.name, ",
    ),
    "a phase that sets what is of the whole run": (
        'config.phases = (("seed=1",), ("optim.lr=1",))',
        ", line 5: phase 1: seed=1: seed is of the whole run; a phase may set fields of freeze, optim, train, cache, "
        "augment, objective, average; phase 2: unknown config field 'optim.lr'",
    ),
    "phases that are no tuples": (
        'config.phases = ("train.steps=1",)',
        ", line 5: phases=('train.steps=1',): expected a tuple of tuples of assignments",
    ),
}


def written(folder, lines, head=HEAD):
    path = folder / "mine.py"
    path.write_text(f"{head}{textwrap.indent(lines, '    ')}\n    return config\n")
    return path


@pytest.mark.parametrize(("lines", "expected"), FILES.values(), ids=FILES)
def test_a_file_that_is_wrong(tmp_path, lines, expected):
    path = written(tmp_path, lines)
    with pytest.raises(InputError) as raised:
        load_config(path)
    assert str(raised.value).startswith(f"config file {path}{expected}")


@pytest.mark.parametrize(
    ("first", "encoding"),
    [("", "utf-8-sig"), ("# coding: latin-1\n", "latin-1")],
    ids=["byte order mark", "a line that names the encoding"],
)
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("config.train.steps = 7  # ä", None),
        ("config.optim.lr = 0.1  # ä", "unknown config field 'optim.lr'"),
        ("return None  # ä", "get_config() returned None"),
        ("config.seed = 1 // 0  # ä", "ZeroDivisionError"),
    ],
)
def test_files_in_other_encodings(tmp_path, first, encoding, lines, expected):
    path = written(tmp_path, lines, first + HEAD)
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    if expected is None:
        assert load_config(path).train.steps == load_config(str(path)).train.steps == 7
        return
    with pytest.raises(InputError) as raised:
        load_config(path)
    line = first.count("\n") + (3 if "returned" in expected else 5)
    assert str(raised.value).startswith(f"config file {path}, line {line}: {expected}")


@pytest.mark.parametrize(
    "line", [b"x = '\xe4'", b"# coding: no-such", b"# \x00"], ids=["bytes", "name", "null"]
)
def test_a_file_that_is_not_in_its_encoding(tmp_path, line):
    path = tmp_path / "mine.py"
    path.write_bytes(line + b"\n" + HEAD.encode() + b"    return config\n")
    with pytest.raises(InputError, match=r"config file .*mine\.py.*: SyntaxError: "):
        load_config(path)


def test_all_problems_of_a_file_are_told_at_once(tmp_path):
    path = written(
        tmp_path,
        "config.optim.lr = 0.1\nconfig.augment.mixup = 0.2\nconfig.early_stopping = True\n"
        "config.train.steps = 'many'\nconfig.train.epochs = 3",
    )
    with pytest.raises(InputError) as raised:
        load_config(path)
    first, *lines = str(raised.value).splitlines()
    assert first == f"config file {path}, 4 problems:"
    assert [line.partition(";")[0] for line in lines] == [
        "line 5: unknown config field 'optim.lr'",
        "line 6: unknown config field 'augment.mixup'",
        "line 7: unknown config field 'early_stopping'",
        "line 8: train.steps='many': expected an integer",
    ]


def test_a_file_outside_of_the_repository(tmp_path):
    """It may import ours, give an integer for a number and a list for a tuple, and have sections of commands."""
    path = written(
        tmp_path,
        "config.optim.learning_rate = 1\nconfig.optim.step_epochs = [1, 2.5]\n"
        "config.probe = ml_collections.ConfigDict({'count': 5, 'least': 1})\n"
        "config.sweep = ml_collections.ConfigDict()\nconfig.sweep.learning_rate = (0.1, 1)\n"
        "config.compare.methods.mine = ('optim.learning_rate=1', 'optim.nesterov=True')",
    )
    config = load_config(path)
    assert (config.optim.learning_rate, config.optim.step_epochs) == (1.0, (1, 2.5))
    assert config.compare.methods.mine == ("optim.learning_rate=1", "optim.nesterov=True")


def test_every_section_of_base_is_locked():
    config = default_config()
    for name in ("optim", "augment", "data"):
        with pytest.raises(AttributeError, match="mixup"):
            config[name].mixup = 1
    config.compare = {}  # sections of commands may be added


@pytest.mark.parametrize(
    ("command", "lines"),
    [("finetune", "config.optim.lr = 0.1"), ("compare", "config.optim.lr = 0.1"),
     ("sweep", "return None"), ("probe", "raise ValueError('no')"), ("evaluate", "config.seed = x")],
)  # fmt: skip
def test_as_a_user_types_it(launcher, tmp_path, command, lines):
    path = written(tmp_path, lines)
    before = tree_of(tmp_path)
    code, out, err = launcher.run(command, f"--config={path}", f"--workdir={tmp_path / 'new'}")
    assert code == 2, (out, err)
    assert err.startswith(f"error: config file {path}, line ") and "Traceback" not in err
    assert tree_of(tmp_path) == before
