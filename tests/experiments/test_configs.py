"""Every config runs when shrunk, names what exists, and every cell of a comparison fits together."""

import json

import pytest
from running import REPOSITORY, tiny_config

from tl_jax import models
from tl_jax.ablation import spec_of
from tl_jax.ablation.cells import expand
from tl_jax.config import load as load_config
from tl_jax.runs import training
from tl_jax.runs.setup import prepare
from tl_jax.runs.splits import make_splits

CONFIGS = sorted(
    path.stem
    for path in (REPOSITORY / "configs").glob("*.py")
    if path.stem not in ("__init__", "base")
)
COMPARISONS = ["cifar10_compare", "quickstart"]

pytestmark = pytest.mark.usefixtures("small_networks")


def shrunk(name, **fields):
    config = load_config(REPOSITORY / "configs" / f"{name}.py")
    changes = {"train__steps": 1, "data__validation_fraction": 0.02}
    if config.optim.schedule == "step":
        changes |= {"optim__step_steps": (2, 4), "train__steps": 5}
    return tiny_config(name, **changes, **fields)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_shrunk_runs(name, tmp_path):
    result = training.run(shrunk(name), tmp_path / "run")
    assert result["status"] == "finished" and result["selected_step"] == result["steps"]
    assert result["splits"]["test"]["examples"] == 500
    assert result["splits"]["validation"]["examples"] == round(0.02 * 1297)
    assert result["frozen"]["changed"] == []
    frozen = {row["group"] for row in result["parameters"] if not row["trainable"]}
    stages = {row["group"] for row in result["parameters"]} - {"head"}
    is_probe = "linear_probe" in name or "sweep" in name
    assert frozen == (stages if is_probe else set())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_how_it_is_run(name):
    text = (REPOSITORY / "configs" / f"{name}.py").read_text()
    assert f"--config=configs/{name}.py" in text
    assert "Needs:" in text and "Result:" in text


@pytest.mark.parametrize("name", CONFIGS)
def test_the_weights_of_a_config_fit_its_model(name):
    config = load_config(REPOSITORY / "configs" / f"{name}.py")
    assert config.model.name in models.list_models()
    if config.init.weights:
        assert models.get_pretrained(config.init.weights).model == config.model.name


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_cell_of_a_comparison_fits_together(name):
    config = shrunk(name)
    assert len(config.compare.seeds) >= 3
    methods = dict.fromkeys(config.compare.methods)
    assert sorted(methods) == ["full_finetune", "linear_probe", "random_init"]
    weights = load_config(REPOSITORY / "configs" / f"{name}.py").init.weights
    config.init.weights = weights
    config.compare.seeds = (5,)
    cells = {cell.variant: cell.config for cell in expand(spec_of(config))}
    assert cells.keys() == methods.keys()
    for method, cell in cells.items():
        assert (cell.seed, cell.data.seed) == (5, 5)
        assert cell.init.weights == ("" if method == "random_init" else weights)
        cell.init.weights = ""
        setup = prepare(cell)
        frozen = [row for row in setup.optimisation.frozen_mask["head"].values() if row]
        assert not frozen
        assert setup.optimisation.frozen_mask["stem"]["conv"]["kernel"] == (
            method == "linear_probe"
        )


def load(name):
    return load_config(REPOSITORY / "configs" / f"{name}.py")


def images_of(config, *roles):
    splits = make_splits(config)
    return {image.tobytes() for role in roles for image in splits[role].images}


def test_the_quickstart_is_tested_on_every_digit_that_it_does_not_choose_by():
    test = images_of(load("quickstart"), "test")
    assert len(test) == 1149
    search = load("quickstart_search")
    for seed in (*load("quickstart").compare.seeds, *search.compare.seeds):
        config = load("quickstart")
        config.data.seed = seed
        assert not test & images_of(config, "train", "validation")
        search.data.seed = seed
        assert not test & images_of(search, "train", "validation", "test")
    assert not set(load("quickstart").compare.seeds) & set(search.compare.seeds)


def test_the_quickstart_has_the_setting_that_was_best_on_validation():
    """Of each method, over all learning rates, without and with crops: results/quickstart_search.json."""
    content = json.loads((REPOSITORY / "results/quickstart_search.json").read_text())
    quickstart, search = load("quickstart"), load("quickstart_search")
    found = {entry["method"]: entry["validation"]["mean"] for entry in content["methods"]}
    assert found.keys() == set(search.compare.methods)
    of_search, of_quickstart = (
        {cell.variant: cell.config for cell in expand(spec_of(config))}
        for config in (search, quickstart)
    )
    for method in quickstart.compare.methods:
        own = {name: mean for name, mean in found.items() if name.startswith(f"{method}_lr_")}
        assert len(own) == 12
        best, cell = of_search[max(own, key=own.get)], of_quickstart[method]
        for section, field in [("optim", "learning_rate"), ("augment", "crop_padding")]:
            assert cell[section][field] == best[section][field], (method, field)


@pytest.mark.parametrize("name", ["quickstart", "cifar10_compare"])
def test_a_comparison_holds_images_out_to_choose_by(name):
    config = load(name)
    assert config.data.validation_fraction > 0 and config.data.examples_per_class > 0
