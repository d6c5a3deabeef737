"""Runs on stored activations end as runs on images do, find what was stored, and refuse what is not exact."""

import json
import re
import shutil

import numpy as np
import pytest
from running import tiny_config

from tl_jax import checkpointing, features, trees
from tl_jax.errors import InputError
from tl_jax.runs import activation_banks, training

pytestmark = pytest.mark.usefixtures("small_networks")


def config_of(folder, **fields):
    given = {
        "augment__crop_padding": 0,
        "augment__flip": False,
        "freeze__strategy": "backbone",
        "optim__learning_rate": 0.05,
        "cache__boundary": "auto",
        "cache__dir": str(folder / "activations"),
        "data__validation_fraction": 0.1,
        "train__eval_every_steps": 3,
        **fields,
    }
    return tiny_config(**given)


def params_of(run):
    return trees.flatten(checkpointing.restore_params(run / "checkpoints", "latest")["params"])


def largest_difference(run, other):
    given, wanted = params_of(run), params_of(other)
    return max(float(np.abs(given[name] - wanted[name]).max()) for name in wanted)


def states(result):
    return [bank["state"] for bank in result["cache"]["banks"]]


@pytest.mark.parametrize(
    ("strategy", "boundary"), [("backbone", "pool"), ("up_to:stage1", "stage1")]
)
def test_a_run_on_activations_is_the_run_on_images(tmp_path, strategy, boundary):
    stored = config_of(tmp_path, freeze__strategy=strategy, cache__verify=4)
    result = training.run(stored, tmp_path / "stored")
    plain = training.run(
        config_of(tmp_path, freeze__strategy=strategy, cache__boundary=""), tmp_path / "plain"
    )
    assert result["cache"]["boundary"] == boundary and plain["cache"] is None
    assert result["cache"]["verified"]["updates"] == 4
    assert result["cache"]["verified"]["largest_difference"] <= 1e-5
    assert largest_difference(tmp_path / "stored", tmp_path / "plain") <= 1e-5
    for split in ("validation", "test"):
        given, wanted = result["splits"][split], plain["splits"][split]
        assert given["top1_accuracy"] == wanted["top1_accuracy"]
        assert given["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    assert result["frozen"]["changed"] == [] and result["frozen"]["frozen_leaves"] > 0


def test_another_run_finds_them_to_the_same_bits(tmp_path, capsys):
    first = training.run(config_of(tmp_path), tmp_path / "first")
    again = training.run(config_of(tmp_path), tmp_path / "again")
    assert set(states(first)) == {"to be computed"} and set(states(again)) == {"there"}
    assert largest_difference(tmp_path / "first", tmp_path / "again") == 0
    said = capsys.readouterr().out
    assert said.count("computed once, kept in") == 1
    assert said.count("computed once before, kept in") == 1
    other = config_of(
        tmp_path, optim__learning_rate=0.1, objective__label_smoothing=0.1, train__steps=4
    )
    assert set(states(training.run(other, tmp_path / "other"))) == {"there"}


def test_entries_may_be_deleted_while_a_run_starts(tmp_path, monkeypatch):
    training.run(config_of(tmp_path), tmp_path / "first")
    choose = activation_banks._storage

    def delete_and_choose(*arguments):
        shutil.rmtree(tmp_path / "activations")
        return choose(*arguments)

    monkeypatch.setattr(activation_banks, "_storage", delete_and_choose)
    again = training.run(config_of(tmp_path), tmp_path / "again")
    assert set(states(again)) == {"there"}
    assert largest_difference(tmp_path / "first", tmp_path / "again") == 0


def test_computing_that_fails_leaves_no_draft(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "compute", fail)
    with pytest.raises(KeyboardInterrupt):
        training.run(config_of(tmp_path), tmp_path / "run")
    assert list((tmp_path / "activations").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    message = r"cache\.dir='.*file/activations': .*; expected a folder that can be made and written, or ''"
    with pytest.raises(InputError, match=message):
        training.run(config_of(tmp_path / "file"), tmp_path / "run")
    assert (tmp_path / "file").read_text() == "mine"


def test_whole_splits_serve_every_hold_out(tmp_path):
    fields = {"data__examples_per_class": 0, "data__train_split": "train[:120]"}
    training.run(config_of(tmp_path, **fields), tmp_path / "first")
    again = training.run(config_of(tmp_path, data__seed=3, **fields), tmp_path / "again")
    assert states(again) == ["there", "there"]
    assert again["cache"]["banks"][0]["for"] == "train, validation"
    assert again["cache"]["banks"][0]["images"] == 120


def test_whatever_changes_them_is_computed_anew(tmp_path):
    training.run(config_of(tmp_path), tmp_path / "first")
    for number, fields in enumerate(
        [{"seed": 1}, {"preprocess__mean": (0.4, 0.5, 0.6)}, {"cache__dtype": "bfloat16"}]
    ):
        result = training.run(config_of(tmp_path, **fields), tmp_path / str(number))
        assert set(states(result)) == {"to be computed"}, fields


@pytest.mark.parametrize("draw", ["cycle", "random"])
def test_a_bank_of_views_is_exact_too(tmp_path, draw):
    fields = {"augment__crop_padding": 1, "cache__views": 3, "cache__draw": draw}
    result = training.run(config_of(tmp_path, cache__verify=5, **fields), tmp_path / "run")
    assert result["cache"]["verified"]["largest_difference"] <= 1e-5
    banks = {bank["for"]: bank["views"] for bank in result["cache"]["banks"]}
    assert banks == {"train": 3, "test, validation": 1} or banks == {
        "train": 3,
        "validation": 1,
        "test": 1,
    }


def test_wherever_they_are_read_from_the_same_bits(tmp_path):
    fields = {"augment__crop_padding": 1, "cache__views": 2}
    for storage in ("device", "host", "disk"):
        result = training.run(
            config_of(tmp_path, cache__storage=storage, **fields), tmp_path / storage
        )
        data = "device, replicated" if storage == "device" else "host"
        assert (result["cache"]["storage"], result["dispatch"]["data"]) == (storage, data)
    assert largest_difference(tmp_path / "host", tmp_path / "device") == 0
    assert largest_difference(tmp_path / "disk", tmp_path / "device") == 0


def test_what_is_computed_in_bfloat16_is_stored_so_without_loss(tmp_path, monkeypatch):
    fields = {
        "model__dtype": "bfloat16",
        "freeze__strategy": "up_to:stage1",
        "cache__boundary": "stage1",
    }
    result = training.run(config_of(tmp_path, **fields), tmp_path / "half")
    assert {bank["dtype"] for bank in result["cache"]["banks"]} == {"bfloat16"}
    monkeypatch.setattr(activation_banks, "_dtype", lambda setup: "float32")
    result = training.run(config_of(tmp_path, **fields), tmp_path / "whole")
    assert {bank["dtype"] for bank in result["cache"]["banks"]} == {"float32"}
    assert largest_difference(tmp_path / "half", tmp_path / "whole") == 0


def test_without_a_folder_nothing_is_kept(tmp_path):
    result = training.run(config_of(tmp_path, cache__dir=""), tmp_path / "run")
    assert {bank["key"] for bank in result["cache"]["banks"]} == {"(memory only)"}
    assert not (tmp_path / "activations").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"augment__flip": True},
            "cache.views=1 stores every image as it is, but augment.flip=True, "
            "augment.crop_padding=0 and augment.operations=() change it at every update; expected",
        ),
        (
            {"cache__views": 2},
            "cache.views=2: without augment.flip, augment.crop_padding and augment.operations",
        ),
        ({"freeze__strategy": "none"}, "cache.boundary=auto would not be exact: stem/bn/bias"),
        (
            {"freeze__batch_norm": "update"},
            "freeze.batch_norm=update makes stem/bn before it depend",
        ),
        ({"cache__boundary": "pol"}, "unknown cache.boundary 'pol'; nearest: pool"),
        ({"cache__storage": "disc"}, "unknown cache.storage 'disc'; nearest: disk"),
        ({"cache__dtype": "float16"}, "unknown cache.dtype 'float16'"),
        ({"cache__views": 0}, "cache.views=0: expected an integer from 1 to 10000"),
        (
            {"cache__views": 2, "augment__flip": True, "cache__draw": "rnd"},
            "unknown cache.draw 'rnd'",
        ),
        ({"data__placement": "gpu"}, "unknown data.placement 'gpu'"),
    ],
)
def test_bad_input_leaves_nothing(tmp_path, fields, message):
    with pytest.raises(InputError, match=re.escape(message)):
        training.run(config_of(tmp_path, **fields), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_updates_of_several_dispatches_and_one_are_the_same_bits(tmp_path):
    """Ten updates one by one, and five at a time; the log has a line for each all the same."""
    for number in (1, 5):
        config = config_of(
            tmp_path,
            train__steps=10,
            train__eval_every_steps=5,
            train__updates_per_dispatch=number,
        )
        training.run(config, tmp_path / str(number))
    assert largest_difference(tmp_path / "1", tmp_path / "5") == 0
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("1", "5")
    ]
    losses = [[(line["step"], line["loss"]) for line in each] for each in lines]
    assert losses[0] == sorted(losses[1], key=lambda pair: [*losses[0]].index(pair))
