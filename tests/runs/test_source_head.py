"""Co-Tuning and Learning without Forgetting in whole runs: the head of the weights, trained beside the new one."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors import numpy as safetensors_numpy

import tl_jax
from tl_jax import checkpointing, models, objectives, porting, trees
from tl_jax.augment.preprocessing import make_eval_transform
from tl_jax.errors import InputError
from tl_jax.objectives import Own
from tl_jax.runs import profile, relationship, sweep, together, training
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.setup import prepare, prepare_phases
from tl_jax.training.loops import Stopped

pytestmark = pytest.mark.usefixtures("small_networks")

SOURCE_CLASSES = 7
KERNEL = "objective/source_head/kernel"
LWF, CO_TUNING = {"objective__lwf": 1.0}, {"objective__co_tuning": 2.3}
BOTH = LWF | CO_TUNING


@pytest.fixture(scope="module")
def source(small_networks, tmp_path_factory):
    """Returns a file of weights with a head over 7 classes, and statistics that fit no image by chance."""
    model = models.create_model("resnet20_cifar", SOURCE_CLASSES)
    variables = models.init_variables(model, jax.random.key(5))
    # Apart from each other: the head of a fresh network says almost the same of all images.
    head = jax.tree.map(lambda leaf: 5 * leaf, variables["params"]["head"])
    variables["params"] = {**variables["params"], "head": head}
    path = tmp_path_factory.mktemp("weights") / "source.safetensors"
    porting.save_state_dict(path, porting.export_state_dict(variables, naming="cifar"))
    return path


@pytest.fixture
def config_of(source):
    def make(**fields):
        return tl_jax.default_config(
            **{
                "model__name": "resnet20_cifar",
                "init__weights": str(source),
                "data__name": "digits",
                "data__image_size": 8,
                "data__examples_per_class": 6,
                "data__batch_size": 20,
                "data__cache_dir": "",
                "data__validation_fraction": 0.2,
                "cache__dir": "",
                "parallel__devices": 1,
                "augment__flip": False,
                "augment__crop_padding": 0,
                "train__steps": 4,
                "train__eval_every_steps": 2,
                "train__updates_per_dispatch": 1,
                "train__log_every_steps": 1,
                "optim__schedule": "constant",
                "optim__learning_rate": 0.05,
                "report__html": False,
                "report__tensorboard": False,
                **fields,
            }
        )

    return make


def head_of(path):
    tensors = safetensors_numpy.load_file(path)
    return {"kernel": tensors["linear.weight"].T, "bias": tensors["linear.bias"]}


def last_checkpoint(run):
    return checkpointing.restore_params(pathlib.Path(run) / "checkpoints", "latest")


def log_of(run, split="train"):
    lines = map(json.loads, (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]


def batch_of(setup, rows=None):
    rows = setup.order.rows(setup.first_step) if rows is None else rows
    return {
        "image": jnp.asarray(setup.splits["train"].gather(rows)),
        "label": jnp.asarray(setup.splits["train"].labels[rows]),
        "position": jnp.arange(len(rows)),
    }


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(-1, keepdims=True)


def test_the_loss_of_the_first_update_is_that_of_the_formulas(config_of, source):
    """On the same activations, with the head read from the file and the relationship that was learned."""
    fields = {"objective__relationship": "direct", "objective__source_temperature": 1.5}
    setup = relationship.use(prepare(config_of(**BOTH, **fields, objective__lwf_temperature=3.0)))
    batch = batch_of(setup)
    state = setup.initial_state_on_host()
    new, measured = jax.jit(make_pure_step(setup)(axis_name=None))(state, batch)
    params, batch_stats = state.network.values()
    images = make_eval_transform(setup.preprocessing)(batch["image"])
    body = models.make_forward(setup.model, stop="pool")
    head = {name: leaf.astype(np.float64) for name, leaf in head_of(source).items()}

    def logits(images, train):
        features, _ = body(params, batch_stats, images, train=train)
        return np.asarray(features, np.float64) @ head["kernel"] + head["bias"]

    # The relationship: the mean over the training images of a class, as they are, of the source at T = 1.5.
    split = setup.splits["train"]
    everything = make_eval_transform(setup.preprocessing)(split.gather(np.arange(len(split))))
    said = softmax(logits(everything, False) / 1.5)
    related = np.stack([said[split.labels == label].mean(0) for label in range(10)])
    np.testing.assert_allclose(setup.relationship.probabilities, related, rtol=1e-5)
    live = logits(images, True)
    co_tuning = -(related[np.asarray(batch["label"])] * np.log(softmax(live))).sum(-1).mean()
    assert float(measured["co_tuning"]) == pytest.approx(co_tuning, rel=1e-5)
    recorded, current = softmax(logits(images, False) / 3), softmax(live / 3)
    forgetting = -(recorded * np.log(current)).sum(-1).mean()
    assert float(measured["lwf"]) == pytest.approx(forgetting, rel=1e-5)
    total = float(measured["cross_entropy"]) + 2.3 * co_tuning + forgetting
    assert float(measured["loss"]) == pytest.approx(total, rel=1e-5)
    # Both heads and the network have moved.
    before, after = trees.flatten(state.params), trees.flatten(new.params)
    for name in (KERNEL, "objective/source_head/bias", "head/kernel", "stem/conv/kernel"):
        assert not np.array_equal(before[name], after[name]), name


def test_a_run_trains_both_heads_and_leaves_the_new_one_alone_in_what_it_exports(
    config_of, source, tmp_path
):
    run = tl_jax.finetune(config_of(**BOTH), tmp_path / "run")
    tensors = safetensors_numpy.load_file(run.workdir / "weights.safetensors")
    assert tensors["linear.weight"].shape[0] == 10
    assert not [name for name in tensors if "objective" in name or "source" in name]
    assert "objective" not in run.variables["params"]
    assert run.predict(np.zeros((3, 8, 8, 3), np.uint8)).shape == (3, 10)
    for line in log_of(run.workdir):
        total = line["cross_entropy"] + 2.3 * line["co_tuning"] + line["lwf"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    # In the checkpoint, beside the network; it has moved from the file's.
    kept = last_checkpoint(run.workdir)
    assert "objective" not in kept["params"]
    kernel = kept["objective"]["source_head"]["kernel"]
    assert kernel.shape == head_of(source)["kernel"].shape
    assert 1e-4 < np.abs(kernel - head_of(source)["kernel"]).max() < 1
    rows = json.loads((run.workdir / "freezing.json").read_text())
    assert rows[-1]["group"] == "objective" and rows[-1]["state"] == "trainable"
    assert rows[-1]["optimizer_state_bytes"] == 4 * kernel.size + 4 * SOURCE_CLASSES
    # Evaluated from what it leaves behind, and by the run itself: the same.
    found = tl_jax.evaluate(run, tmp_path / "again")["splits"]["test"]["loss"]
    assert found == pytest.approx(run.result["splits"]["test"]["loss"], rel=1e-5)


def test_the_relationship_is_in_the_folder_of_the_run(config_of, tmp_path):
    run = tl_jax.finetune(
        config_of(**CO_TUNING, objective__relationship="direct"), tmp_path / "run"
    )
    (facts,) = json.loads((run.workdir / "relationship.json").read_text())
    assert facts["method"] == "direct" and facts["shape"] == [10, SOURCE_CLASSES]
    assert [row["class"] for row in facts["classes"]] == list(run.class_names)
    for row in facts["classes"]:
        shares = [near["probability"] for near in row["nearest"]]
        assert len(shares) == 5 and shares == sorted(shares, reverse=True) and sum(shares) < 1
        assert {near["class"] for near in row["nearest"]} <= set(map(str, range(SOURCE_CLASSES)))
        assert 0 < row["entropy"] < np.log(SOURCE_CLASSES)
    other = tl_jax.finetune(config_of(**LWF), tmp_path / "other")
    assert not (other.workdir / "relationship.json").exists()


def test_interrupted_and_resumed_is_the_same_to_the_bit(config_of, tmp_path):
    config = config_of(**BOTH, average__name="ema", optim__momentum=0.9)

    def stop(step, split, _):
        if (step, split) == (2, "train"):
            raise Stopped(step)

    config.train.checkpoint_every_steps = 1
    with pytest.raises(Stopped):
        tl_jax.finetune(config, tmp_path / "run", callbacks=[stop])
    resumed = tl_jax.finetune(config, tmp_path / "run")
    assert 0 < resumed.result["resumed_at_step"] < 4
    whole = tl_jax.finetune(config, tmp_path / "whole")
    ours, theirs = (trees.flatten(last_checkpoint(run.workdir)) for run in (resumed, whole))
    assert KERNEL in ours
    for name, leaf in theirs.items():
        np.testing.assert_array_equal(ours[name], leaf, err_msg=name)
    texts = [(run.workdir / "relationship.json").read_text() for run in (resumed, whole)]
    assert texts[0] == texts[1]


def test_fields_that_name_leaves_name_those_of_the_source_head(config_of, source, tmp_path):
    """Frozen, it is bitwise the file's and has no state; multiplied, it moves so much more."""
    frozen = tl_jax.finetune(
        config_of(**CO_TUNING, freeze__patterns=("objective/.*",)), tmp_path / "frozen"
    )
    kept = last_checkpoint(frozen.workdir)["objective"]["source_head"]
    for name, leaf in head_of(source).items():
        np.testing.assert_array_equal(kept[name], leaf, err_msg=name)
    assert frozen.result["frozen"]["frozen_leaves"] == 2 and not frozen.result["frozen"]["changed"]
    rows = json.loads((frozen.workdir / "freezing.json").read_text())
    assert rows[-1]["state"] == "frozen" and rows[-1]["optimizer_state_bytes"] == 0
    steps = []
    for rates in ((), (f"{KERNEL}=10",)):
        setup = relationship.use(prepare(config_of(**CO_TUNING, optim__lr_multipliers=rates)))
        state = setup.initial_state_on_host()
        new, _ = jax.jit(make_pure_step(setup)(axis_name=None))(state, batch_of(setup))
        before, after = (np.asarray(trees.flatten(each.params)[KERNEL]) for each in (state, new))
        steps.append(after - before)
    np.testing.assert_allclose(steps[1], 10 * steps[0], rtol=1e-2, atol=1e-6)


def test_layerwise_decay_and_strategies_take_it_for_a_head(config_of):
    setup = prepare(config_of(**LWF, optim__layerwise_decay=0.5, freeze__strategy="up_to:stage1"))
    rates = trees.flatten(setup.optimisation.multipliers)
    assert rates[KERNEL] == rates["head/kernel"] == 1
    assert rates["stage3/block0/conv1/kernel"] == 0.5
    frozen = trees.flatten(setup.optimisation.frozen_mask)
    assert not frozen[KERNEL] and frozen["stage1/block0/conv1/kernel"]


def test_l2_sp_leaves_the_source_head_its_weight_decay(config_of):
    """A large pull and decay, and no other gradient: only what is decayed moves to zero."""
    setup = prepare(config_of(**LWF, objective__l2_sp=0.5, optim__weight_decay=0.1))
    state = setup.initial_state_on_host()
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    updates, _ = setup.optimisation.tx.update(zeros, state.opt_state, state.params)
    found, params = trees.flatten(updates), trees.flatten(state.params)
    for name in (KERNEL, "head/kernel"):
        np.testing.assert_allclose(found[name], -0.05 * 0.1 * params[name], rtol=1e-5)
    assert not np.any(found["stage3/block0/conv1/kernel"])
    # Moved, it adds nothing to the penalty.
    moved = {**state.params, "objective": jax.tree.map(lambda w: w + 1, state.params["objective"])}
    step = jax.jit(make_pure_step(setup)(axis_name=None))
    _, measured = step(state.replace(params=moved), batch_of(setup))
    assert float(measured["l2_sp"]) == 0


def test_the_source_head_is_averaged_with_the_network(config_of, tmp_path):
    config = config_of(**CO_TUNING, average__name="ema", average__decay=0.5)
    run = tl_jax.finetune(config, tmp_path / "run")
    record = json.loads(next((run.workdir / "checkpoints" / "4").glob("*.json")).read_text())
    assert f"average/params/{KERNEL}" in record["leaves"]
    assert not [name for name in record["leaves"] if name.startswith("references/")]
    swa = config_of(**CO_TUNING, average__name="swa", average__start=0.25, average__every_steps=1)
    assert tl_jax.finetune(swa, tmp_path / "swa").result["steps"] == 4


def test_mixed_images_and_microbatches(config_of, tmp_path):
    run = tl_jax.finetune(
        config_of(**BOTH, augment__mixing=("mixup=0.2",), optim__accumulation=2), tmp_path / "run"
    )
    assert all(np.isfinite(line["co_tuning"]) for line in log_of(run.workdir))


def test_in_bfloat16_and_without_batch_norm(source, config_of, tmp_path):
    run = tl_jax.finetune(config_of(**BOTH, model__dtype="bfloat16"), tmp_path / "half")
    plain = tl_jax.finetune(config_of(**BOTH), tmp_path / "plain")
    ours, theirs = (log_of(one.workdir)[0]["loss"] for one in (run, plain))
    assert ours == pytest.approx(theirs, rel=0.05)
    fields = {"model__name": "vgg11", "model__classifier": "pooled"}
    model = models.create_model("vgg11", 5, classifier="pooled")
    variables = models.init_variables(model, jax.random.key(0), (1, 32, 32, 3))
    weights = tmp_path / "vgg.safetensors"
    naming = models.get_architecture("vgg11").naming
    porting.save_state_dict(weights, porting.export_state_dict(variables, naming=naming))
    vgg = config_of(**BOTH, **fields, init__weights=str(weights), data__image_size=32)
    assert tl_jax.finetune(vgg, tmp_path / "vgg").result["steps"] == 4


def test_stored_activations_give_the_same_run(config_of, tmp_path):
    fields = {**BOTH, "freeze__strategy": "up_to:stage1"}
    stored = tl_jax.finetune(
        config_of(**fields, cache__boundary="auto", cache__verify=2), tmp_path / "stored"
    )
    images = tl_jax.finetune(config_of(**fields), tmp_path / "images")
    assert stored.result["cache"]["boundary"] == "stage1"
    ours, theirs = (trees.flatten(last_checkpoint(run.workdir)) for run in (stored, images))
    for name, leaf in theirs.items():
        np.testing.assert_allclose(ours[name], leaf, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    "fields",
    [
        {"parallel__devices": 4},
        {"parallel__devices": 2, "data__placement": "host"},
        {"parallel__devices": 1, "parallel__mode": "pmap"},
    ],
    ids=["devices", "host", "pmap"],
)
def test_devices_agree(config_of, tmp_path, fields):
    alone = tl_jax.finetune(config_of(**BOTH), tmp_path / "alone")
    run = tl_jax.finetune(config_of(**BOTH, **fields), tmp_path / "run")
    for ours, theirs in zip(log_of(run.workdir), log_of(alone.workdir), strict=True):
        for name in ("loss", "co_tuning", "lwf", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-4), name


def test_pmap_on_two_devices_learns_one_head(config_of, tmp_path):
    """BatchNorm of a network without any does not tell one device from two."""
    model = models.create_model("small_cnn", 5)
    weights = tmp_path / "source.safetensors"
    variables = models.init_variables(model, jax.random.key(0), (1, 8, 8, 3))
    porting.save_state_dict(weights, porting.export_state_dict(variables, naming="tl_jax"))
    fields = {**BOTH, "model__name": "small_cnn", "init__weights": str(weights)}
    heads = []
    for number, more in enumerate(({}, {"parallel__devices": 2, "parallel__mode": "pmap"})):
        run = tl_jax.finetune(config_of(**(fields | more)), tmp_path / str(number))
        heads.append(last_checkpoint(run.workdir)["objective"]["source_head"]["kernel"])
    np.testing.assert_allclose(heads[0], heads[1], rtol=1e-4, atol=1e-6)


def test_phases_hand_the_source_head_on(config_of, source, tmp_path):
    """A warm-up of the new head without it, two phases with it, one without."""
    phases = (
        ("freeze.strategy=backbone", "train.steps=2"),
        ("objective.lwf=1.0", "train.steps=2"),
        ("objective.co_tuning=1.0", "train.steps=2"),
        ("train.steps=2",),
    )
    run = tl_jax.finetune(
        config_of(phases=phases, train__checkpoint_every_steps=1), tmp_path / "run"
    )
    assert run.result["steps"] == 8
    assert not run.result["frozen"]["changed"]
    names = [set(line) & {"lwf", "co_tuning"} for line in log_of(run.workdir)]
    assert names == [set()] * 2 + [{"lwf"}] * 2 + [{"co_tuning"}] * 2 + [set()] * 2
    # The head of the third phase begins as that of the second one ends.
    setups = prepare_phases(config_of(phases=phases))
    assert ["objective" in setup.variables["params"] for setup in setups] == [
        False,
        True,
        True,
        False,
    ]
    start = head_of(source)["kernel"]
    np.testing.assert_array_equal(trees.flatten(setups[1].variables["params"])[KERNEL], start)
    moved = jax.tree.map(lambda leaf: leaf + 1, setups[1].variables)
    third = dataclasses.replace(setups[2], start=moved)
    np.testing.assert_array_equal(trees.flatten(third.variables["params"])[KERNEL], start + 1)
    fourth = dataclasses.replace(setups[3], start=moved)
    assert "objective" not in fourth.variables["params"]
    # After a phase without it, it begins as in the file.
    after = dataclasses.replace(setups[2], start=fourth.variables)
    np.testing.assert_array_equal(trees.flatten(after.variables["params"])[KERNEL], start)


def test_a_run_of_a_source_that_is_trained_first(config_of, tmp_path):
    config = config_of(**BOTH, init__weights="", init__source=("train.steps=2",))
    run = tl_jax.finetune(config, tmp_path / "run")
    (facts,) = json.loads((run.workdir / "relationship.json").read_text())
    assert facts["shape"] == [10, 10]
    # Its classes have names: those of the data of the source.
    names = {near["class"] for row in facts["classes"] for near in row["nearest"]}
    assert names <= set(run.class_names)


def test_a_sweep_has_the_members_that_runs_are(config_of, tmp_path):
    fields = {
        **CO_TUNING,
        "freeze__strategy": "up_to:stage2",
        "train__eval_every_epochs": 0.0,
        "objective__relationship": "direct",
    }
    config = config_of(**fields)
    config.sweep.learning_rate, config.sweep.seed = (0.02, 0.05), (0, 3)
    result = sweep.run(config, tmp_path / "sweep")
    assert result["members"] == 4
    assert (tmp_path / "sweep/relationship.json").is_file()
    chosen = result["chosen"]
    alone = config_of(
        **fields,
        seed=chosen["seed"],
        optim__learning_rate=chosen["learning_rate"],
        cache__boundary="auto",
    )
    run = tl_jax.finetune(alone, tmp_path / "alone")
    assert run.result["splits"]["validation"]["loss"] == pytest.approx(
        result["splits"]["validation"]["loss"], rel=1e-3
    )
    tensors = safetensors_numpy.load_file(tmp_path / "sweep/weights.safetensors")
    assert not [name for name in tensors if "objective" in name]


def test_runs_that_train_together_are_those_that_they_are_alone(config_of, tmp_path):
    fields = {**BOTH, "freeze__strategy": "up_to:stage2", "cache__boundary": "auto"}
    configs = [
        config_of(**fields),
        config_of(**fields, seed=1, data__seed=1, optim__learning_rate=0.1),
    ]
    assert together.key(configs[0]) == together.key(configs[1])

    def job(number):
        return lambda member: training.run(
            configs[number], tmp_path / f"group{number}", sealed=True, member=member
        )

    together.Group(configs).run([job(0), job(1)])
    for number, config in enumerate(configs):
        training.run(config, tmp_path / f"alone{number}", sealed=True)
        ours, theirs = (
            trees.flatten(last_checkpoint(tmp_path / f"{kind}{number}"))
            for kind in ("group", "alone")
        )
        assert KERNEL in ours
        for name, leaf in theirs.items():
            np.testing.assert_allclose(ours[name], leaf, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_profile_has_the_step_of_the_run(config_of, tmp_path):
    config = config_of(**CO_TUNING)
    result = profile.profile(config, tmp_path / "profile", seconds=0.01)
    assert result["model"] == "resnet20_cifar"


class Pooled(nn.Module):
    """A convolution without BatchNorm and a dense head, after a ReLU where `rectified`."""

    num_classes: int
    rectified: bool = False

    boundaries = ("first", "pool", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        """Returns the features after `stop`."""
        begin, end = models.segment(self, start, stop)
        for part in self.boundaries[begin:end]:
            if part == "first":
                x = nn.Conv(6, (3, 3), name="first")(x)
            elif part == "pool":
                x = x.mean((1, 2))
            else:
                x = nn.relu(x) if self.rectified else x
                x = nn.Dense(self.num_classes, name="head")(x)
        return x


def test_an_own_network_and_an_own_objective_on_the_logits_of_the_source(config_of, tmp_path):
    """With a fresh head, the logits of the source are over its own classes."""
    seen = {}

    def entropy(outputs):
        seen["shape"] = outputs.source.logits.shape
        assert outputs.own == {}
        return objectives.CrossEntropy()(outputs)[0], {"logit": outputs.source.logits[0, 0]}

    asking = Own(entropy, "entropy", needs=("source.logits",))
    model = Pooled(SOURCE_CLASSES)
    variables = models.init_variables(model, jax.random.key(1), (1, 8, 8, 3))
    weights = tmp_path / "own.safetensors"
    porting.save_state_dict(weights, porting.export_state_dict(variables, naming="tl_jax"))
    config = config_of(init__weights=str(weights))
    parts = {"model": Pooled, "objective": asking}
    run = tl_jax.finetune(config, tmp_path / "run", **parts)
    assert seen["shape"] == (20, SOURCE_CLASSES)
    setup = prepare(run.config, training_parts(parts))
    images = make_eval_transform(setup.preprocessing)(batch_of(setup)["image"])
    forward = models.make_forward(model)
    expected, _ = forward(variables["params"], {}, images, train=False)
    assert log_of(run.workdir)[0]["logit"] == pytest.approx(float(expected[0, 0]), rel=1e-5)
    trained = config_of(**BOTH, init__weights=str(weights))
    both = tl_jax.finetune(trained, tmp_path / "both", model=Pooled)
    assert both.result["steps"] == 4
    with pytest.raises(InputError, match=r"needs source\.head: the head of Pooled has"):
        tl_jax.finetune(
            trained, tmp_path / "rectified", model=lambda count: Pooled(count, rectified=True)
        )


def training_parts(parts):
    from tl_jax.runs.parts import Parts

    return Parts(model=parts["model"], objective=parts["objective"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**CO_TUNING, "init__weights": ""}, "needs source.head, the head of the weights, but init.weights=''"),
        ({**LWF, "init__weights": ""}, "needs source.head, the head of the weights, but init.weights=''"),
        (
            {**LWF, "init__head": "keep"},
            "a head over the classes of the source beside a new one, but init.head=keep .*expected init.head=reset",
        ),
        (
            {**CO_TUNING, "init__reset": ("stage3/.*",)},
            "needs source.head, but init.reset=.*expected init.reset=()",
        ),
        (
            {**BOTH, "freeze__strategy": "backbone"},
            "objective.co_tuning=2.3, objective.lwf=1.0 with freeze.strategy=backbone: all before the head is frozen",
        ),
        ({**CO_TUNING, "objective__weight": 0.0}, "objective.weight=0 without delta or distillation"),
        (
            {"objective__relationship": "direct"},
            "objective.relationship=direct without objective.co_tuning has no effect",
        ),
        (
            {**LWF, "objective__source_temperature": 1.2},
            "objective.source_temperature=1.2 without objective.co_tuning has no effect",
        ),
        (
            {**CO_TUNING, "objective__lwf_temperature": 3.0},
            "objective.lwf_temperature=3.0 without objective.lwf has no effect; expected a weight above 0",
        ),
        (
            {**CO_TUNING, "objective__relationship": "revers"},
            "unknown objective.relationship 'revers'; nearest: reverse",
        ),
        ({"objective__co_tuning": -1.0}, r"objective.co_tuning=-1.0: expected a number in \[0, inf\)"),
        ({**LWF, "objective__lwf_temperature": 0.0}, r"objective.lwf_temperature=0.0: expected"),
        ({**CO_TUNING, "objective__source_temperature": 0.0}, r"objective.source_temperature=0.0: expected"),
        (
            {
                **LWF,
                "freeze__strategy": "up_to:stage1",
                "cache__boundary": "stage1",
                "phases": (("train.steps=2",), ()),
            },
            "an objective looks at features of the network at the start of the run",
        ),
        ({**LWF, "freeze__patterns": ("objective/other/.*",)}, "matches no leaf"),
        ({"freeze__patterns": ("objective/.*",)}, "matches no leaf"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(config_of, tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        tl_jax.finetune(config_of(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_registered_weights_without_a_head_are_refused_before_any_download(config_of, tmp_path):
    config = config_of(
        **LWF,
        model__name="vgg16",
        init__weights="vgg16.keras_in1k_notop",
        model__classifier="pooled",
        data__image_size=32,
    )
    with pytest.raises(InputError, match=r"notop has no head; choose from .*vgg16"):
        tl_jax.finetune(config, tmp_path / "run")


def test_a_file_without_a_head_is_refused(config_of, source, tmp_path):
    tensors = safetensors_numpy.load_file(source)
    weights = tmp_path / "headless.safetensors"
    porting.save_state_dict(
        weights, {name: leaf for name, leaf in tensors.items() if not name.startswith("linear")}
    )
    with pytest.raises(InputError, match=r"needs the head of init.weights=.*has no head"):
        tl_jax.finetune(config_of(**LWF, init__weights=str(weights)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_probes_do_not_take_them(config_of, tmp_path):
    from tl_jax.runs import probe

    with pytest.raises(InputError, match=r"objective\.lwf=1\.0.*: a probe"):
        probe.run(config_of(**LWF, freeze__strategy="backbone"), tmp_path / "probe")
