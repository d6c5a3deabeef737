"""Runs that start from a source run of their own: trained first and once, and what of it is carried over."""

import json
import pathlib
import shutil

import numpy as np
import optax
import pytest
from running import tiny_config

from tl_jax import ablation, checkpointing, load_run, trees
from tl_jax.errors import InputError
from tl_jax.runs import evaluate, profile, training
from tl_jax.runs.parts import Parts
from tl_jax.runs.source import shared_folder, source_config
from tl_jax.training import loops

pytestmark = pytest.mark.usefixtures("small_networks")

SOURCE = ("train.steps=4", "train.eval_every_epochs=0", "data.test_split=test[:50%]")


def config_of(**fields):
    return tiny_config(
        **{
            "model__name": "small_cnn",
            "init__source": SOURCE,
            "augment__flip": False,
            "augment__crop_padding": 0,
            "optim__learning_rate": 0.05,
            "data__examples_per_class": 3,
            "optim__schedule": "constant",
        }
        | fields
    )


def latest(run):
    return trees.flatten(checkpointing.restore_params(run / "checkpoints", "latest"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of six updates from a source run of four."""
    folder = tmp_path_factory.mktemp("source") / "run"
    return folder, training.run(config_of(), folder)


def test_it_is_the_run_from_the_weights_of_the_source(run, tmp_path):
    folder, result = run
    source = config_of(
        init__source=(), data__examples_per_class=0, train__steps=4, data__test_split="test[:50%]"
    )
    training.run(source, tmp_path / "source")
    target = config_of(init__source=(), init__weights=str(tmp_path / "source"))
    expected = training.run(target, tmp_path / "target")
    for name, leaf in latest(tmp_path / "source").items():
        np.testing.assert_array_equal(latest(folder / "source")[name], leaf, err_msg=name)
    for name, leaf in latest(tmp_path / "target").items():
        np.testing.assert_array_equal(latest(folder)[name], leaf, err_msg=name)
    assert result["splits"] == expected["splits"]
    assert json.loads((folder / "source" / "result.json").read_text())["steps"] == 4


def test_a_finished_source_is_not_trained_again(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    for path in (folder / "result.json", folder / "config.json"):
        path.unlink()
    shutil.rmtree(folder / "checkpoints")
    for path in folder.iterdir():  # as after a stop in the source run
        if path.is_file() and path.name != ".lock":
            path.unlink()
    before = (folder / "source" / "result.json").stat().st_mtime_ns
    assert training.run(config_of(), folder)["splits"] == run[1]["splits"]
    assert (folder / "source" / "result.json").stat().st_mtime_ns == before


def test_a_finished_run_needs_its_source_no_more(run, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(run[0], folder)
    shutil.rmtree(folder / "source")
    assert training.run(config_of(), folder)["splits"] == run[1]["splits"]
    assert not (folder / "source").exists()
    found = evaluate.evaluate_run(folder, None, tmp_path / "evaluated", [])
    assert found["splits"]["test"]["top1_accuracy"] == run[1]["splits"]["test"]["top1_accuracy"]


def test_a_stop_in_the_source_goes_on_there(run, tmp_path):
    with pytest.raises(loops.Stopped):
        training.run(config_of(), tmp_path / "run", stop_requested=lambda: True)
    assert not (tmp_path / "run" / "config.json").exists()
    assert training.run(config_of(), tmp_path / "run")["splits"] == run[1]["splits"]


def test_reset_leaves_are_reset_once_and_not_where_the_run_is_read_again(tmp_path):
    source = (*SOURCE, "optim.learning_rate=0.05")
    config = config_of(
        init__source=source,
        init__reset=("hidden/.*",),
        train__steps=1,
        optim__learning_rate=0.0,
    )
    result = training.run(config, tmp_path / "run")
    leaves = {name: latest(tmp_path / name) for name in ("run", "run/source")}
    for name, leaf in leaves["run"].items():
        equal = np.array_equal(leaf, leaves["run/source"][name])
        assert equal == name.startswith("params/stage"), name
    loaded = trees.flatten(load_run(tmp_path / "run").variables)
    for name, leaf in leaves["run"].items():
        np.testing.assert_array_equal(loaded[name], leaf, err_msg=name)
    found = evaluate.evaluate_run(tmp_path / "run", None, tmp_path / "evaluated", [])
    assert found["splits"]["test"]["loss"] == pytest.approx(result["splits"]["test"]["loss"])


def test_a_run_with_reset_leaves_is_evaluated(run, tmp_path):
    config = config_of(
        init__source=(), init__weights=str(run[0]), init__reset=("stage1/.*",), train__steps=1
    )
    result = training.run(config, tmp_path / "run")
    # They moved: what they started from would be noticed.
    loaded, trained = trees.flatten(load_run(tmp_path / "run").variables), latest(tmp_path / "run")
    for name, leaf in trained.items():
        np.testing.assert_array_equal(loaded[name], leaf, err_msg=name)
    found = evaluate.evaluate_run(tmp_path / "run", None, tmp_path / "evaluated", [])
    assert found["splits"]["test"]["loss"] == pytest.approx(result["splits"]["test"]["loss"])


def test_methods_of_a_seed_share_a_source(tmp_path):
    config = config_of(
        compare__seeds=(0, 1),
        compare__baseline="all",
        data__validation_fraction=0.1,
        train__steps=2,
    )
    config.compare.methods = {
        "all": (),
        "head": ("freeze.strategy=backbone", "data.examples_per_class=2"),
        "scratch": ("init.source=",),
    }
    rows = ablation.run(ablation.spec_of(config), tmp_path)["runs"]
    folders = {(row["variant"], row["seed"]): tmp_path / row["run"] for row in rows}
    sources = [path for path in (tmp_path / "sources").iterdir() if path.is_dir()]
    assert len(sources) == 2
    seeds = {json.loads((folder / "config.json").read_text())["seed"] for folder in sources}
    assert seeds == {0, 1}
    reports = [
        json.loads((folders[method, 1] / "port_report.json").read_text())
        for method in ("all", "head")
    ]
    assert reports[0]["source"] == reports[1]["source"]
    assert not (folders["scratch", 0] / "port_report.json").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"init__weights": "resnet20_cifar.tin32"}, "give one"),
        ({"init__source": ("train.step=4",)}, "nearest: train.steps"),
        ({"init__source": ("init.source=x",)}, "has no source of its own"),
        ({"init__reset": ("dense/.*",)}, "matches no leaf"),
        (
            {"init__source": (*SOURCE, "model.name=resnet20_cifar")},
            "init.source: model.name='resnet20_cifar', and the weights are for model.name='small_cnn'",
        ),
        (
            {"data__name": "folder:nowhere", "init__source": (*SOURCE, "data.name=digits")},
            "nowhere does not exist",
        ),
    ],
)
def test_what_is_wrong_is_said_before_the_source_is_trained(fields, message, tmp_path):
    with pytest.raises(InputError, match=message):
        training.run(config_of(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_made_again_from_its_own_config(run, tmp_path):
    found = load_run(run[0])
    assert found.config.init.weights == "" and tuple(found.config.init.source) == SOURCE
    assert training.run(found.config, run[0])["splits"] == run[1]["splits"]


def test_a_run_from_a_source_is_not_extended(run):
    with pytest.raises(InputError, match=r"cannot be extended: init\.source describes a run"):
        training.run(config_of(train__steps=12), run[0])


def test_what_trains_the_target_trains_its_source_too(tmp_path):
    config = config_of(train__steps=1, optim__name="own:sgd", optim__weight_decay=1e-4)
    parts = Parts(optimizer=optax.sgd)
    training.run(config, tmp_path / "run", parts=parts)
    source = json.loads((tmp_path / "run" / "source" / "config.json").read_text())
    assert source["optim"]["name"] == "own:sgd"


def test_what_is_wrong_with_the_source_says_so(tmp_path):
    source = (*SOURCE, "train.patience=2", "data.validation_fraction=0")
    with pytest.raises(InputError, match=r"^init\.source: train\.patience=2: nothing is held out"):
        training.run(config_of(init__source=source), tmp_path / "run")


def test_sources_are_shared_whatever_a_comparison_compares():
    config = config_of()
    folders = set()
    for seeds, count in (((0, 1), 5), ((0, 1, 2), 7)):
        config.compare.seeds, config.sweep.width = seeds, count
        folders.add(shared_folder(source_config(config), pathlib.Path("sources")))
    assert len(folders) == 1


def test_folds_are_of_the_target():
    of_others = source_config(config_of(data__folds=3, init__source=("data.name=npz:others.npz",)))
    assert (of_others.data.folds, of_others.data.fold) == (0, 1)
    of_the_same = source_config(config_of(data__folds=3, data__fold=2))
    assert (of_the_same.data.folds, of_the_same.data.fold) == (3, 2)


def test_weights_are_evaluated_as_they_are(run, tmp_path):
    config = config_of(
        init__source=(),
        init__weights=str(run[0]),
        init__head="keep",
        init__reset=("hidden/.*",),
    )
    with pytest.raises(InputError, match=r"init\.reset=.*evaluated as they are"):
        evaluate.evaluate_weights(config, tmp_path / "evaluated")


def test_objectives_do_not_pull_to_leaves_that_start_at_random(run, tmp_path):
    config = config_of(
        init__source=(),
        init__weights=str(run[0]),
        init__reset=("hidden/.*",),
        objective__l2_sp=0.1,
    )
    with pytest.raises(InputError, match=r"needs source\.params, but init\.reset="):
        training.run(config, tmp_path / "run")


def test_other_commands_refuse_a_source(tmp_path):
    with pytest.raises(InputError, match="pretrain starts from random weights"):
        training.pretrain(config_of(), tmp_path / "run")
    with pytest.raises(InputError, match="only finetune, compare and cross_validate train a run"):
        profile.profile(config_of(), tmp_path / "run")
