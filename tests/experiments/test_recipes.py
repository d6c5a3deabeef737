"""The published recipes and their corrected siblings: each runs shrunk, and is what its header says it is."""

import json

import pytest
from running import REPOSITORY, TINY

from tl_jax import ablation
from tl_jax.config import flat, load
from tl_jax.runs import training

RECIPES = REPOSITORY / "configs" / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.py"))
FLAWED = [name for name in NAMES if f"{name}_corrected" in NAMES]

pytestmark = pytest.mark.usefixtures("small_networks")


def shrunk(name, **fields):
    config = load(RECIPES / f"{name}.py")
    changes = TINY | {"train.steps": 2, **{k.replace("__", "."): v for k, v in fields.items()}}
    # What a recipe is about stays: its batches, but for their number, and what is held out.
    kept = ("data.batch_size", "data.validation_fraction", "preprocess.resize")
    config.update_from_flattened_dict({k: v for k, v in changes.items() if k not in kept})
    # VGG halves images five times.
    side = 32 if name.startswith("vgg") else 16
    config.data.image_size = config.preprocess.resize = side
    if config.data.validation_fraction:
        config.data.validation_fraction = 0.02
    return config


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"animals_to_plants"}))
def test_a_recipe_shrunk_runs(name, tmp_path):
    config = shrunk(name, init__reset=(), init__channel_order="", data__examples_per_class=4)
    result = training.run(config, tmp_path / "run")
    assert result["status"] == "finished" and result["frozen"]["changed"] == []
    assert result["splits"]["test"]["examples"] == 500
    assert ("validation" in result["splits"]) == name.endswith("_corrected")
    trained = {row["group"] for row in result["parameters"] if row["trainable"]}
    assert (trained == {"head"}) == ("frozen" in name)


def test_animals_to_plants_shrunk_runs_beside_its_network_from_scratch(tmp_path):
    config = shrunk("animals_to_plants")
    config.data.batch_size = 5
    source = ("data.test_split=test[:50%]", "train.steps=2", "data.validation_fraction=0.02")
    config.init.source, config.compare.seeds = source, (0,)
    rows = ablation.run(ablation.spec_of(config), tmp_path)["runs"]
    assert [row["variant"] for row in rows] == ["scratch", "transfer"]
    report = json.loads((tmp_path / rows[1]["run"] / "port_report.json").read_text())
    reset = {row["target"] for row in report["entries"] if row["status"] == "reset"}
    assert reset == {"params/head/kernel", "params/head/bias"}
    assert report["source"].startswith(str(tmp_path / "sources"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_how_it_is_run_and_what_is_wrong_with_it(name):
    text = (RECIPES / f"{name}.py").read_text()
    assert f"--config=configs/recipes/{name}.py" in text
    assert all(part in text for part in ("Needs:", "Setting:", "Result: docs/recipes.md"))
    if name in FLAWED:
        assert "Flaws:" in text and f"Corrected: configs/recipes/{name}_corrected.py" in text


# What each published recipe sets, and its sibling changes.
AS_PUBLISHED = {
    "resnet50_full_sgd": {
        "model.name": "resnet50",
        "data.image_size": 224,
        "preprocess.mean": (0.5, 0.5, 0.5),
        "preprocess.std": (0.5, 0.5, 0.5),
        "data.batch_size": 4,
        "train.epochs": 2.0,
        "optim.name": "sgd",
        "optim.learning_rate": 0.001,
        "optim.momentum": 0.9,
        "optim.schedule": "constant",
        "optim.weight_decay": 0.0,
        "freeze.strategy": "none",
        "augment.flip": False,
        "augment.crop_padding": 0,
        "data.validation_fraction": 0.0,
    },
    "resnet50_frozen_head": {
        "model.name": "resnet50",
        "data.image_size": 224,
        "preprocess.resize": 256,
        "preprocess.mean": (0.485, 0.456, 0.406),
        "preprocess.std": (0.229, 0.224, 0.225),
        "data.batch_size": 4,
        "train.epochs": 2.0,
        "optim.name": "sgd",
        "optim.learning_rate": 0.001,
        "optim.momentum": 0.9,
        "optim.weight_decay": 0.0,
        "freeze.strategy": "backbone",
        "augment.flip": False,
        "data.validation_fraction": 0.0,
    },
    "resnet18_full_sgd": {
        "model.name": "resnet18",
        "model.stem": "cifar",
        "init.reset": ("stem/conv/kernel",),
        "data.image_size": 32,
        "preprocess.mean": (0.0, 0.0, 0.0),
        "preprocess.std": (1.0, 1.0, 1.0),
        "data.batch_size": 1,
        "data.order": "stored",
        "train.epochs": 10.0,
        "train.eval_statistics": "image",
        "optim.name": "sgd",
        "optim.learning_rate": 0.001,
        "optim.momentum": 0.9,
        "optim.weight_decay": 0.0,
        "freeze.strategy": "none",
        "augment.flip": False,
        "augment.crop_padding": 0,
        "data.validation_fraction": 0.0,
    },
    "vgg16_frozen_gap": {
        "model.name": "vgg16",
        "model.classifier": "pooled",
        "init.channel_order": "rgb",
        "data.image_size": 32,
        "preprocess.mean": (0.0, 0.0, 0.0),
        "preprocess.std": (1 / 255, 1 / 255, 1 / 255),
        "data.batch_size": 32,
        "train.epochs": 10.0,
        "optim.name": "adamw",
        "optim.learning_rate": 0.001,
        "optim.weight_decay": 0.0,
        "freeze.strategy": "backbone",
        "augment.flip": True,
        "augment.operations": ("rotation=36",),
        "augment.fill": "reflect",
        "augment.once": True,
        "augment.crop_padding": 0,
        "data.validation_fraction": 0.0,
    },
}
CORRECTIONS = {
    "resnet50_full_sgd": {"preprocess.mean", "preprocess.std", "data.validation_fraction"},
    "resnet50_frozen_head": {"freeze.batch_norm", "cache.boundary", "data.validation_fraction"},
    "resnet18_full_sgd": {
        "data.batch_size",
        "data.order",
        "data.validation_fraction",
        "preprocess.mean",
        "preprocess.std",
        "optim.learning_rate",
        "train.eval_statistics",
    },
    "vgg16_frozen_gap": {
        "init.channel_order",
        "preprocess.mean",
        "preprocess.std",
        "augment.once",
        "data.validation_fraction",
    },
}


@pytest.mark.parametrize("name", FLAWED)
def test_a_recipe_is_as_published_and_its_sibling_changes_what_it_says(name):
    published, corrected = (
        flat(load(RECIPES / f"{one}.py")) for one in (name, f"{name}_corrected")
    )
    found = {field: published[field] for field in AS_PUBLISHED[name]}
    assert found == AS_PUBLISHED[name]
    changed = {field for field in published if published[field] != corrected[field]}
    assert changed == CORRECTIONS[name]
    assert corrected["data.validation_fraction"] == 0.1
