"""Runs that name a protocol: what they say of its terms, in the terminal, in files and in an ablation."""

import json

import pytest
from running import tiny_config

from tl_jax import ablation, protocols
from tl_jax.protocols import Protocol, protocol, terms
from tl_jax.runs import training


@pytest.fixture
def small(monkeypatch):
    """Registers a protocol that a tiny run can keep."""
    monkeypatch.setattr(protocol, "_PROTOCOLS", dict(protocol._PROTOCOLS))
    kept = (
        terms.resolution(8),
        terms.normalisation_of_weights(),
        terms.length(6),
        terms.selected_by("validation"),
        terms.trials(1),
        terms.field("optim.momentum", 0.9),
    )
    protocols.register(Protocol("small", "A tiny run.", "Nobody 2026.", kept, unchecked=("Luck.",)))


def config_of(**fields):
    given = {
        "init__weights": "resnet20_cifar.tin32",
        "model__name": "resnet20_cifar",
        "data__image_size": 8,
        "data__validation_fraction": 0.2,
        "train__steps": 6,
        "report__protocol": "small",
        "report__html": True,
    }
    return tiny_config(**(given | fields))


def test_a_run_that_keeps_its_terms(small, tmp_path, capsys):
    result = training.run(config_of(), tmp_path / "run")
    assert result["protocol"] == {
        "name": "small",
        "source": "Nobody 2026.",
        "conforms": True,
        "deviations": [],
        "unchecked": ["Luck."],
        "claims": [],
    }
    assert "protocol small: conforms\n" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Protocol small:</strong> conforms." in page and "Not compared: Luck." in page


def test_a_run_with_three_planted_deviations_lists_them(small, tmp_path, capsys):
    given = config_of(
        data__image_size=16,
        preprocess__resize=16,
        preprocess__mean=(0.5, 0.5, 0.5),
        data__validation_fraction=0.0,
    )
    result = training.run(given, tmp_path / "run")
    assert [row["term"] for row in result["protocol"]["deviations"]] == [
        "resolution",
        "normalisation",
        "selection",
    ]
    shown = [line for line in capsys.readouterr().out.splitlines() if "protocol" in line]
    assert shown == [
        "protocol small: resolution: expected 8 pixels, found 16",
        "protocol small: normalisation: expected that of the weights, found mean [0.5, 0.5, 0.5]",
        "protocol small: selection: expected images held out of train, found nothing held out",
    ]
    assert "3 deviations." in (tmp_path / "run" / "report.html").read_text()


def test_the_length_is_that_of_the_last_phase(small, tmp_path):
    phases = (
        ("freeze.strategy=backbone", "train.steps=2", "optim.momentum=0.5"),
        ("train.steps=6",),
    )
    assert training.run(config_of(phases=phases), tmp_path / "run")["protocol"]["conforms"]


def test_an_ablation_counts_its_trials(small, tmp_path):
    tune = {"optim.learning_rate": (0.01, 0.02)}
    made = ablation.Spec(
        config_of(),
        {"kept": (), "other": ("optim.momentum=0.5",)},
        (0,),
        tune=tune,
    )
    ablation.run(made, tmp_path / "run")
    text = (tmp_path / "run" / "ablation.md").read_text()
    table = text.partition("## Protocol")[2]
    assert "small: Nobody 2026." in table
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        ["kept", "number of trials", "1", "2"],
        ["other", "optim.momentum", "0.9", "0.5"],
        ["other", "number of trials", "1", "2"],
    ]
    cells = list((tmp_path / "run").glob("cells/*/*/*/*/sealed.json"))
    assert len(cells) == 4
    assert all(json.loads(cell.read_text())["protocol"]["name"] == "small" for cell in cells)


def test_a_run_without_a_protocol_says_nothing_of_one(tmp_path, capsys):
    result = training.run(config_of(report__protocol=""), tmp_path / "run")
    assert "protocol" not in result and "protocol small" not in capsys.readouterr().out


def test_a_finished_run_says_that_another_protocol_is_of_new_runs(small, tmp_path, capsys):
    training.run(config_of(), tmp_path / "run")
    capsys.readouterr()
    training.run(config_of(report__protocol="vtab_1k"), tmp_path / "run")
    assert "report.protocol=vtab_1k applies to new runs only" in capsys.readouterr().out
