"""Runs that patience ends: where, what their results say, and that a resumed one ends there too."""

import pytest
from running import tiny_config

from tl_jax.errors import InputError
from tl_jax.runs import sweep, training
from tl_jax.training import loops

pytestmark = pytest.mark.usefixtures("small_networks")


def config_of(**fields):
    """A run that learns nothing: the first evaluation stays the best."""
    return tiny_config(
        **{
            "model__name": "small_cnn",
            "optim__learning_rate": 0.0,
            "data__validation_fraction": 0.1,
            "train__steps": 20,
            "train__eval_every_steps": 2,
            "train__patience": 3,
        }
        | fields
    )


def test_a_run_ends_after_so_many_evaluations_without_a_new_best(tmp_path):
    result = training.run(config_of(), tmp_path / "run")
    assert (result["steps"], result["selected_step"], result["stopped_early"]) == (8, 2, True)
    assert "stopped at step 8 of 20, 3 evaluations without a better one" in result["selection"]
    assert result["phases"][0]["last_step"] == 8
    assert result["images_per_second"] == pytest.approx(8 * 10 / result["wall_seconds"])
    whole = training.run(config_of(train__patience=0), tmp_path / "whole")
    assert (whole["steps"], whole["stopped_early"]) == (20, False)
    assert "stopped" not in whole["selection"]


def test_a_run_that_was_cut_short_ends_there_too(tmp_path):
    asked = iter([False] * 5 + [True])
    with pytest.raises(loops.Stopped):
        training.run(
            config_of(train__updates_per_dispatch=1),
            tmp_path / "run",
            stop_requested=lambda: next(asked, True),
        )
    result = training.run(config_of(train__updates_per_dispatch=1), tmp_path / "run")
    assert (result["resumed_at_step"], result["steps"], result["selected_step"]) == (6, 8, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data__validation_fraction": 0.0}, "nothing is held out"),
        ({"train__eval_every_steps": 0, "train__eval_every_epochs": 0.0}, "at the end only"),
        ({"phases": (("train.steps=4",), ())}, "run of several phases"),
    ],
)
def test_patience_without_anything_to_wait_for(fields, message, tmp_path):
    with pytest.raises(InputError, match=message):
        training.run(config_of(**fields), tmp_path / "run")


def test_a_sweep_has_a_patience_of_its_own(tmp_path):
    config = config_of(
        model__name="resnet20_cifar",
        freeze__strategy="backbone",
        augment__crop_padding=0,
        augment__flip=False,
        sweep__learning_rate=(0.1,),
    )
    with pytest.raises(InputError, match=r"expected 0, and sweep\.patience"):
        sweep.run(config, tmp_path / "run")
