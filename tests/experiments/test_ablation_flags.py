"""What the flags of an ablation hand to the library."""

import pathlib

import pytest
from absl.testing import flagsaver

from experiments import (
    cli,
    compare,  # noqa: F401  defines the flags
)
from experiments.cli import ablations, arguments
from tl_jax import ablation


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Returns what the library is given for flags: of `ablate`, `run` and `look_ahead`."""

    def parsed(*argv):
        seen, checked = {}, []
        monkeypatch.setattr(ablation, "check_launchers", lambda *given: checked.append(given))
        for name in ("ablate", "run", "look_ahead"):

            def take(*args, _name=name, **options):
                seen[_name] = (args, options)
                return ablation.Outlook([{"cells": 1}], [{"cells": 1}])

            monkeypatch.setattr(ablation, name, take)
        with flagsaver.flagsaver():
            arguments.parse(["compare", f"--workdir={tmp_path}", *argv], positional=True)
            cli.ablate(lambda: "a spec")
        assert len(checked) == 1  # also of a plan
        return seen

    return parsed


def test_a_run(given, tmp_path):
    flags = (
        "--executor=slurm",
        "--workers=3",
        "--resources=gpus_per_node=1,slurm_partition=gpu",
        "--amend=why",
    )
    assert given(*flags) == {
        "ablate": (
            ("a spec", tmp_path),
            {
                "executor": "slurm",
                "workers": 3,
                "resources": {"gpus_per_node": 1, "slurm_partition": "gpu"},
                "amend": "why",
                "stop_requested": ablations.runtime.stop_requested,
                "progress": True,
            },
        )
    }


def test_nothing_said(given, tmp_path):
    [(args, options)] = given().values()
    assert args == ("a spec", tmp_path)
    assert (options["executor"], options["workers"], options["resources"]) == ("here", 2, {})


def test_a_plan_and_a_look(given, tmp_path):
    found = given("--dry_run", "--amend=why")
    assert found == {"look_ahead": (("a spec", tmp_path, "why"), {})}
    assert given("--peek=validation") == {"run": (("a spec", tmp_path), {"peek": True})}


def test_a_plan_needs_no_folder(monkeypatch, given):
    monkeypatch.setattr(arguments, "workdir", lambda: pathlib.Path("never"))
    found = given("--dry_run", "--workdir=")
    assert {args[1] for args, _ in found.values()} == {None}
