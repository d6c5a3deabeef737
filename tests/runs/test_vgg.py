"""VGG in whole runs: dropout, cache, freezing, sweep and export, with nothing particular to it said."""

import json

import jax
import numpy as np
import pytest
from running import tiny_config
from safetensors.numpy import load_file

import tl_jax
from tl_jax import models
from tl_jax.errors import InputError
from tl_jax.models import registry
from tl_jax.runs import probe, sweep, training
from tl_jax.training.loops import Stopped

pytestmark = pytest.mark.usefixtures("small_networks")

# Five stages halve 32 pixels to one.
VGG = {
    "model__name": "vgg11",
    "data__image_size": 32,
    "preprocess__resize": 32,
    "init__weights": "",
}
HELD_OUT = {"data__validation_fraction": 0.3, "data__examples_per_class": 3}
FROZEN = {
    "freeze__strategy": "backbone",
    "augment__crop_padding": 0,
    "cache__boundary": "auto",
}


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, name):
    """Dropout draws the same in the update in which the run is resumed."""
    fields = VGG | {"model__name": name, "train__steps": 6, "train__updates_per_dispatch": 1}
    asked = iter(range(100))
    with pytest.raises(Stopped):
        training.run(tiny_config(**fields), tmp_path / "run", lambda: next(asked) >= 3)
    resumed = tl_jax.finetune(tiny_config(**fields), tmp_path / "run")
    assert 0 < resumed.result["resumed_at_step"] < 6
    same(resumed, tl_jax.finetune(tiny_config(**fields), tmp_path / "whole"))
    without = tl_jax.finetune(tiny_config(**fields, model__dropout=0.0), tmp_path / "without")
    kernels = [run.variables["params"]["hidden"]["fc1"]["kernel"] for run in (resumed, without)]
    assert (kernels[0] != kernels[1]).any()  # something was dropped


def test_one_device_and_eight_drop_the_same(tmp_path):
    fields = VGG | {"data__batch_size": 16, "optim__learning_rate": 0.01}
    one, eight = (
        tl_jax.finetune(tiny_config(**fields, parallel__devices=count), tmp_path / str(count))
        for count in (1, 8)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.variables, eight.variables
    )


def test_the_cache_ends_before_dropout(tmp_path):
    """Of a frozen backbone the pooled map is stored; the hidden layers drop, so they run at every update."""
    run = tl_jax.finetune(tiny_config(**VGG | FROZEN), tmp_path / "cached")
    assert run.result["cache"]["boundary"] == "pool"
    assert run.result["cache"]["banks"][0]["activation"] == str(49 * 32)
    plain = tl_jax.finetune(
        tiny_config(**VGG | FROZEN | {"cache__boundary": ""}), tmp_path / "plain"
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), run.variables, plain.variables
    )
    with pytest.raises(
        InputError, match=r"up to hidden does in training .* dropout; nearest .* pool"
    ):
        tl_jax.finetune(
            tiny_config(**VGG | FROZEN | {"cache__boundary": "hidden"}), tmp_path / "no"
        )
    config = tiny_config(**VGG | FROZEN, model__dropout=0.0)
    assert tl_jax.finetune(config, tmp_path / "none").result["cache"]["boundary"] == "hidden"
    config = tiny_config(**VGG | FROZEN, model__classifier="pooled", model__dropout=0.3)
    assert tl_jax.finetune(config, tmp_path / "pooled").result["cache"]["boundary"] == "pool"


def test_groups_are_frozen_and_slowed_from_input_to_head(tmp_path):
    config = tiny_config(
        **VGG | {"freeze__strategy": "up_to:stage4", "optim__layerwise_decay": 0.5}
    )
    run = tl_jax.finetune(config, tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "freezing.json").read_text())
    assert [(row["group"], row["state"], row["lr_multiplier"]) for row in rows] == [
        ("stage1", "frozen", "-"),
        ("stage2", "frozen", "-"),
        ("stage3", "frozen", "-"),
        ("stage4", "frozen", "-"),
        ("stage5", "trainable", 0.25),
        ("hidden", "trainable", 0.5),
        ("head", "trainable", 1.0),
    ]
    assert run.result["frozen"] == {"frozen_leaves": 8, "frozen_statistics": 0, "changed": []}


def test_batch_norm_alone_is_trained_where_there_is_some(tmp_path):
    fields = VGG | {"freeze__strategy": "all_but_bn"}
    run = tl_jax.finetune(tiny_config(**fields | {"model__name": "vgg11_bn"}), tmp_path / "run")
    trained = {row["group"]: row["state"] for row in run.result["parameters"]}
    assert trained == {
        **{f"stage{number}": "mixed" for number in range(1, 6)},
        "hidden": "frozen",
        "head": "trainable",
    }
    with pytest.raises(InputError, match="the network has no BatchNorm; expected 'backbone'"):
        tl_jax.finetune(tiny_config(**fields), tmp_path / "new")


def test_a_member_of_a_sweep_is_the_run_alone(tmp_path):
    config = tiny_config(**VGG | FROZEN | HELD_OUT, model__dropout=0.2)
    config.freeze.strategy, config.cache.boundary = "up_to:stage5", "pool"
    config.sweep.learning_rate = (0.01, 0.1)
    result = sweep.run(config, tmp_path / "sweep")
    alone = config.copy_and_resolve_references()
    alone.optim.learning_rate = result["chosen"]["learning_rate"]
    tl_jax.finetune(alone, tmp_path / "alone")
    exported = [load_file(tmp_path / name / "weights.safetensors") for name in ("sweep", "alone")]
    assert exported[0].keys() == exported[1].keys()
    for name, array in exported[0].items():
        np.testing.assert_allclose(array, exported[1][name], atol=2e-6, err_msg=name)


def test_a_probe_is_of_the_hidden_layers_without_dropout(tmp_path):
    config = tiny_config(**VGG | HELD_OUT)
    config.probe.count = 3
    result = probe.run(config, tmp_path / "run")
    assert result["cache"]["boundary"] == "hidden"
    run = tl_jax.load_run(tmp_path / "run")
    assert run.variables["params"]["head"]["kernel"].shape == (16, 10)


@pytest.mark.parametrize("classifier", ["hidden", "pooled"])
def test_exported_as_torchvision_and_read_back(tmp_path, classifier):
    config = tiny_config(**VGG, model__classifier=classifier)
    config.model.name = "vgg11_bn"
    run = tl_jax.finetune(config, tmp_path / "run")
    exported = load_file(tmp_path / "run" / "weights.safetensors")
    assert exported["features.4.weight"].shape == (8, 4, 3, 3)
    assert "features.5.running_mean" in exported and "features.5.num_batches_tracked" in exported
    hidden = {"classifier.0.weight": (16, 49 * 32), "classifier.3.weight": (16, 16)}
    for name, shape in hidden.items():
        assert (exported[name].shape == shape) if classifier == "hidden" else name not in exported
    last = {"hidden": 16, "pooled": 32}[classifier]
    assert exported["classifier.6.weight"].shape == (10, last)
    config.init.weights, config.init.head = str(tmp_path / "run"), "keep"
    config.train.steps, config.optim.learning_rate = 1, 0.0
    config.optim.weight_decay = 0.0
    again = tl_jax.finetune(config, tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, run.variables["params"], again.variables["params"])


def test_pooled_features_of_weights_that_have_hidden_layers(tmp_path):
    tl_jax.finetune(tiny_config(**VGG), tmp_path / "run")
    fields = VGG | {"model__classifier": "pooled", "init__weights": str(tmp_path / "run")}
    tl_jax.finetune(tiny_config(**fields), tmp_path / "pooled")
    report = json.loads((tmp_path / "pooled" / "port_report.json").read_text())
    waived = {row["source"]: row["rule"] for row in report["entries"] if row["status"] == "waived"}
    reset = "head=reset: the head starts fresh"
    absent = "model.classifier=pooled: the network has no hidden layers"
    assert waived == {
        **{f"classifier.{layer}.{leaf}": absent for layer in (0, 3) for leaf in ("weight", "bias")},
        **{f"classifier.6.{leaf}": reset for leaf in ("weight", "bias")},
    }
    # The other way round there is nothing to fill the hidden layers with.
    fields = VGG | {"init__weights": str(tmp_path / "pooled")}
    with pytest.raises(InputError, match=r"missing: classifier\.0\.weight, for params/hidden/fc1"):
        tl_jax.finetune(tiny_config(**fields), tmp_path / "new")


def test_images_that_are_too_small(tmp_path):
    with pytest.raises(
        InputError, match=r"stage4 is given a map of 1x1 pixels.* 32 pixels or more"
    ):
        tl_jax.finetune(tiny_config(**VGG | {"data__image_size": 8}), tmp_path / "run")


def test_options_that_vgg_does_not_have(tmp_path):
    for field, value in [("stem", "cifar"), ("zero_init_residual", True)]:
        with pytest.raises(
            InputError, match=rf"model\.{field}={value!r}: vgg11 has no such option"
        ):
            tl_jax.finetune(tiny_config(**VGG, **{f"model__{field}": value}), tmp_path / "run")
    assert set(registry.ARCHITECTURES["vgg11"].options) == {
        "classifier", "dropout", "dtype", "remat",
    }  # fmt: skip


def test_dropout_before_the_head_of_a_resnet(tmp_path):
    fields = {"model__name": "resnet20_cifar", "train__steps": 2}
    dropped, plain = (
        tl_jax.finetune(tiny_config(**fields, model__dropout=rate), tmp_path / str(rate))
        for rate in (0.5, -1.0)
    )
    heads = [run.variables["params"]["head"]["kernel"] for run in (dropped, plain)]
    assert (heads[0] != heads[1]).any()
    assert dropped.model.dropout == 0.5 and plain.model == models.create_model("resnet20_cifar", 10)
    with pytest.raises(InputError, match=r"dropout is -0.5, expected"):
        tl_jax.finetune(tiny_config(**fields, model__dropout=-0.5), tmp_path / "new")
