"""Uneven data in whole runs: class weights, balanced batches, repeats, and metrics that choose the step."""

import json

import jax
import numpy as np
import pytest
from running import assert_same_bits, metric_lines, tiny_config

import tl_jax
from tl_jax.augment import make_train_transform
from tl_jax.errors import InputError
from tl_jax.runs import probe, sweep, training
from tl_jax.runs.setup import prepare
from tl_jax.training.evaluator import Evaluator
from tl_jax.training.loops import Stopped
from tl_jax.training.metrics import CLASS_AVERAGES

pytestmark = pytest.mark.usefixtures("small_networks")

COUNTS = (24, 6, 10)


def uneven(counts, seed):
    """Returns 8 px images whose brightness says their class, and labels class by class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).integers(0, 90, (len(labels), 8, 8, 3))
    return (noise + 60 * labels[:, None, None, None]).astype(np.uint8), labels.astype(np.int32)


SPLITS = {
    "train": uneven(COUNTS, 0),
    "validation": uneven((8, 2, 4), 1),
    "test": uneven((3, 9, 5), 2),
}


def made(**fields):
    named = {
        "data__examples_per_class": 0,
        "data__batch_size": 8,
        "train__updates_per_dispatch": 1,
        "train__steps": 4,
    }
    return tiny_config(**named | fields)


def train(folder, **fields):
    return tl_jax.finetune(made(**fields), folder, data=SPLITS).result


@pytest.fixture(scope="module")
def weighted(small_networks, tmp_path_factory):
    """Returns the folder of a run with balanced class weights and a report."""
    folder = tmp_path_factory.mktemp("uneven") / "run"
    train(
        folder,
        objective__class_weighting="balanced",
        train__select_by="macro_f1",
        train__eval_every_steps=2,
        report__html=True,
    )
    return folder


def test_weights_are_those_of_the_training_images(weighted):
    result = json.loads((weighted / "result.json").read_text())
    wanted = [40 / (3 * count) for count in COUNTS]
    assert list(result["class_weights"].values()) == pytest.approx(wanted)
    assert list(result["class_weights"]) == result["class_names"]


def test_averages_over_classes_are_in_every_split(weighted):
    sklearn = pytest.importorskip("sklearn.metrics")
    result = json.loads((weighted / "result.json").read_text())
    for split in result["splits"].values():
        assert set(CLASS_AVERAGES) < set(split)
    with np.load(weighted / "predictions.npz") as saved:
        labels, predicted = saved["labels"], saved["probabilities"].argmax(-1)
    wanted = sklearn.f1_score(labels, predicted, average="macro", zero_division=0)
    assert result["splits"]["test"]["macro_f1"] == pytest.approx(wanted)
    logged = [line for line in metric_lines(weighted) if line["split"] == "validation"]
    assert len(logged) == 2 and all(set(CLASS_AVERAGES) < set(line) for line in logged)


def test_the_report_shows_weights_averages_and_what_chose(weighted):
    text = (weighted / "report.html").read_text()
    assert "0: 0.5556; 2: 1.333; 1: 2.222" in text
    assert "<th" in text and "macro F1</th>" in text and "weighted by examples" in text
    assert "the best macro F1 on 14 images held out of train" in text
    assert (weighted / "plots" / "macro_f1.png").is_file()
    assert not (weighted / "plots" / "macro_precision.png").exists()


def test_an_evaluation_has_the_averages_too(weighted, tmp_path):
    given = tl_jax.evaluate(weighted, tmp_path / "again", data=SPLITS["test"])
    result = json.loads((weighted / "result.json").read_text())
    wanted = result["splits"]["test"]
    assert {name: given["splits"]["test"][name] for name in CLASS_AVERAGES} == {
        name: wanted[name] for name in CLASS_AVERAGES
    }


SCRIPT = {
    # Four evaluations; each metric has its best one at another step.
    "top1_accuracy": (0.9, 0.2, 0.3, 0.4),
    "balanced_accuracy": (0.2, 0.9, 0.3, 0.4),
    "macro_f1": (0.2, 0.3, 0.9, 0.4),
    "loss": (0.5, 0.5, 0.5, 0.1),
}
CHOSEN = {"top1_accuracy": 2, "balanced_accuracy": 4, "macro_f1": 6, "loss": 8}


def scripted(monkeypatch):
    """Makes the evaluations of a run on validation give these metrics; returns the heads that were evaluated."""
    call, heads = Evaluator.__call__, []

    def replaced(self, params, batch_stats, split):
        measured, logits = call(self, params, batch_stats, split)
        heads.append(np.asarray(params["head"]["kernel"]).tobytes())
        if len(split) == len(SPLITS["validation"][1]) and len(heads) <= 4:
            measured = measured | {name: values[len(heads) - 1] for name, values in SCRIPT.items()}
        return measured, logits

    monkeypatch.setattr(Evaluator, "__call__", replaced)
    return heads


@pytest.mark.parametrize("metric", SCRIPT)
def test_the_step_is_chosen_by_the_metric(metric, monkeypatch, tmp_path):
    heads = scripted(monkeypatch)
    fields = {"train__steps": 8, "train__eval_every_steps": 2}
    result = train(tmp_path / "run", train__select_by=metric, **fields)
    assert (result["selected_step"], result["selected_by"]) == (CHOSEN[metric], metric)
    *during, chosen, tested = heads
    assert chosen == tested == during[CHOSEN[metric] // 2 - 1]
    label = {"top1_accuracy": "best top-1", "loss": "lowest loss"}.get(
        metric, metric.replace("_", " ")
    )
    assert label.replace("f1", "F1") in result["selection"]
    heads.clear()
    tl_jax.evaluate(tmp_path / "run", tmp_path / "again", data=SPLITS["test"])
    assert heads == [tested]


def test_a_loss_that_was_never_finite_chooses_nothing(monkeypatch, tmp_path):
    fields = {"train__steps": 4, "train__eval_every_steps": 1}
    call = Evaluator.__call__

    def not_finite(self, params, batch_stats, split):
        measured, logits = call(self, params, batch_stats, split)
        return measured | {"loss": float("nan")}, logits

    monkeypatch.setattr(Evaluator, "__call__", not_finite)
    result = train(tmp_path / "run", train__select_by="loss", **fields)
    assert result["selected_step"] == 4
    assert "the last step, 4; the loss on validation was never finite" in result["selection"]


@pytest.mark.parametrize(("metric", "best"), [("macro_f1", max), ("loss", min)])
def test_averaged_weights_are_compared_by_the_metric(metric, best, tmp_path):
    fields = {"train__steps": 6, "train__eval_every_steps": 2, "optim__schedule": "constant"}
    average = {"average__name": "ema", "average__decay": 0.5}
    result = train(tmp_path / "run", train__select_by=metric, **fields, **average)
    lines = [line for line in metric_lines(tmp_path / "run") if line["split"] == "validation"]
    candidates = {
        (line["step"], averaged): line["average_" * averaged + metric]
        for line in lines
        for averaged in (False, True)
    }
    wanted = best(candidates.values())
    chosen = (result["selected_step"], result["averaged"])
    assert candidates[chosen] == wanted
    assert result["splits"]["validation"][metric] == pytest.approx(wanted, rel=1e-6)
    assert len(set(candidates.values())) > 1


CACHED = {
    "freeze__strategy": "backbone",
    "augment__flip": False,
    "augment__crop_padding": 0,
    "data__validation_fraction": 0.2,
    "data__examples_per_class": 4,
}
ORDERS = {
    "balanced": {"data__order": "balanced", "optim__accumulation": 2},
    "repeated": {"augment__repeats": 2},
    "stored": {"data__order": "stored"},
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "uneven.npz"
    arrays = {}
    for name, (images, labels) in SPLITS.items():
        arrays |= {f"{name}_images": images, f"{name}_labels": labels}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("fields", ORDERS.values(), ids=ORDERS)
def test_a_killed_run_goes_on_to_the_same_bits(fields, archive, tmp_path):
    """Read ahead from the host, where the whole run gathers its batches on the device."""
    named = {"data__name": f"npz:{archive}", "data__validation_split": "validation"}
    whole = made(**named, **fields, train__steps=6, data__placement="device")
    training.run(whole, tmp_path / "whole")
    resumed = made(**named, **fields, train__steps=6, data__placement="host")
    asked = iter([False] * 3 + [True] * 100)
    with pytest.raises(Stopped) as stopped:
        training.run(resumed, tmp_path / "run", lambda: next(asked))
    assert 0 < stopped.value.step < 6
    training.run(resumed, tmp_path / "run")
    lines, expected = (
        [line["loss"] for line in metric_lines(folder) if line["split"] == "train"]
        for folder in (tmp_path / "run", tmp_path / "whole")
    )
    assert len(lines) == 6 and lines == expected
    assert_same_bits(tmp_path / "run", tmp_path / "whole")


def test_eight_devices_see_the_balanced_batches_of_one(tmp_path):
    losses = {}
    fields = {"data__order": "balanced", "data__batch_size": 16, "augment__repeats": 2}
    weighting = {"objective__class_weighting": "effective", "objective__effective_beta": 0.9}
    for devices in (1, 8):
        config = made(**fields, **weighting, parallel__devices=devices)
        tl_jax.finetune(config, tmp_path / str(devices), data=SPLITS)
        lines = metric_lines(tmp_path / str(devices))
        losses[devices] = [line["loss"] for line in lines if line["split"] == "train"]
    assert len(losses[1]) == 4
    np.testing.assert_allclose(losses[8], losses[1], rtol=1e-5)


def test_repeats_of_an_image_are_changed_each_in_its_own_way():
    """Randomness is that of the place in the batch."""
    config = made(augment__repeats=4, augment__crop_padding=2, data__examples_per_class=2)
    setup = prepare(config)
    examples = setup.order.examples(0)
    assert examples[0] == examples[3] and examples[4] != examples[3]
    transform = make_train_transform(setup.preprocessing, setup.augmentation)
    images = setup.splits["train"].gather(examples)
    seen = jax.jit(transform)(jax.random.key(0), np.arange(8, dtype=np.int32), images)
    assert len({np.asarray(image).tobytes() for image in seen[:4]}) > 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train__select_by": "loss"}, "train.select_by='loss': a probe minimises"),
        ({"data__order": "balanced"}, "data.order='balanced': a probe minimises"),
        (
            {"objective__class_weighting": "balanced"},
            "objective.class_weighting='balanced': a probe",
        ),
    ],
)
def test_a_probe_refuses_what_it_does_not_do(fields, message, tmp_path):
    with pytest.raises(InputError, match=message):
        probe.run(made(**fields), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_chooses_by_top1(tmp_path):
    config = made(train__select_by="macro_f1", **CACHED)
    with pytest.raises(
        InputError, match=r"train\.select_by=macro_f1: a sweep chooses by validation"
    ):
        sweep.run(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_probe_has_the_averages_on_validation_and_test(tmp_path):
    config = made(
        **{name: value for name, value in CACHED.items() if not name.startswith("augment")}
    )
    config.probe.update({"least": 0.1, "most": 10.0, "count": 2, "max_evaluations": 20})
    splits = probe.run(config, tmp_path / "run")["splits"]
    for split in splits.values():
        assert set(CLASS_AVERAGES) < set(split)
        assert split["weighted_recall"] == pytest.approx(split["top1_accuracy"], abs=0.01)
