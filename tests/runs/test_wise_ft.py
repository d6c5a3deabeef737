"""WiSE-FT as a run: the weights that are reported, where it goes on after an interrupt, and what is refused."""

import numpy as np
import pytest

import tl_jax
from tl_jax import trees
from tl_jax.errors import InputError
from tl_jax.runs import training
from tl_jax.training import loops

pytestmark = pytest.mark.usefixtures("small_networks")

PROBE = ("freeze.strategy=backbone", "train.steps=3", "optim.learning_rate=0.5")
FINETUNE = ("freeze.strategy=none", "train.steps=4", "train.eval_every_steps=0")
AVERAGE = ("average.name=wise_ft", "average.alpha=0.25")


def config_of(*phases, **fields):
    given = {
        "model__name": "resnet20_cifar",
        "data__name": "digits",
        "data__image_size": 8,
        "data__examples_per_class": 6,
        "data__batch_size": 20,
        "data__validation_fraction": 0.0,
        "parallel__devices": 1,
        "augment__crop_padding": 0,
        "train__steps": 3,
        "train__updates_per_dispatch": 1,
        "optim__learning_rate": 0.1,
        "optim__schedule": "constant",
        "report__html": False,
        "report__tensorboard": False,
    }
    return tl_jax.default_config(**{**given, **fields}, phases=phases)


def params_of(config, folder):
    return trees.flatten(tl_jax.finetune(config, folder).variables["params"])


def test_the_reported_weights_are_between_the_probe_and_the_fine_tuned_ones(tmp_path):
    start = params_of(config_of(PROBE), tmp_path / "probe")
    live = params_of(config_of(PROBE, FINETUNE), tmp_path / "live")
    run = tl_jax.finetune(config_of(PROBE, (*FINETUNE, *AVERAGE)), tmp_path / "wise")
    assert run.result["averaged"]
    assert run.result["selection"].startswith("the averaged weights (WiSE-FT) of the last step, 7")
    found = trees.flatten(run.variables["params"])
    for name in live:
        np.testing.assert_allclose(
            found[name], 0.75 * start[name] + 0.25 * live[name], rtol=2e-6, atol=1e-7, err_msg=name
        )
    moved = max(np.abs(live[name] - start[name]).max() for name in live)
    assert moved > 1e-3
    # The statistics are those of these weights, not of the live ones.
    statistics = [
        trees.flatten(tl_jax.load_run(tmp_path / name).variables["batch_stats"])
        for name in ("live", "wise")
    ]
    assert any(
        np.abs(statistics[0][name] - statistics[1][name]).max() > 1e-4 for name in statistics[0]
    )


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    config = config_of(PROBE, (*FINETUNE, *AVERAGE))
    whole = params_of(config, tmp_path / "whole")
    asked = iter([False] * 5 + [True])
    with pytest.raises(loops.Stopped):
        training.run(config, tmp_path / "run", stop_requested=lambda: next(asked))
    resumed = params_of(config, tmp_path / "run")
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"average\.name=wise_ft from init\.head=reset, init\.weights='': the weights at the"),
        ({"init__head": "keep"}, r"average\.name=wise_ft from init\.head=keep, init\.weights=''"),
        ({"average__alpha": 1.5}, r"average\.alpha=1\.5: expected a number in \[0, 1\]"),
    ],
)
def test_a_start_with_a_random_head_is_refused(tmp_path, fields, message):
    config = config_of(average__name="wise_ft", **fields)
    with pytest.raises(InputError, match=message):
        tl_jax.finetune(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
