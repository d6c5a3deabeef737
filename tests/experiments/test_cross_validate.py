"""Cross-validation: a run for each fold, every image of train predicted once by a run that has not seen it."""

import json
import shutil

import numpy as np
import pytest
from running import tiny_config, tree_of

from tl_jax.data import Selection, load_splits
from tl_jax.data.selection import folds_of
from tl_jax.errors import InputError
from tl_jax.runs import cross_validate, evaluate, training
from tl_jax.runs.splits import folds_of_train, make_splits
from tl_jax.training.loops import Stopped

FOLDS = 3


@pytest.fixture(scope="module")
def make_config(small_networks):
    def make(**fields):
        given = {
            "data__validation_fraction": 0.2,
            "data__examples_per_class": 0,
            "data__train_split": "train[:15%]",
            "train__steps": 3,
            "cross_validate__folds": FOLDS,
        }
        return tiny_config("quickstart", **(given | fields))

    return make


@pytest.fixture(scope="module")
def validated(make_config, tmp_path_factory):
    config, workdir = make_config(), tmp_path_factory.mktemp("folds") / "run"
    return config, workdir, cross_validate.run(config, workdir)


def test_every_image_of_train_is_predicted_once_by_the_run_of_its_fold(validated):
    config, workdir, _ = validated
    whole = load_splits("digits", Selection(train="train[:15%]"))["train"]
    with np.load(workdir / "out_of_fold.npz") as stored:
        np.testing.assert_array_equal(stored["labels"], whole.labels)
        np.testing.assert_array_equal(stored["folds"], folds_of(whole.labels, FOLDS, 0))
        assert np.isfinite(stored["probabilities"]).all()
        for fold in range(1, FOLDS + 1):
            own = stored["folds"] == fold
            run = workdir / f"fold{fold}"
            with np.load(run / "predictions.npz") as predictions:
                np.testing.assert_array_equal(
                    predictions["probabilities"], stored["probabilities"][own]
                )
            splits = make_splits(cross_validate.fold_config(config, fold))
            np.testing.assert_array_equal(splits["test"].images, whole.images[own])


def test_the_table_is_of_the_folds_and_of_all_images(validated):
    _, workdir, content = validated
    results = [
        json.loads((workdir / f"fold{fold}" / "result.json").read_text()) for fold in (1, 2, 3)
    ]
    accuracies = [result["splits"]["test"]["top1_accuracy"] for result in results]
    examples = [result["splits"]["test"]["examples"] for result in results]
    assert [row["top1_accuracy"] for row in content["folds"]] == accuracies
    assert content["over_folds"]["mean"] == pytest.approx(np.mean(accuracies))
    assert sum(examples) == content["pooled"]["examples"] == 195
    pooled = np.dot(accuracies, examples) / 195
    assert content["pooled"]["top1_accuracy"] == pytest.approx(pooled)
    stored = json.loads((workdir / "cross_validation.json").read_text())
    assert stored["pooled"] == content["pooled"]
    assert (workdir / "cross_validation.html").is_file()
    # The step of a fold is chosen by what is held out of the other folds.
    assert [result["splits"]["validation"]["examples"] for result in results] == [26] * 3
    assert [result["train_examples"] for result in results] == [104] * 3
    assert "fold 2 of 3 of train[:15%] was read once" in results[1]["selection"]


def test_an_evaluation_of_a_fold_s_run_is_of_the_test_split_and_says_so(
    validated, tmp_path, capsys
):
    _, workdir, _ = validated
    result = evaluate.evaluate_run(workdir / "fold2", None, tmp_path / "again")
    assert (result["data"]["split"], result["splits"]["test"]["examples"]) == ("test", 500)
    note = "test is evaluated, not fold 2 of 3 of train[:15%]: the accuracy on the fold is in the result of its run"
    assert note in result["data_notes"] and note in capsys.readouterr().err


def test_folds_may_have_phases_and_a_run_to_start_from(make_config, tmp_path):
    config = make_config(
        cross_validate__folds=2,
        phases=(("freeze.strategy=backbone", "train.steps=1"), ("train.steps=1",)),
        init__source=("train.steps=1",),
        report__html=False,
    )
    cross_validate.run(config, tmp_path / "run")
    for fold in (1, 2):
        folder = tmp_path / "run" / f"fold{fold}"
        result = json.loads((folder / "result.json").read_text())
        assert [row["last_step"] for row in result["phases"]] == [1, 2]
    configs = [
        json.loads(path.read_text())["data"]
        for path in (tmp_path / "run").rglob("config.json")
        if path.parent.parent.name != "run"
    ]
    # A run to start from has not seen the fold either.
    assert sorted((of["folds"], of["fold"]) for of in configs) == [(2, 1), (2, 2)]


def test_an_evaluation_of_weights_refuses_folds(validated, make_config, tmp_path):
    weights = str(validated[1] / "fold1")
    config = make_config(data__folds=3, init__weights=weights, init__head="keep")
    with pytest.raises(
        InputError, match=r"^data.folds=3: an evaluation of weights reads data.test"
    ):
        evaluate.evaluate_weights(config, tmp_path / "new")
    assert tree_of(tmp_path) == {}


def test_finished_folds_are_not_made_again(validated, make_config, monkeypatch, tmp_path):
    config, workdir, content = validated
    copied = tmp_path / "run"
    shutil.copytree(workdir, copied)
    shutil.rmtree(copied / "fold2")
    before, made, run = tree_of(copied / "fold1"), [], training.run

    def recorded(cell, folder, *given, **named):
        made.append((folder.name, (folder / "result.json").exists()))
        return run(cell, folder, *given, **named)

    monkeypatch.setattr(training, "run", recorded)
    again = cross_validate.run(config, copied)
    assert made == [("fold1", True), ("fold2", False), ("fold3", True)]
    assert tree_of(copied / "fold1") == before
    assert again["pooled"] == content["pooled"]


def test_a_stop_between_folds_goes_on_later(make_config, monkeypatch, tmp_path):
    with pytest.raises(Stopped):
        cross_validate.run(make_config(), tmp_path / "run", lambda: True)
    assert not (tmp_path / "run" / "fold2").exists()
    assert not (tmp_path / "run" / "cross_validation.json").exists()


def test_folds_are_known_without_decoding(make_config):
    labels, folds = folds_of_train(make_config(data__seed=3), FOLDS)
    whole = load_splits("digits", Selection(train="train[:15%]"))["train"]
    np.testing.assert_array_equal(labels, whole.labels)
    np.testing.assert_array_equal(folds, folds_of(whole.labels, FOLDS, 3))


def test_predictions_of_other_images_are_refused(validated, tmp_path):
    config, workdir, _ = validated
    labels, folds = folds_of_train(config, FOLDS)
    runs = [workdir / f"fold{fold}" for fold in (1, 2, 3)]
    found = cross_validate.pooled(runs, labels, folds, 10)
    assert found.shape == (195, 10)
    labels[np.flatnonzero(folds == 2)[0]] += 1
    with pytest.raises(InputError, match=r"fold2: its predictions are of 65 images with other"):
        cross_validate.pooled(runs, labels % 10, folds, 10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data__folds": 5},
            "data.folds=5: the runs of a cross-validation have cross_validate.folds=3",
        ),
        ({"cross_validate__folds": 1}, "cross_validate.folds=1: expected"),
        (
            {"cross_validate__folds": 500},
            "cross_validate.folds=500: expected an integer from 2 to 195",
        ),
        ({"data__train_split": "trian"}, "unknown split of digits 'trian'"),
        ({"optim__momentum": 2.0}, "optim.momentum=2.0"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_made(make_config, tmp_path, fields, message):
    with pytest.raises(InputError) as raised:
        cross_validate.run(make_config(**fields), tmp_path / "new")
    assert message in str(raised.value)
    assert tree_of(tmp_path) == {}
