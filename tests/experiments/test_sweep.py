"""A sweep: each member is the ordinary run, validation chooses, test is reported over seeds."""

import itertools
import json

import jax
import numpy as np
import pytest
from running import arguments, metric_lines, tiny_config, tree_of

from tl_jax import files, models, porting
from tl_jax.config import of_command
from tl_jax.errors import InputError
from tl_jax.runs import activation_cache, members, run_folder, sweep, training, weights
from tl_jax.runs.setup import prepare
from tl_jax.training.loops import Stopped

RATES, DECAYS, SEEDS = (0.02, 0.3), (0.0, 0.05), (0, 7)


@pytest.fixture(scope="module")
def pretrained(small_networks, tmp_path_factory):
    """Returns a file of weights for the shrunk network: several seeds need one backbone."""
    variables = models.init_variables(models.create_model("resnet20_cifar", 7), jax.random.key(5))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    porting.save_state_dict(path, porting.export_state_dict(variables, naming="cifar"))
    return path


@pytest.fixture(scope="module")
def make_config(pretrained, tmp_path_factory):
    """Returns what makes a small sweep; fields as `optim__name`, those of the sweep in a dict."""
    store = tmp_path_factory.mktemp("activations")

    def make(section=None, **fields):
        given = {
            "init__weights": str(pretrained),
            "data__validation_fraction": 0.1,
            "data__examples_per_class": 6,
            "data__batch_size": 16,
            "train__steps": 8,
            "train__eval_every_epochs": 0.0,
            "train__eval_every_steps": 3,
            "cache__dir": str(store),
        }
        config = tiny_config("digits_sweep", **(given | fields))
        values = {
            "learning_rate": RATES,
            "weight_decay": DECAYS,
            "seed": SEEDS,
            "patience": 0,
        }
        for name, value in (values | (section or {})).items():
            config.sweep[name] = value
        return config

    return make


@pytest.fixture(scope="module")
def swept(make_config, tmp_path_factory):
    config, workdir = make_config(), tmp_path_factory.mktemp("sweep") / "run"
    return config, workdir, sweep.run(config, workdir)


def read(workdir, name="sweep.json"):
    return json.loads((workdir / name).read_text())


def test_what_a_sweep_leaves(swept):
    config, workdir, result = swept
    names = {path.name for path in workdir.iterdir()}
    assert names >= {
        "config.json", "sweep.json", "sweep.html", "plots", "metrics.jsonl", "freezing.json",
        "preprocessing.json", "weights.safetensors", "predictions.npz", "result.json",
    }  # fmt: skip
    assert read(workdir, "config.json") == files.plain(of_command(config, "sweep"))
    assert read(workdir, "result.json") == json.loads(json.dumps(result))
    content = read(workdir)
    assert [(m["seed"], m["learning_rate"], m["weight_decay"]) for m in content["members"]] == list(
        itertools.product(SEEDS, RATES, DECAYS)
    )
    assert content["fields"] == ["learning_rate", "weight_decay"]
    assert content["steps"] == [3, 6, 8]
    assert all(member["stopped_at"] == 8 for member in content["members"])
    assert set(content["seconds"]) == {"prepare", "train"}


def test_validation_chooses_and_test_is_read_for_the_chosen_combination(swept):
    _, workdir, result = swept
    content = read(workdir)
    top1 = np.array([member["best_validation_top1"] for member in content["members"]])
    seed, column = sweep.choose(top1.reshape(2, 4))
    assert content["chosen"]["place"] == 4 * seed + column
    told = [place for place, member in enumerate(content["members"]) if "test_top1" in member]
    assert told == [column, column + 4]
    chosen = content["members"][content["chosen"]["place"]]
    assert chosen["test_top1"] == result["splits"]["test"]["top1_accuracy"]
    assert chosen["best_validation_top1"] == result["splits"]["validation"]["top1_accuracy"]
    assert result["splits"]["test"]["examples"] == 500
    assert "test was read for the 2 seeds of this combination" in result["selection"]
    validated = [line for line in metric_lines(workdir) if line["split"] == "validation"]
    assert max(line["top1_accuracy"] for line in validated) == chosen["best_validation_top1"]


def test_the_result_is_the_mean_over_seeds_of_the_chosen_combination(swept):
    _, workdir, result = swept
    content = read(workdir)
    own = [member for member in content["members"] if "test_top1" in member]
    for split, field in {"test": "test_top1", "validation": "best_validation_top1"}.items():
        first, second = (member[field] for member in own)
        over_seeds = result["over_seeds"][split]
        assert over_seeds["n"] == 2 and over_seeds["mean"] == pytest.approx((first + second) / 2)
        # Of two values: t(1) = 12.7062 times half their distance.
        half = 12.7062 * abs(first - second) / 2
        assert over_seeds["interval"][1] - over_seeds["mean"] == pytest.approx(half, rel=1e-4)


def test_another_grid_is_another_sweep(make_config, swept):
    _, workdir, _ = swept
    before = tree_of(workdir)
    with pytest.raises(
        InputError, match=r"\nsweep\.learning_rate: .*0\.3\] in the folder, .* given$"
    ):
        sweep.run(make_config({"learning_rate": (0.02, 0.4)}), workdir)
    assert tree_of(workdir) == before


def test_hyperparameters_are_not_chosen_for_the_luck_of_one_seed():
    assert sweep.choose(np.array([[0.9, 0.8, 0.8], [0.1, 0.7, 0.8]])) == (0, 2)
    assert sweep.choose(np.array([[0.5, 0.5], [0.6, 0.6]])) == (1, 0)


# Of each case: the swept values, other fields, and {(seed, combination): its values} of a member.
MEMBERS = {
    "head": ({"learning_rate": (0.1,)}, {}, {(1, 0): {}}),
    "last stage": (
        {"learning_rate": (0.1,)},
        {"freeze__strategy": "up_to:stage2"},
        {(0, 1): {"weight_decay": 0.05}},
    ),
    "groups of BatchNorm": (
        {"learning_rate": (0.1,), "weight_decay": (0.0,)},
        {"freeze__strategy": "up_to:stage2", "model__batch_norm_rows": 4},
        {(1, 0): {}},
    ),
    "smoothing and pull are swept": (
        {"learning_rate": (0.1,), "weight_decay": (0.0,), "label_smoothing": (0.0, 0.3),
         "l2_sp": (0.0, 0.5)},
        {"freeze__strategy": "up_to:stage2"},
        {(1, 3): {"l2_sp": 0.5, "label_smoothing": 0.3}},
    ),
    "smoothing and pull are the config's": (
        {"learning_rate": (0.02, 0.1), "weight_decay": (0.0,)},
        {"freeze__strategy": "up_to:stage2", "objective__label_smoothing": 0.3, "objective__l2_sp": 0.5},
        {(0, 1): {}},
    ),
    "augmented views": (
        {"learning_rate": (0.1,), "weight_decay": (0.0, 0.05)},
        {"cache__views": 3, "augment__crop_padding": 4},
        {(1, 1): {"weight_decay": 0.05}},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("section", "fields", "some"), MEMBERS.values(), ids=MEMBERS)
def test_a_member_is_the_run_that_finetune_makes(make_config, section, fields, some, tmp_path):
    """The same data, order, initialisation and schedule; the ordinary run knows nothing of a sweep."""
    config = make_config(section, cache__boundary="auto", **fields)
    grid = sweep.read_grid(config)
    setup = activation_cache.use(prepare(sweep._run_config(config)))
    states = [members.start(setup, grid, seed)[0] for seed in grid.seeds]
    found = members.train(setup, grid, states)
    for (row, column), own in some.items():
        given = {"learning_rate": 0.1, "weight_decay": 0.0} | own
        alone = make_config(
            **(
                fields
                | {"seed": SEEDS[row]}
                | {members.FIELDS[name].replace(".", "__"): v for name, v in given.items()}
            )
        )
        workdir = tmp_path / f"{row}{column}"
        result = training.run(alone, workdir)
        assert result["selected_step"] == found.best_step[row, column]
        top1 = result["splits"]["validation"]["top1_accuracy"]
        assert found.best_top1[row, column] == pytest.approx(top1)
        alone.init.weights = str(workdir)
        alone.init.head = "keep"
        trained = weights.make_initial(
            alone, setup.model, setup.splits["train"].class_names, setup.preprocessing.image_size
        ).variables["params"]
        for group in found.params:
            member = jax.tree.map(lambda leaf: leaf[row, column], found.params[group])  # noqa: B023
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), member, trained[group]
            )


def test_every_member_has_its_own_test_accuracy(make_config, tmp_path):
    """That of the ordinary run, also of members that were not chosen."""
    rates = (1e-4, 0.3)
    config = make_config({"learning_rate": rates, "weight_decay": (0.0,), "test": "all"})
    sweep.run(config, tmp_path / "sweep")
    content = read(tmp_path / "sweep")
    told = {
        (member["seed"], member["learning_rate"]): member["test_top1"]
        for member in content["members"]
    }
    assert len(told) == 4
    best = content["members"][content["chosen"]["place"]]
    others = [place for place in told if place[1] != best["learning_rate"]]
    assert len(others) == 2 and any(told[place] != best["test_top1"] for place in others)
    for seed, rate in others:
        alone = make_config(seed=seed, optim__learning_rate=rate, optim__weight_decay=0.0)
        result = training.run(alone, tmp_path / str(seed))
        top1 = result["splits"]["test"]["top1_accuracy"]
        assert told[seed, rate] == pytest.approx(top1, abs=1 / 500 + 1e-9)  # one near-tie at most


def test_a_finished_sweep_says_so(swept, capsys):
    config, workdir, result = swept
    before = tree_of(workdir)
    assert sweep.run(config, workdir) == json.loads(json.dumps(result))
    assert tree_of(workdir) == before
    assert "is finished" in capsys.readouterr().out
    assert run_folder.RunFolder.look(workdir, of_command(config, "sweep")) == "finished"


def test_smoothing_and_pull_are_swept_too_and_every_test_accuracy_is_told(make_config, tmp_path):
    section = {
        "learning_rate": (),
        "weight_decay": (),
        "label_smoothing": (0.0, 0.2),
        "l2_sp": (0.0, 0.1),
        "seed": (3,),
        "test": "all",
        "width": 3,
    }
    config = make_config(section, freeze__strategy="up_to:stage2", optim__learning_rate=0.05)
    result = sweep.run(config, tmp_path / "run")
    told = read(tmp_path / "run")["members"]
    assert len(told) == 4 and all("test_top1" in member for member in told)
    assert {(m["label_smoothing"], m["l2_sp"], m["learning_rate"]) for m in told} == {
        (smoothing, pull, 0.05) for smoothing in (0.0, 0.2) for pull in (0.0, 0.1)
    }
    assert "test was read for every member, at the end, and chose nothing" in result["selection"]


def test_a_sweep_that_is_asked_to_stop(make_config, tmp_path):
    with pytest.raises(Stopped):
        sweep.run(make_config(), tmp_path / "run", lambda: True)
    assert not (tmp_path / "run" / "result.json").exists()


def test_seeds_alone(make_config, tmp_path):
    config = make_config({"learning_rate": (), "weight_decay": (), "seed": (1, 2)})
    assert sweep.run(config, tmp_path / "run")["members"] == 2
    assert read(tmp_path / "run")["fields"] == []


BAD = {
    "negative rate": ({"learning_rate": (-0.1,)}, {}, "sweep.learning_rate=(-0.1,): expected numbers"),
    "smoothing": ({"label_smoothing": (1.0,)}, {}, "sweep.label_smoothing=(1.0,): expected numbers in"),
    "words": ({"weight_decay": ("none",)}, {}, "sweep.weight_decay=('none',): expected a tuple"),
    "not finite": ({"l2_sp": (float("inf"),)}, {}, "sweep.l2_sp=(inf,)"),
    "twice": ({"weight_decay": (0.1, 0.1)}, {}, "sweep.weight_decay=[0.1, 0.1]: a value is there"),
    "negative seed": ({"seed": (-1,)}, {}, "sweep.seed=(-1,): expected integers from 0"),
    "patience": ({"patience": -1}, {}, "sweep.patience=-1: expected an integer"),
    "test": ({"test": "chosn"}, {}, "unknown sweep.test 'chosn'; nearest: chosen"),
    "nothing held out": ({}, {"data__validation_fraction": 0.0}, "nothing is held out"),
    "random backbones": ({}, {"init__weights": ""}, "another one for every seed"),
    "redrawn backbones": (
        {},
        {"init__reset": ("stage1/block0/conv1/kernel", "head/kernel")},
        "sweep.seed=[0, 7] with init.reset=('stage1/block0/conv1/kernel', 'head/kernel'): every seed would draw "
        "other values for stage1/block0/conv1/kernel, and activations after pool are computed once",
    ),
    "nothing frozen": ({}, {"freeze__strategy": "none"}, "would not be exact"),
    "activations elsewhere": ({}, {"cache__storage": "disk"}, "cache.storage=disk: the members"),
    "pmap": ({}, {"parallel__mode": "pmap"}, "parallel.mode=pmap"),
}  # fmt: skip


@pytest.mark.parametrize(("section", "fields", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_told_before_anything_is_made(
    make_config, tmp_path, section, fields, message
):
    config = make_config(section, **fields)
    with pytest.raises(InputError) as raised:
        sweep.run(config, tmp_path / "new")
    assert message in str(raised.value)
    assert tree_of(tmp_path) == {}


def test_the_command(launcher, tmp_path):
    argv = ["--config=configs/digits_sweep.py", f"--workdir={tmp_path / 'run'}"]
    code, _, err = launcher.run("sweep", *argv, "--config.sweep.learning_rat=(0.1,)", small=True)
    assert code == 2 and "nearest: sweep.learning_rate" in err
    code, _, err = launcher.run("sweep", *argv, *arguments(data__validation_fraction=0.0))
    assert code == 2 and "nothing is held out" in err
    assert tree_of(tmp_path) == {}
