"""AdaBN: the statistics that a run starts from, against NumPy's of the same images, and what it leaves alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tl_jax
from tl_jax import models, trees
from tl_jax.augment import preprocessing
from tl_jax.errors import InputError
from tl_jax.models.convolution import convolve
from tl_jax.runs import target_statistics, training
from tl_jax.runs.setup import prepare_phases
from tl_jax.training import loops

pytestmark = pytest.mark.usefixtures("small_networks")


def config_of(**fields):
    given = {
        "model__name": "resnet20_cifar",
        "data__name": "digits",
        "data__image_size": 8,
        "data__examples_per_class": 4,
        "data__batch_size": 20,
        "data__validation_fraction": 0.0,
        "parallel__devices": 1,
        "augment__crop_padding": 0,
        "train__steps": 3,
        "freeze__strategy": "backbone",
        "init__batch_stats": "target",
        "optim__schedule": "constant",
        "report__html": False,
        "report__tensorboard": False,
    }
    return tl_jax.default_config(**{**given, **fields})


def statistics_of(setup):
    return trees.flatten(setup.initial.variables["batch_stats"])


def test_the_first_statistics_are_those_of_the_first_convolution_on_all_images():
    (before,) = prepare_phases(config_of())
    (after,) = target_statistics.adapted((before,))
    split = before.splits["train"]
    images = preprocessing.make_eval_transform(before.preprocessing)(
        jnp.asarray(split.gather(np.arange(len(split))))
    )
    kernel = trees.flatten(before.initial.variables["params"])["stem/conv/kernel"]
    maps = np.asarray(convolve(images, kernel), np.float64)
    found = statistics_of(after)
    np.testing.assert_allclose(found["stem/bn/mean"], maps.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    unbiased = maps.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(found["stem/bn/var"], unbiased, rtol=1e-5)
    assert target_statistics.facts((after,)) == {"target_statistics": 40}
    for name, leaf in trees.flatten(before.initial.variables["params"]).items():
        assert trees.flatten(after.initial.variables["params"])[name] is leaf


def test_later_layers_see_what_the_layers_before_make_of_it():
    """In evaluation, adapted to all images, each layer is normalised as in training on all of them at once."""
    (before,) = prepare_phases(config_of())
    (after,) = target_statistics.adapted((before,))
    split = before.splits["train"]
    images = preprocessing.make_eval_transform(before.preprocessing)(
        jnp.asarray(split.gather(np.arange(len(split))))
    )
    forward = models.make_forward(before.model)
    params = before.initial.variables["params"]
    adapted, _ = forward(params, after.initial.variables["batch_stats"], images, train=False)
    training_mode, _ = forward(params, before.initial.variables["batch_stats"], images, train=True)
    # Variances are unbiased, and those that a batch is normalised by are not.
    np.testing.assert_allclose(adapted, training_mode, rtol=0.1, atol=0.05)
    source, _ = forward(params, before.initial.variables["batch_stats"], images, train=False)
    assert np.abs(source - training_mode).max() > 5 * np.abs(adapted - training_mode).max()


def test_a_run_keeps_them_and_says_on_how_many_images_they_were_estimated(tmp_path, capsys):
    run = tl_jax.finetune(config_of(), tmp_path / "run", progress=True)
    (before,) = prepare_phases(config_of())
    (after,) = target_statistics.adapted((before,))
    for name, leaf in statistics_of(after).items():
        np.testing.assert_array_equal(
            trees.flatten(run.variables["batch_stats"])[name], leaf, err_msg=name
        )
    assert run.result["target_statistics"] == 40
    assert "BatchNorm: statistics of 40 training images" in capsys.readouterr().out
    other = tl_jax.finetune(config_of(init__batch_stats="weights"), tmp_path / "other")
    assert "target_statistics" not in other.result


@pytest.mark.parametrize("fields", [{}, {"cache__boundary": "auto", "augment__flip": False}])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, fields):
    config = config_of(
        **fields,
        cache__dir=str(tmp_path / "cache"),
        train__steps=12,
        train__updates_per_dispatch=1,
        train__log_every_steps=1,
    )
    whole = tl_jax.finetune(config, tmp_path / "whole")
    asked = itertools.count()
    with pytest.raises(loops.Stopped):
        training.run(config, tmp_path / "run", stop_requested=lambda: next(asked) >= 4)
    resumed = tl_jax.finetune(config, tmp_path / "run")
    for one, other in zip(
        jax.tree.leaves(whole.variables), jax.tree.leaves(resumed.variables), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_solved_heads_are_on_the_adapted_features(tmp_path):
    losses = [
        tl_jax.finetune(
            config_of(init__batch_stats=start, solver__name="nearest_mean"), tmp_path / start
        ).result["splits"]["test"]["loss"]
        for start in ("weights", "target")
    ]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^init\.batch_stats=target: vgg11 has no running statis"):
        tl_jax.finetune(config_of(model__name="vgg11", data__image_size=32), tmp_path / "run")
    assert not (tmp_path / "run").exists()
