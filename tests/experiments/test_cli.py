"""What all commands share: --help, and the time of the whole command."""

import pathlib
import time

import pytest

from experiments import (
    ablate,
    compare,
    cross_validate,
    evaluate,
    extend_data,
    features,
    finetune,
    inspect_data,
    predict,
    prepare_data,
    pretrain,
    preview_augment,
    probe,
    profile,
    routes,
    sweep,
)
from experiments.cli import help, runtime
from tl_jax.config import FIELDS

COMMANDS = [
    ablate,
    compare,
    cross_validate,
    evaluate,
    extend_data,
    features,
    finetune,
    inspect_data,
    predict,
    prepare_data,
    pretrain,
    preview_augment,
    probe,
    profile,
]
COMMANDS += [routes, sweep]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_help_says_what_a_newcomer_needs(command):
    text = help.help_text(command.main)
    lines = text.splitlines()
    name = command.__name__.rpartition(".")[2]
    assert lines[0].startswith(f"experiments.{name}: ") and len(lines) <= 13
    assert max(map(len, lines)) <= 118
    assert "Exit codes: 0 done; 2 " in text and "--helpfull" in text
    if command not in (ablate, inspect_data, prepare_data, predict, extend_data):
        assert "--config=FILE" in text and "--workdir=DIR" in text and "--list_fields" in text
        assert text.count("--config.") >= 3


def test_help_names_strategies_and_protocols_where_they_are():
    for command in (finetune, pretrain, sweep):
        text = help.help_text(command.main)
        source = pathlib.Path(command.__file__).read_text()
        for flag in ("strategy", "protocol"):
            assert (f"--{flag}=" in text) == (f"define_{flag}_flag" in source)


def test_the_fields_that_help_names_exist():
    for rows in (*help._HELP_FIELDS.values(), help._FINETUNE_FIELDS):
        assert {field.partition("=")[0] for field, _ in rows} <= FIELDS.keys()


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_exits_with_0(launcher, flag):
    code, out, err = launcher.run("finetune", flag)
    assert (code, err) == (0, "")
    assert out == help.help_text(finetune.main) + "\n"


def test_the_time_of_a_process_counts_from_its_start(monkeypatch):
    seconds = runtime.process_seconds()
    time.sleep(0.1)
    assert 0.09 < runtime.process_seconds() - seconds < 60
    # A container that says nothing of the start: from the import on.
    monkeypatch.setattr(runtime.time, "clock_gettime", lambda clock: 1e9)
    since_import = time.perf_counter() - runtime._IMPORTED
    assert since_import <= runtime.process_seconds() < since_import + 60
