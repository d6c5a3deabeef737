"""Runs with adapters: what moves, what is exported, and what goes on after an interrupt."""

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import tl_jax
from tl_jax import models, trees
from tl_jax.errors import InputError
from tl_jax.runs import training
from tl_jax.runs.setup import check_config
from tl_jax.training import loops

pytestmark = pytest.mark.usefixtures("small_networks")


def config_of(**fields):
    given = {
        "model__name": "resnet20_cifar",
        "model__adapters": "residual",
        "data__name": "digits",
        "data__image_size": 8,
        "data__examples_per_class": 6,
        "data__batch_size": 20,
        "data__validation_fraction": 0.0,
        "parallel__devices": 1,
        "augment__crop_padding": 0,
        "freeze__strategy": "all_but_adapters",
        "train__steps": 6,
        "train__updates_per_dispatch": 1,
        "optim__learning_rate": 0.3,
        "optim__schedule": "constant",
        "report__html": False,
        "report__tensorboard": False,
    }
    return tl_jax.default_config(**{**given, **fields})


@pytest.fixture(scope="module")
def plain(small_networks, tmp_path_factory):
    """Returns a run without adapters, whose weights others start from."""
    config = config_of(model__adapters="", freeze__strategy="none", train__steps=4)
    return tl_jax.finetune(config, tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module", params=models.ADAPTERS)
def run(request, plain, tmp_path_factory):
    config = config_of(
        model__adapters=request.param,
        init__weights=str(plain.workdir),
        **({"model__adapter_rank": 2} if request.param == "low_rank" else {}),
    )
    return tl_jax.finetune(config, tmp_path_factory.mktemp("run") / "run"), config


def test_adapters_norms_and_the_head_are_trained_and_nothing_else(run):
    made, _ = run
    rows = {row["group"]: row for row in made.result["parameters"]}
    assert {row["state"] for name, row in rows.items() if name != "head"} == {"mixed"}
    assert rows["head"]["state"] == "trainable"
    assert made.result["frozen"]["changed"] == [] and made.result["frozen"]["frozen_leaves"] > 0


def test_what_is_exported_is_the_network_without_adapters(run, plain, tmp_path):
    made, _ = run
    tensors = safetensors_numpy.load_file(made.workdir / "weights.safetensors")
    before = safetensors_numpy.load_file(plain.workdir / "weights.safetensors")
    assert sorted(tensors) == sorted(before)
    images = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3)).astype(np.uint8)
    without = config_of(
        model__adapters="",
        freeze__strategy="none",
        init__weights=str(made.workdir / "weights.safetensors"),
        init__head="keep",
        optim__learning_rate=0.0,
        optim__weight_decay=0.0,
        freeze__patterns=(".*/(scale|bias)",),
        train__steps=1,
    )
    same = tl_jax.finetune(without, tmp_path / "run")
    np.testing.assert_allclose(made.predict(images), same.predict(images), rtol=1e-4, atol=1e-6)
    changed = [name for name in tensors if not np.array_equal(tensors[name], before[name])]
    assert any("conv" in name for name in changed)  # merged


def test_a_run_is_loaded_and_evaluated_as_it_was(run, tmp_path):
    made, _ = run
    loaded = tl_jax.load_run(made.workdir)
    images = np.random.default_rng(1).integers(0, 255, (5, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_allclose(loaded.predict(images), made.predict(images), rtol=1e-5, atol=1e-7)
    evaluated = tl_jax.evaluate(made.workdir, tmp_path / "evaluated")
    for name in ("top1_accuracy", "loss"):
        expected = made.result["splits"]["test"][name]
        assert evaluated["splits"]["test"][name] == pytest.approx(expected, rel=1e-5)


def test_an_interrupted_run_ends_with_the_same_bits(run, tmp_path):
    made, config = run
    asked = iter([False] * 3 + [True] * 9)
    with pytest.raises(loops.Stopped):
        training.run(config, tmp_path / "run", stop_requested=lambda: next(asked))
    resumed = tl_jax.finetune(config, tmp_path / "run")
    for name, leaf in trees.flatten(made.variables["params"]).items():
        np.testing.assert_array_equal(
            trees.flatten(resumed.variables["params"])[name], leaf, err_msg=name
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model__adapters": ""},
            r"strategy 'all_but_adapters': the network has no adapters \(model\.adapters\)",
        ),
        ({"model__adapter_rank": 2}, r"model\.adapter_rank=2 with model\.adapters='residual' has"),
        (
            {"freeze__strategy": "backbone"},
            "model.adapters=residual: freeze.strategy=backbone freezes all adapters, which then have no effect; "
            "expected freeze.strategy=all_but_adapters",
        ),
        (
            {"freeze__strategy": "none", "freeze__patterns": (".*adapter.*", "stem/.*")},
            r"freeze.strategy=none with freeze.patterns=.* freezes all adapters",
        ),
        (
            {
                "freeze__strategy": "none",
                "phases": (("freeze.strategy=backbone", "train.steps=1"),) * 2,
            },
            "model.adapters=residual: every phase freezes all adapters",
        ),
        ({"model__adapters": "residul"}, "unknown model.adapters 'residul'; nearest: residual"),
        (
            {"model__adapters": "low_rank", "model__adapter_rank": 999},
            r"model\.adapters=low_rank: no convolution of the network has a kernel for them",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields, message, tmp_path):
    with pytest.raises(InputError, match=message):
        tl_jax.finetune(config_of(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_adapters_may_be_trained_in_one_phase_alone():
    phases = (
        ("freeze.strategy=backbone", "train.steps=1"),
        ("freeze.strategy=all_but_adapters", "train.steps=1"),
    )
    check_config(config_of(freeze__strategy="none", phases=phases))
