"""Objectives, averages and own optimizers in whole runs."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors import numpy as safetensors_numpy

import tl_jax
from tl_jax import objectives, trees
from tl_jax.errors import InputError
from tl_jax.objectives import Own
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.setup import prepare
from tl_jax.training import averaging

QUIET = {"report__html": False, "report__tensorboard": False, "data__cache_dir": ""}

pytestmark = pytest.mark.usefixtures("small_networks")


def config_of(**fields):
    """Returns a short run on 8 px digits, without augmentation, from random weights."""
    return tl_jax.default_config(
        **{
            "model__name": "resnet20_cifar",
            "data__name": "digits",
            "data__image_size": 8,
            "data__examples_per_class": 6,
            "data__batch_size": 20,
            "parallel__devices": 1,
            "augment__flip": False,
            "augment__crop_padding": 0,
            "train__steps": 4,
            "train__eval_every_steps": 2,
            "train__updates_per_dispatch": 1,
            "optim__schedule": "constant",
            "optim__learning_rate": 0.05,
            **QUIET,
            **fields,
        }
    )


def weights_of(run):
    return safetensors_numpy.load_file(pathlib.Path(run) / "weights.safetensors")


def metrics_of(run, split):
    lines = (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["split"] == split]


@pytest.fixture(scope="module")
def plain(small_networks, tmp_path_factory):
    """Returns the folder of a finished run with cross-entropy."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    tl_jax.finetune(config_of(), folder)
    return folder


def test_terms_are_logged_and_add_up_to_the_loss(plain, tmp_path):
    config = config_of(
        init__weights=str(plain),
        objective__l2_sp=0.1,
        objective__delta=0.2,
        objective__bss=0.4,
        objective__distillation=0.3,
        objective__teacher=str(plain),
        train__log_every_steps=1,
    )
    tl_jax.finetune(config, tmp_path / "run")
    for line in metrics_of(tmp_path / "run", "train"):
        total = line["cross_entropy"] + 0.1 * line["l2_sp"] + 0.2 * line["delta"]
        total += 0.4 * line["bss"] + 0.3 * line["distillation"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    first, *later = metrics_of(tmp_path / "run", "train")
    # At the start the weights are those of the source.
    assert first["l2_sp"] == 0.0 and all(line["l2_sp"] > 0 for line in later)
    assert all(line["distillation"] > 0 for line in later)


def test_l2_sp_equals_the_gradient_of_its_formula(plain):
    """One update of plain SGD by hand: w - lr (g + alpha (w - w0)); the head is not pulled."""
    fields = {"optim__momentum": 0.0, "optim__weight_decay": 0.0, "init__weights": str(plain)}
    with_pull = prepare(config_of(**fields, objective__l2_sp=0.5))
    without = prepare(config_of(**fields))
    batch = {
        "image": jnp.asarray(with_pull.splits["train"].gather(np.arange(20))),
        "label": jnp.asarray(with_pull.splits["train"].labels[:20]),
        "position": jnp.arange(20),
    }
    moved = jax.tree.map(lambda leaf: leaf + 0.01, without.initial.variables["params"])

    def update(setup):
        state = setup.initial_state_on_host().replace(params=moved)
        new, _ = jax.jit(make_pure_step(setup)(axis_name=None))(state, batch)
        return trees.flatten(jax.device_get(new.params))

    pulled, free = update(with_pull), update(without)
    start = trees.flatten(without.initial.variables["params"])
    for name, leaf in pulled.items():
        distance = np.asarray(trees.flatten(moved)[name]) - np.asarray(start[name])
        pull = 0.05 * 0.5 * distance if not name.startswith("head") else 0.0
        np.testing.assert_allclose(leaf, free[name] - pull, rtol=1e-6, atol=1e-7, err_msg=name)


def test_a_prefix_shared_with_the_source_changes_no_number(plain, monkeypatch):
    """Up to stage 2 both networks are one, computed once: the same update as without sharing."""
    from tl_jax.runs import pure_step

    config = config_of(
        init__weights=str(plain), freeze__strategy="up_to:stage1", objective__delta=0.5
    )
    setup = prepare(config)
    batch = {
        "image": jnp.asarray(setup.splits["train"].gather(np.arange(20))),
        "label": jnp.asarray(setup.splits["train"].labels[:20]),
        "position": jnp.arange(20),
    }
    state = setup.initial_state_on_host()
    state = state.replace(
        params=state.params | {"stage2": jax.tree.map(lambda w: w * 1.1, state.params["stage2"])}
    )

    def updated():
        step = make_pure_step(setup)(axis_name=None)
        cost = jax.jit(step).lower(state, batch).cost_analysis()["flops"]
        new, metrics = jax.jit(step)(state, batch)
        return trees.flatten(jax.device_get(new.params)), metrics, cost

    shared, measured, cost = updated()
    monkeypatch.setattr(pure_step, "exact_prefix", lambda *_: None)
    apart, expected, more = updated()
    assert cost < 0.9 * more
    assert float(measured["delta"]) == pytest.approx(float(expected["delta"]), rel=1e-5)
    assert float(measured["delta"]) > 0
    for name, leaf in shared.items():
        np.testing.assert_allclose(leaf, apart[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_a_teacher_is_normalised_as_it_was_trained_with(plain, tmp_path):
    """A student with the teacher's weights and other normalisation sees other logits; the teacher does not."""
    teacher = tl_jax.load_run(plain)
    config = config_of(
        init__weights=str(plain),
        init__head="keep",
        preprocess__mean=(0.1, 0.2, 0.3),
        preprocess__std=(0.5, 0.6, 0.7),
        objective__distillation=1.0,
        objective__teacher=str(plain),
    )
    setup = prepare(config)
    images = setup.splits["train"].gather(np.arange(20))
    passes = setup.minimised
    from tl_jax.augment.preprocessing import make_eval_transform
    from tl_jax.runs.objective import make_passes

    seen = make_passes(passes, setup.model, setup.preprocessing, start=None, prefix=None)
    inputs = make_eval_transform(setup.preprocessing)(jnp.asarray(images))
    references = setup.initial_state_on_host().references
    logits = seen.references(references, inputs, inputs, {})["teacher"].logits
    np.testing.assert_allclose(
        jax.nn.softmax(logits), teacher.predict(images), rtol=2e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective__distillation": 1.0}, "objective.distillation=1.0 without objective.teacher"),
        ({"objective__teacher": "nowhere"}, "without objective.distillation has no effect"),
        (
            {"objective__teacher": "nowhere", "objective__distillation": 1.0},
            "objective.teacher=nowhere: no config.json and no .* expected the folder of a finished run",
        ),
        ({"objective__bss_k": 2}, "objective.bss_k=2 without objective.bss: no effect"),
        (
            {"objective__bss": 0.1, "objective__bss_k": 1000},
            "objective.bss_k=1000: features of 20 images with .* values have .* singular values; expected at most",
        ),
        (
            {"objective__bss": 0.1, "parallel__mode": "pmap"},
            "objective.bss=0.1 with parallel.mode=pmap: the singular values would be those of the rows",
        ),
        ({"objective__weight": 0.0}, "objective.weight=0 without delta or distillation"),
        ({"objective__delta_boundaries": ("stage1",)}, "without objective.delta: no effect"),
        (
            {"objective__effective_beta": 0.9999999, "objective__class_weighting": "balanced"},
            "objective.effective_beta=0.9999999 without objective.class_weighting=effective has no effect; expected "
            "0.999",
        ),
        (
            {"objective__effective_beta": 0.9},
            "without objective.class_weighting=effective has no effect",
        ),
        (
            {"objective__delta": 1.0, "objective__delta_boundaries": ("stage7",)},
            "unknown objective.delta_boundaries 'stage7'; nearest: stage",
        ),
        ({"objective__name": "cross"}, "unknown objective.name 'cross'.*cross_entropy"),
        (
            {"objective__name": "own:mine"},
            "objective.name=own:mine: this run was made with mine, an object given in Python",
        ),
        ({"optim__name": "own:lion"}, "optim.name=own:lion: this run was made with lion"),
        (
            {"optim__auto_rgn": True, "freeze__strategy": "backbone"},
            "optim.auto_rgn=True with freeze.strategy=backbone: head alone is trained, whose multiplier is always 1",
        ),
        ({"average__name": "swa", "average__decay": 1.0}, "average.decay=1.0: expected"),
        ({"average__name": "emma"}, "unknown average.name 'emma'"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message, tmp_path):
    with pytest.raises(InputError, match=message):
        tl_jax.finetune(config_of(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_size_or_with_other_classes(plain, tmp_path):
    fields = {"objective__distillation": 1.0, "objective__teacher": str(plain)}
    with pytest.raises(InputError, match="sees images of 8 pixels, this run of 16"):
        prepare(config_of(**fields, data__image_size=16))
    images = np.zeros((40, 8, 8, 3), np.uint8)
    labels = np.arange(40, dtype=np.int32) % 2
    names = ("cat", "dog")
    with pytest.raises(InputError, match=r"objective.teacher=.*(cat|classes|fit)"):
        tl_jax.finetune(
            config_of(**fields, data__batch_size=12),
            tmp_path / "run",
            data=(images, labels),
            class_names=names,
        )


def test_activations_serve_objectives_that_look_behind_them(plain, tmp_path):
    cached = {
        "init__weights": str(plain),
        "freeze__strategy": "up_to:stage1",
        "cache__boundary": "stage1",
        "cache__dir": "",
        "objective__delta": 0.5,
    }
    late = {"objective__delta_boundaries": ("stage2", "stage3")}
    stored = tl_jax.finetune(config_of(**cached, **late), tmp_path / "stored")
    images = tl_jax.finetune(
        config_of(**(cached | {"cache__boundary": ""}), **late), tmp_path / "images"
    )
    for name, leaf in weights_of(images.workdir).items():
        np.testing.assert_allclose(
            weights_of(stored.workdir)[name], leaf, rtol=2e-4, atol=2e-5, err_msg=name
        )
    with pytest.raises(InputError, match=r"looks at features of stem, before it"):
        tl_jax.finetune(
            config_of(**cached, objective__delta_boundaries=("stem",)), tmp_path / "early"
        )
    taught = {"objective__distillation": 1.0, "objective__teacher": str(plain)}
    with pytest.raises(InputError, match="a teacher looks at the images"):
        tl_jax.finetune(config_of(**(cached | taught), **late), tmp_path / "taught")


def test_an_own_objective_and_an_own_optimizer(plain, tmp_path):
    def brier(outputs):
        probabilities = jax.nn.softmax(outputs.logits)
        value = jnp.square(probabilities - outputs.targets).sum(-1).mean()
        return value, {"largest": probabilities.max(-1).mean()}

    arguments = {"objective": brier, "optimizer": optax.lion}
    run = tl_jax.finetune(config_of(train__log_every_steps=1), tmp_path / "run", **arguments)
    assert (run.config.objective.name, run.config.optim.name) == ("own:brier", "own:lion")
    line = metrics_of(run.workdir, "train")[0]
    assert 0 < line["largest"] <= 1 and 0 < line["loss"] < 2
    again = tl_jax.finetune(config_of(train__log_every_steps=1), tmp_path / "run", **arguments)
    assert again.result == run.result
    # lion moves by the sign: every update of a trained leaf is the rate, or nothing.
    assert not np.array_equal(
        weights_of(plain)["conv1.weight"], weights_of(run.workdir)["conv1.weight"]
    )


def test_an_own_objective_on_features_of_the_source(plain, tmp_path):
    def stay(outputs):
        ours, theirs = outputs.features["stage2"], outputs.source.features["stage2"]
        distance = jnp.square(ours - theirs).mean()
        return objectives.CrossEntropy()(outputs)[0] + distance, {"distance": distance}

    near = Own(stay, "stay", needs=("source.features",), boundaries=("stage2",))
    config = config_of(init__weights=str(plain), train__log_every_steps=1)
    run = tl_jax.finetune(config, tmp_path / "run", objective=near)
    distances = [line["distance"] for line in metrics_of(run.workdir, "train")]
    # Not 0 at the start: the source's BatchNorm uses running statistics, the trained network those of the batch.
    assert len(distances) == 4 and all(np.isfinite(distances)) and distances[0] > 0


def test_an_own_objective_on_logits_of_the_source_which_has_a_head_of_its_own(plain, tmp_path):
    def same(outputs):
        theirs = jax.nn.softmax(outputs.source.logits)
        return objectives.CrossEntropy()(outputs)[0], {"sure": theirs.max(-1).mean()}

    config = config_of(init__weights=str(plain), train__log_every_steps=1)
    near = Own(same, "same", needs=("source.logits",))
    run = tl_jax.finetune(config, tmp_path / "run", objective=near)
    assert all(0.1 < line["sure"] <= 1 for line in metrics_of(run.workdir, "train"))
    bare = config_of(init__weights="", train__log_every_steps=1)
    with pytest.raises(InputError, match=r"needs source\.logits.* but init\.weights='' starts"):
        tl_jax.finetune(bare, tmp_path / "bare", objective=near)


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_averaged_weights_are_a_candidate(name, tmp_path):
    fields = {"average__name": name, "average__start": 0.25, "average__every_steps": 1}
    config = config_of(train__steps=6, average__decay=0.5, train__eval_every_steps=3, **fields)
    run = tl_jax.finetune(config, tmp_path / "run")
    lines = metrics_of(run.workdir, "validation")
    assert len(lines) == 2
    chosen = max(max(line["top1_accuracy"], line["average_top1_accuracy"]) for line in lines)
    found = run.result["splits"]["validation"]["top1_accuracy"]
    assert found == pytest.approx(chosen)
    best = next(line for line in lines if line["step"] == run.result["selected_step"])
    assert run.result["averaged"] == bool(best["averaged"])
    kind = f"the averaged weights ({name.upper()})" if best["averaged"] else "the live weights"
    assert run.result["selection"].startswith(kind)


@pytest.mark.parametrize(("choose", "averaged"), [("averaged", True), ("better", False)])
def test_averaged_weights_in_any_case(choose, averaged, tmp_path):
    """An average that has hardly left the start is worse than the live weights, and no less the result."""
    config = config_of(
        train__steps=30,
        train__eval_every_steps=0,
        optim__learning_rate=0.01,
        average__name="wise_ft",
        average__alpha=0.0,
        average__choose=choose,
        train__select_by="loss",
        init__weights="",
        phases=(("train.steps=1", "average.name="), ("train.steps=30",)),
    )
    run = tl_jax.finetune(config, tmp_path / "run")
    line = metrics_of(run.workdir, "validation")[-1]
    assert line["average_loss"] > line["loss"] and line["averaged"] == averaged
    assert run.result["averaged"] is averaged
    found = run.result["splits"]["validation"]["loss"]
    assert found == pytest.approx(line["average_loss" if averaged else "loss"], rel=1e-5)


def test_without_validation_the_average_is_the_result(tmp_path):
    """SWA over the last two updates, worked out from the checkpoints of a run that keeps every update."""
    fields = {"data__validation_fraction": 0.0, "model__stem": "", "freeze__strategy": "backbone"}
    swa = {"average__name": "swa", "average__start": 0.5, "average__every_steps": 1}
    live = []
    for steps in (2, 3, 4):
        run = tl_jax.finetune(config_of(**fields, train__steps=steps), tmp_path / str(steps))
        live.append(weights_of(run.workdir)["linear.weight"])
    averaged = tl_jax.finetune(config_of(**fields, **swa), tmp_path / "swa")
    assert averaged.result["averaged"] is True
    assert "the averaged weights (SWA)" in averaged.result["selection"]
    np.testing.assert_allclose(
        weights_of(averaged.workdir)["linear.weight"], np.mean(live, 0), rtol=1e-5, atol=1e-7
    )
    # What is frozen is the same, bit for bit.
    np.testing.assert_array_equal(
        weights_of(averaged.workdir)["conv1.weight"], weights_of(tmp_path / "2")["conv1.weight"]
    )


_KILLED = """
import json, sys, tl_jax
from running import small_architectures
from tl_jax.models import registry
registry.ARCHITECTURES = small_architectures()
tl_jax.finetune(tl_jax.default_config(**json.loads(sys.argv[1])), sys.argv[2])
"""


def test_killed_and_resumed_with_every_kind_of_state(plain, tmp_path, compiled_programs):
    """Averages, source and teacher: the same bits as without the kill."""
    fields = {
        **QUIET,
        "model__name": "resnet20_cifar",
        "data__name": "digits",
        "data__image_size": 8,
        "data__examples_per_class": 6,
        "data__batch_size": 24,
        "train__steps": 12,
        "train__eval_every_steps": 4,
        "train__checkpoint_every_steps": 2,
        "train__updates_per_dispatch": 1,
        "average__name": "ema",
        "init__weights": str(plain),
        "objective__l2_sp": 0.1,
        "objective__delta": 0.1,
        "objective__distillation": 0.5,
        "objective__teacher": str(plain),
    }
    command = [sys.executable, "-c", _KILLED, json.dumps(fields)]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(sys.path),  # `running` is beside the tests of commands
        "JAX_COMPILATION_CACHE_DIR": str(compiled_programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    killed = tmp_path / "killed"
    with subprocess.Popen([*command, str(killed)], env=environment) as process:
        limit = time.monotonic() + 300
        while not any(path.name.isdigit() for path in killed.glob("checkpoints/*")):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (killed / "result.json").exists()
    subprocess.run([*command, str(killed)], env=environment, check=True, timeout=300)
    subprocess.run([*command, str(tmp_path / "whole")], env=environment, check=True, timeout=300)
    assert json.loads((killed / "result.json").read_text())["resumed_at_step"] > 0
    # The average, too, went through the checkpoint.
    lines = [metrics_of(run, "validation")[-1] for run in (killed, tmp_path / "whole")]
    assert lines[0]["average_loss"] == lines[1]["average_loss"]
    resumed, whole = weights_of(killed), weights_of(tmp_path / "whole")
    for name, leaf in whole.items():
        np.testing.assert_array_equal(resumed[name], leaf, err_msg=name)


def test_checkpoints_hold_the_average_and_no_reference(plain, tmp_path):
    config = config_of(
        init__weights=str(plain), objective__l2_sp=0.1, average__name="ema", train__steps=2
    )
    run = tl_jax.finetune(config, tmp_path / "run")
    (record,) = (run.workdir / "checkpoints" / "2").glob("*.json")
    leaves = json.loads(record.read_text())["leaves"]
    assert any(name.startswith("average/params/") for name in leaves)
    assert not any(name.startswith("references/") for name in leaves)
    assert averaging.AVERAGES == ("ema", "swa", "wise_ft")


def test_an_evaluation_is_of_the_weights_that_the_run_reports_on(tmp_path):
    """The averaged ones here: the same numbers as in the result of the run."""
    fields = {"data__validation_fraction": 0.0, "average__name": "swa", "average__start": 0.5}
    run = tl_jax.finetune(config_of(**fields, average__every_steps=1), tmp_path / "run")
    assert run.result["averaged"] is True
    found = tl_jax.evaluate(run, tmp_path / "evaluated")["splits"]["test"]
    assert found["loss"] == pytest.approx(run.result["splits"]["test"]["loss"], rel=1e-5)
    live = tl_jax.finetune(config_of(data__validation_fraction=0.0), tmp_path / "live")
    assert live.result["splits"]["test"]["loss"] != pytest.approx(found["loss"], rel=1e-3)
    predicted = np.load(run.workdir / "predictions.npz")
    assert len(predicted["labels"]) == found["examples"]


def test_sweeps_and_probes_refuse_what_they_do_not_do(plain, tmp_path):
    from tl_jax.runs import probe, sweep

    fields = {"init__weights": str(plain), "freeze__strategy": "backbone", "cache__dir": ""}
    with pytest.raises(InputError, match="the members of a sweep keep no averages"):
        sweep.run(config_of(**fields, average__name="ema"), tmp_path / "sweep")
    with pytest.raises(InputError, match=r"average\.name='ema', objective\.delta=0\.1: a probe"):
        probe.run(
            config_of(**fields, objective__delta=0.1, average__name="ema"), tmp_path / "probe"
        )
