"""A linear probe: chosen on validation, fitted again with it, one reading of test."""

import json

import numpy as np
import pytest
from running import tiny_config, tree_of

from tl_jax.augment import preprocessing
from tl_jax.config import FIELDS
from tl_jax.errors import InputError
from tl_jax.runs import probe
from tl_jax.runs.setup import prepare
from tl_jax.training import logistic


@pytest.fixture(scope="module")
def make_config(small_networks, tmp_path_factory):
    store = tmp_path_factory.mktemp("activations")

    def make(section=None, **fields):
        given = {
            "data__validation_fraction": 0.1,
            "data__examples_per_class": 10,
            "data__batch_size": 16,
            "cache__dir": str(store),
        }
        config = tiny_config("digits_sweep", **(given | fields))
        config.probe.update({"least": 1e-3, "most": 10.0, "count": 5, "max_evaluations": 1000})
        with config.unlocked():
            config.probe.update(section or {})
        return config

    return make


@pytest.fixture(scope="module")
def probed(make_config, tmp_path_factory):
    config, workdir = make_config(), tmp_path_factory.mktemp("probe") / "run"
    return config, workdir, probe.run(config, workdir)


def test_what_a_probe_leaves(probed):
    _, workdir, result = probed
    names = {path.name for path in workdir.iterdir()}
    assert names >= {
        "config.json", "probe.json", "probe.html", "plots", "weights.safetensors", "predictions.npz",
        "result.json",
    }  # fmt: skip
    assert json.loads((workdir / "result.json").read_text()) == json.loads(json.dumps(result))
    content = json.loads((workdir / "probe.json").read_text())
    assert [row["strength"] for row in content["strengths"]] == [1e-3, 1e-2, 0.1, 1.0, 10.0]
    best = max(row["validation_top1"] for row in content["strengths"])
    assert result["splits"]["validation"]["top1_accuracy"] == best
    assert content["chosen"] == result["strength"]
    objectives = [row["objective"] for row in content["strengths"]]
    assert objectives == sorted(objectives)


@pytest.fixture(scope="module")
def features(probed):
    """Returns {split: (features float64 [N, F], labels [N])}, computed from the images of the config."""
    setup = prepare(probe._run_config(probed[0]))
    pixels = preprocessing.make_eval_transform(setup.preprocessing)
    return {
        name: (
            np.asarray(
                setup.model.apply(
                    setup.initial.variables, pixels(split.images), train=False, stop="pool"
                ),
                np.float64,
            ),
            split.labels,
        )
        for name, split in setup.splits.items()
    }


def test_the_strength_is_chosen_on_validation(probed, features):
    """Every strength is fitted on train alone; the accuracies on test would be other ones."""
    _, workdir, result = probed
    rows = json.loads((workdir / "probe.json").read_text())["strengths"]
    strengths = [row["strength"] for row in rows]
    fits = logistic.fit(*features["train"], 10, strengths, max_evaluations=1000)
    top1 = {
        name: logistic.top1_accuracy(fits.kernel, fits.bias, *features[name])
        for name in ("validation", "test")
    }
    told = np.array([row["validation_top1"] for row in rows])
    np.testing.assert_allclose(told, top1["validation"], atol=1 / len(features["validation"][1]))
    assert np.abs(told - top1["test"]).max() > 2 / len(features["validation"][1])
    best = [s for s, value in zip(strengths, told, strict=True) if value == told.max()]
    assert result["strength"] == max(best)


def test_the_refit_is_the_optimum_of_train_and_validation(probed, features):
    """The gradient of its objective vanishes there, and that of train alone does not."""
    config, workdir, result = probed
    held_out = result["splits"]["validation"]["examples"]
    assert held_out == round(0.1 * 1297)
    assert result["train_examples"] == 100 + held_out
    assert result["refit"]["converged"]
    config = config.copy_and_resolve_references()
    config.init.weights, config.init.head = str(workdir), "keep"
    head = prepare(probe._run_config(config)).initial.variables["params"]["head"]
    kernel, bias = (np.asarray(head[name], np.float64) for name in ("kernel", "bias"))

    def largest_gradient(*names):
        rows = np.concatenate([features[name][0] for name in names])
        labels = np.concatenate([features[name][1] for name in names])
        logits = rows @ kernel + bias
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        errors = (probabilities - np.eye(10)[labels]) / len(labels)
        penalty = result["strength"] / len(labels) * kernel
        return max(np.abs(rows.T @ errors + penalty).max(), np.abs(errors.sum(0)).max())

    tolerance = FIELDS["probe.tolerance"].default
    assert largest_gradient("train", "validation") < 2 * tolerance  # float32 features
    assert largest_gradient("train") > 20 * tolerance
    assert largest_gradient("train", "validation", "test") > 20 * tolerance


def test_its_weights_are_the_whole_network(probed):
    config, workdir, result = probed
    config = config.copy_and_resolve_references()
    config.init.weights, config.init.head = str(workdir), "keep"
    setup = prepare(probe._run_config(config))
    variables = setup.initial.variables
    measured, logits = setup.evaluator(
        variables["params"], variables["batch_stats"], setup.splits["test"]
    )
    assert measured["top1_accuracy"] == result["splits"]["test"]["top1_accuracy"]
    with np.load(workdir / "predictions.npz") as saved:
        np.testing.assert_array_equal(saved["probabilities"].argmax(-1), logits.argmax(-1))


def test_a_finished_probe_says_so(probed, capsys):
    config, workdir, result = probed
    before = tree_of(workdir)
    assert probe.run(config, workdir) == json.loads(json.dumps(result))
    assert tree_of(workdir) == before
    assert "is finished" in capsys.readouterr().out


TRAINING = {
    "train__patience": 3,
    "train__eval_every_epochs": 0.0,
    "train__fit_to_data": True,
    "train__steps": 0,
    "augment__once": True,
    "optim__accumulation": 5,
    "optim__lr_multipliers": ("stem/.*=0.1",),
    "data__batch_size": 1000,
}


def test_what_only_training_reads_changes_nothing(make_config, probed, tmp_path, capsys):
    """A config may say how its fine-tuning goes; the probe of it is the same, and says nothing of that."""
    result = probe.run(make_config(**TRAINING), tmp_path / "run")
    assert result["splits"] == probed[2]["splits"] and result["refit"] == probed[2]["refit"]
    assert result["fitted"] is None
    out = capsys.readouterr().out
    assert "(L-BFGS, 5 L2 strengths)" in out and "updates" not in out and "fitted to" not in out


def test_another_grid_is_another_probe(make_config, probed):
    _, workdir, _ = probed
    before = tree_of(workdir)
    with pytest.raises(InputError, match=r"\nprobe\.count: 5 in the folder, 4 given$"):
        probe.run(make_config({"count": 4}), workdir)
    assert tree_of(workdir) == before


def test_the_grid_of_the_literature_is_the_default():
    """45 strengths from 1e-6 to 1e5: Kornblith et al. 2019 (arXiv:1805.08974)."""
    grid = tiny_config("digits_sweep").probe
    assert (grid.least, grid.most, grid.count) == (1e-6, 1e5, 45)


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ({"leest": 1.0}, {}, "unknown config field 'probe.leest'; nearest: probe.least"),
        ({"least": 0.0}, {}, "probe.least=0.0: expected a number in (0, inf)"),
        ({"least": 9.0, "most": 1.0}, {}, "expected 0 < least <= most"),
        ({}, {"data__validation_fraction": 0.0}, "nothing is held out"),
        (
            {},
            {"augment__operations": ("rotation=9",)},
            "augment.operations=('rotation=9',): a probe is",
        ),
        (
            {},
            {"augment__mixing": ("mixup=1",)},
            "augment.mixing=('mixup=1',): a probe is fitted to",
        ),
        (
            {},
            {"train__eval_statistics": "image"},
            "train.eval_statistics=image: a probe is fitted to features that are computed with running statistics",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_made(
    make_config, tmp_path, section, fields, message
):
    with pytest.raises(InputError) as raised:
        probe.run(make_config(section, **fields), tmp_path / "new")
    assert message in str(raised.value)
    assert tree_of(tmp_path) == {}
