"""A head that is kept means the classes of the data, by name, wherever weights are read."""

import json
import shutil

import numpy as np
import pytest
from running import tiny_config, tree_of
from safetensors.numpy import load_file, save_file

from tl_jax import ablation, data
from tl_jax.config import completed
from tl_jax.errors import InputError
from tl_jax.runs import (
    evaluate,
    members,
    probe,
    results,
    resuming,
    sweep,
    training,
    weights,
)
from tl_jax.runs.setup import prepare

pytestmark = pytest.mark.usefixtures("small_networks")
NAMES = ["ant", "bee", "cat"]
BACKWARDS = ["z ant", "y bee", "x cat"]  # names that sort in reverse


def stored(path, names, order=(0, 1, 2), splits=("train", "test")):
    """Writes 3 classes of 8 images of one colour each; class `order[i]` of NAMES has the label i."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split in splits:
        colours = np.eye(3)[np.repeat(np.arange(3), 8)] * 150
        images = colours[:, None, None, :] + rng.integers(0, 100, (24, 8, 8, 3))
        labels = np.repeat(np.argsort(order), 8)
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels}
    if names is not None:
        arrays["class_names"] = np.array([names[place] for place in order])
    np.savez(path, **arrays)
    return f"npz:{path}"


def config_of(data, **fields):
    changes = {
        "data__name": data,
        "data__examples_per_class": 0,
        "data__batch_size": 8,
        "train__steps": 12,
        "augment__crop_padding": 0,
        "data__validation_fraction": 0.0,
        "optim__schedule": "constant",
    }
    return tiny_config(**(changes | fields))


@pytest.fixture(scope="module")
def trained(small_networks, tmp_path_factory):
    """A run on three named classes, right on nearly all of them."""
    folder = tmp_path_factory.mktemp("trained")
    data = stored(folder / "data.npz", NAMES)
    result = training.run(config_of(data), folder / "run")
    assert result["splits"]["test"]["top1_accuracy"] > 0.9
    return folder / "run", result


def kept(run, data, **fields):
    changes = {"init__head": "keep", "data__image_size": 0, "preprocess__resize": 0}
    return config_of(data, init__weights=str(run), **(changes | fields))


def test_another_order_is_matched_by_name(trained, tmp_path):
    """The columns of the head move with the names, and the accuracy is as it was."""
    run, result = trained
    data = stored(tmp_path / "data.npz", NAMES, order=(2, 0, 1))
    config = kept(run, data)
    again = evaluate.evaluate_weights(config, tmp_path / "again")
    assert again["splits"]["test"]["top1_accuracy"] == result["splits"]["test"]["top1_accuracy"]
    assert again["class_names"] == ["cat", "ant", "bee"]
    assert again["deviations"] == [
        f"init.weights={run}, init.head=keep: the classes of the head were put in the order of the data's, "
        "by name"
    ]
    report = json.loads((tmp_path / "again" / "port_report.json").read_text())
    rules = {row["target"]: row["rule"] for row in report["entries"]}
    assert rules["params/head/kernel"] == "in the data's order of classes, matched by name"
    assert rules["params/stem/conv/kernel"] == ""
    there = load_file(run / "weights.safetensors")["linear.bias"]
    head = prepare(config).initial.variables["params"]["head"]
    np.testing.assert_array_equal(head["bias"], there[[2, 0, 1]])


def test_a_checkpoint_is_matched_by_name(trained, tmp_path):
    run, result = trained
    data = stored(tmp_path / "data.npz", NAMES, order=(1, 2, 0))
    again = evaluate.evaluate_run(run, None, tmp_path / "again", [f"data.name={data}"])
    assert again["splits"]["test"]["top1_accuracy"] == result["splits"]["test"]["top1_accuracy"]
    assert "by name" in again["deviations"][0]


def commands(run, data, folder):
    """Yields every way in which weights with their head reach a data set."""
    held_out = kept(run, data, data__validation_fraction=0.25, freeze__strategy="backbone")
    yield "finetune", lambda: training.run(kept(run, data), folder)
    yield "evaluate", lambda: evaluate.evaluate_weights(kept(run, data), folder)
    yield "checkpoint", lambda: evaluate.evaluate_run(run, None, folder, [f"data.name={data}"])
    yield "probe", lambda: probe.run(held_out, folder)
    held_out.sweep.update({"seed": (0,), "learning_rate": (0.1,)})
    yield "sweep", lambda: sweep.run(held_out, folder)
    several = kept(run, data)
    several.compare.update({"seeds": (0,), "baseline": "one", "methods": {"one": ()}})
    yield "compare", lambda: ablation.run(ablation.spec_of(several), folder)


@pytest.mark.parametrize(
    "name", [*("finetune", "evaluate", "checkpoint", "probe", "sweep", "compare")]
)
def test_other_names_are_refused(trained, tmp_path, name):
    """The names sort in reverse: by position each class would be another one."""
    run, _ = trained
    data = stored(tmp_path / "data.npz", BACKWARDS, order=(2, 1, 0))
    before = tree_of(tmp_path)
    with pytest.raises(InputError) as raised:
        dict(commands(run, data, tmp_path / "new"))[name]()
    message = str(raised.value)
    assert str(run) in message
    assert "only in the weights: ant; bee; cat\nonly in the data: x cat; y bee; z ant\n" in message
    assert ("init.head=reset" in message) == (name != "checkpoint")
    after = tree_of(tmp_path)
    if name == "compare":  # the spec is there, and no run
        assert not list((tmp_path / "new").rglob("*/*/*.json"))
        after = {path: made for path, made in after.items() if not path.startswith("new")}
    assert after == before


def test_the_members_of_a_sweep_start_from_the_matched_head(trained, tmp_path):
    run, _ = trained
    data = stored(tmp_path / "data.npz", NAMES, order=(2, 0, 1))
    config = kept(run, data, data__validation_fraction=0.25, freeze__strategy="backbone",
                  cache__boundary="pool", augment__flip=False, augment__crop_padding=0)  # fmt: skip
    setup = prepare(config)
    grid = members.Grid(
        {name: (0.1,) if name == "learning_rate" else (0.0,) for name in members.FIELDS},
        (0,), 0, 0, "chosen",
    )  # fmt: skip
    state, _ = members.start(setup, grid, 0)
    there = load_file(run / "weights.safetensors")["linear.bias"]
    np.testing.assert_array_equal(state.params["head"]["bias"], there[[2, 0, 1]])


def test_a_fresh_head_asks_for_no_names(trained, tmp_path):
    data = stored(tmp_path / "data.npz", BACKWARDS, order=(2, 1, 0))
    setup = prepare(kept(trained[0], data, init__head="reset"))
    assert setup.deviations == []


@pytest.mark.parametrize("unnamed", ["weights", "data"])
def test_without_names_the_order_is_assumed_and_the_result_says_so(trained, tmp_path, unnamed):
    run, _ = trained
    source = run
    if unnamed == "weights":  # of another maker
        source = tmp_path / "bare.safetensors"
        save_file(load_file(run / "weights.safetensors"), source)
    data = stored(tmp_path / "data.npz", NAMES if unnamed == "weights" else None)
    config = kept(source, data, preprocess__mean=(0.5,) * 3, data__image_size=8)
    result = evaluate.evaluate_weights(config, tmp_path / "again")
    expected = (
        f"the {unnamed} have no names of classes, so the classes of the head are assumed to be in"
    )
    assert [line for line in result["deviations"] if expected in line]
    assert result["splits"]["test"]["examples"] == 24


def test_a_run_that_does_not_say_its_names_is_assumed(trained, tmp_path):
    """Of a version before they were written."""
    run = shutil.copytree(trained[0], tmp_path / "run")
    for name in (results.CLASS_NAMES, "result.json", weights.EXPORTED):
        (run / name).unlink()
    data = stored(tmp_path / "data.npz", NAMES)
    result = evaluate.evaluate_run(run, None, tmp_path / "again", [f"data.name={data}"])
    assert "the weights have no names of classes" in result["deviations"][0]


def test_a_run_is_not_resumed_on_data_whose_classes_changed_places(tmp_path):
    """Its head would mean other classes: the same file name, the same shapes."""
    data = stored(tmp_path / "data.npz", NAMES)
    config = config_of(data, train__steps=2)
    training.run(config, tmp_path / "run")
    stored(tmp_path / "data.npz", NAMES, order=(2, 0, 1))
    config.train.steps = 4
    before = tree_of(tmp_path)
    with pytest.raises(
        InputError, match="whose classes are, in this order, ant; bee; cat; those of the"
    ):
        training.run(config, tmp_path / "run")
    assert tree_of(tmp_path) == before


def test_a_checkpoint_with_numbered_classes_on_data_with_another_number(trained, tmp_path):
    """Nothing can be matched by name, so that the numbers of classes alone say it."""
    run = shutil.copytree(trained[0], tmp_path / "run")
    (run / results.CLASS_NAMES).write_text(json.dumps({"class_names": ["0", "1", "2"]}))
    names = [*NAMES, "dog"]
    images = np.zeros((4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "data.npz", test_images=images, test_labels=np.arange(4), class_names=names)
    with pytest.raises(InputError, match=r"has 3 classes, the data have 4$"):
        evaluate.evaluate_run(
            run, None, tmp_path / "new", [f"data.name=npz:{tmp_path / 'data.npz'}"]
        )
    assert not (tmp_path / "new").exists()


def test_an_evaluation_is_of_the_step_that_it_evaluated(trained, tmp_path):
    """The run went on since: the old result is not that of its checkpoint now."""
    run = shutil.copytree(trained[0], tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["train"]["steps"] = 13
    # As if it had been stopped at step 12 of 13.
    (run / "config.json").write_text(json.dumps(config))
    (run / "result.json").unlink()
    evaluate.evaluate_run(run, "latest", tmp_path / "new")
    whole = completed(config)
    assert training.run(whole, run)["resumed_at_step"] == 12
    with pytest.raises(InputError, match=r"differ:\nevaluate\.step: 12 in the folder, 13 given$"):
        evaluate.evaluate_run(run, "latest", tmp_path / "new")


def test_many_classes_are_not_listed_one_by_one(tmp_path):
    names = [f"class {number}" for number in range(1000)]
    (tmp_path / results.CLASS_NAMES).write_text(json.dumps({"class_names": names}))
    with pytest.raises(InputError) as raised:
        resuming.check_class_names(tmp_path, [*names[:500], "other", *names[501:]])
    message = str(raised.value)
    assert message.count("; class 19 and 980 more") == 2 and "class 20" not in message
    assert "the first that differs is class 500." in message


def test_an_evaluation_at_another_size_preprocesses_as_the_run_did(trained, tmp_path, monkeypatch):
    """The resize keeps its proportion, and images are brought to it as the weights were trained."""
    run = shutil.copytree(trained[0], tmp_path / "run")
    assert json.loads((run / "config.json").read_text())["preprocess"]["interpolation"] == ""
    stored_preprocessing = json.loads((run / "preprocessing.json").read_text())
    stored_preprocessing |= {"image_size": 32, "resize": 40, "interpolation": "bicubic"}
    (run / "preprocessing.json").write_text(json.dumps(stored_preprocessing))
    asked, load_splits = [], data.load_splits

    def recorded(source, selection, decoding, **options):
        asked.append((decoding.image_size, decoding.interpolation))
        return load_splits(source, selection, decoding, **options)

    monkeypatch.setattr(data, "load_splits", recorded)
    same = evaluate.evaluate_run(run, None, tmp_path / "same")["preprocessing"]
    changes = ["data.image_size=64"]
    larger = evaluate.evaluate_run(run, None, tmp_path / "larger", changes)["preprocessing"]
    assert (same["image_size"], same["resize"], same["interpolation"]) == (32, 40, "bicubic")
    assert (larger["image_size"], larger["resize"], larger["interpolation"]) == (64, 80, "bicubic")
    assert asked == [(40, "bicubic"), (80, "bicubic")]


@pytest.mark.parametrize("split", ["test", "train"])
def test_evaluation_on_other_data_without_a_train_split(trained, tmp_path, split):
    run, _ = trained
    data = stored(tmp_path / "data.npz", NAMES, splits=[split])
    changes = [f"data.name={data}", f"data.test_split={split}", "data.eval_batch_size=7"]
    result = evaluate.evaluate_run(run, None, tmp_path / "again", changes)
    assert result["splits"]["test"]["examples"] == 24
    assert result["splits"]["test"]["top1_accuracy"] > 0.9
    assert result["data"] == {"name": data, "split": split}
    assert results.describe(result).startswith(f"{data} {split} top-1 ")
    config = kept(run, data, data__test_split=split, data__eval_batch_size=7)
    again = evaluate.evaluate_weights(config, tmp_path / "weights")
    assert again["splits"] == result["splits"]


def test_a_folder_with_only_test(launcher, trained, tmp_path):
    """As a user types it; the classes of the folder are those of the run."""
    from PIL import Image

    run, _ = trained
    colours = dict(zip(NAMES, np.eye(3) * 200, strict=True))
    for name, colour in colours.items():
        folder = tmp_path / "photos" / "test" / name
        folder.mkdir(parents=True)
        image = np.broadcast_to(colour.astype(np.uint8), (12, 12, 3))
        Image.fromarray(np.ascontiguousarray(image)).save(folder / "one.png")
    flags = [f"--checkpoint={run}", "--config.data.cache_dir=", f"--workdir={tmp_path / 'new'}"]
    code, out, err = launcher.run(
        "evaluate", f"--config.data.name=folder:{tmp_path / 'photos'}", *flags, small=True
    )
    assert code == 0, err
    assert f"folder:{tmp_path / 'photos'} test top-1 " in out and "), 3 images" in out
    assert "s in all, from the start of the command" in out.splitlines()[-1]
    for change, expected in {
        "optim.momentum=0.5": "--config.optim.momentum=0.5 with --checkpoint: a run brings its own config",
        "data.nam=digits": "unknown config field 'data.nam'; nearest: data.name",
        "data.batch_size=x": "data.batch_size=x: expected an integer",
        "data.name=digits": "holds a run of another config",
    }.items():
        code, _, err = launcher.run("evaluate", f"--config.{change}", *flags, small=True)
        assert code == 2 and err.startswith("error: ") and expected in err, (change, err)
