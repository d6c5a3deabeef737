"""Runs whose head is solved: what is found and on which images, what the folder holds, what is refused."""

import dataclasses
import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest
from running import tiny_config

import tl_jax
from tl_jax import checkpointing, load_run, models, reporting, trees
from tl_jax.augment import preprocessing
from tl_jax.data.arrays import Digits
from tl_jax.errors import InputError
from tl_jax.parallel import memory
from tl_jax.runs import evaluate, probe, profile, solved, sweep, together, training
from tl_jax.runs.setup import check_config, prepare_phases
from tl_jax.training import loops, solvers
from tl_jax.training.evaluator import Evaluator

pytestmark = pytest.mark.usefixtures("small_networks")

STRENGTHS = (0.01, 1.0, 100.0)
# Set for updates, as by the base of an ablation; it must not matter.
OF_UPDATES = {"augment__crop_padding": 2, "augment__flip": True, "train__steps": 200}


def config_of(name="ridge", **fields):
    of_solver = {"solver__name": name, "freeze__strategy": "backbone"}
    if name in solvers.PENALISED:
        of_solver["solver__strengths"] = STRENGTHS
    few = {"data__validation_fraction": 0.2, "data__examples_per_class": 6}
    return tiny_config(**OF_UPDATES | few | of_solver | fields)


def features_of(config):
    """Returns {split: (features float64 [N, F], labels)}, from the images of the config."""
    (setup,) = prepare_phases(config)
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


def latest(folder):
    return trees.flatten(checkpointing.restore_params(folder / "checkpoints", "latest"))


def assert_same_bits(folder, other):
    ours, theirs = latest(folder), latest(other)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)


@pytest.fixture(scope="module", params=list(solvers.SOLVERS))
def run(request, small_networks, tmp_path_factory):
    """Returns the name of a solver, its config, folder and result."""
    folder = tmp_path_factory.mktemp("solved") / "run"
    config = config_of(request.param, report__html=True, report__tensorboard=True)
    return request.param, config, folder, training.run(config, folder)


@pytest.fixture(scope="module")
def ridge(small_networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ridge") / "run"
    return folder, training.run(config_of(), folder)


def test_the_head_is_that_of_the_training_features_alone(run):
    """Of images as they are, without crops and flips; those that are held out are not among them."""
    name, config, folder, result = run
    features, labels = features_of(config)["train"]
    assert len(labels) == 60 == result["train_examples"]
    kernel, bias = (latest(folder)[f"params/head/{leaf}"] for leaf in ("kernel", "bias"))
    strength = result["solver"]["strength"]
    if name == "lbfgs":
        linear_model = pytest.importorskip("sklearn.linear_model")
        reference = linear_model.LogisticRegression(C=1 / strength, tol=1e-8, max_iter=10_000)
        reference.fit(features, labels)
        least = objective(features, labels, reference.coef_.T, reference.intercept_, strength)
        found = objective(features, labels, kernel, bias, strength)
        # It ends where the gradient of the mean is below 1e-4: close in value, in weights less so.
        assert found == pytest.approx(least, rel=1e-3)
        return
    strengths = [strength] if name in solvers.PENALISED else []
    head = solvers.solve(name, features, labels, 10, strengths)
    for leaf, expected in ((kernel, head.kernel[0]), (bias, head.bias[0])):
        np.testing.assert_allclose(leaf, expected, atol=1e-4 * np.abs(expected).max())


def objective(features, labels, kernel, bias, strength):
    """Returns the sum of cross-entropies and the penalty, in float64."""
    logits = features @ np.asarray(kernel, np.float64) + bias
    logits -= logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return losses.sum() + strength / 2 * np.square(kernel, dtype=np.float64).sum()


def test_validation_chooses_the_strength(run):
    name, config, _, result = run
    data = features_of(config)
    features, labels = data["validation"]
    strengths = STRENGTHS if name in solvers.PENALISED else ()
    heads = solvers.solve(name, *data["train"], 10, strengths)
    top1 = [
        ((features @ kernel + bias).argmax(1) == labels).mean()
        for kernel, bias in zip(heads.kernel, heads.bias, strict=True)
    ]
    rows = result["solver"]["heads"]
    told = [row["top1_accuracy"] for row in rows]
    np.testing.assert_allclose(told, top1, atol=2.5 / len(labels))
    best = max(range(len(told)), key=lambda place: (told[place], place))
    assert [row["chosen"] for row in rows] == [place == best for place in range(len(rows))]
    assert result["splits"]["validation"]["top1_accuracy"] == told[best]
    assert result["selected_by"] == ("top1_accuracy" if strengths else None)
    assert len({*told}) > 1 or not strengths


def test_what_a_run_leaves(run):
    name, _, folder, result = run
    files = {path.name for path in folder.iterdir()}
    assert files >= {
        "config.json", "solver.json", "metrics.jsonl", "checkpoints", "result.json", "report.html", "data.json",
        "weights.safetensors", "predictions.npz", "freezing.json", "preprocessing.json", "class_names.json",
        "tensorboard",
    }  # fmt: skip
    assert (result["steps"], result["selected_step"], result["resumed_at_step"]) == (0, 0, 0)
    assert not result["stopped_early"] and result["images_per_second"] is None
    assert result["frozen"]["changed"] == [] and result["frozen"]["frozen_leaves"] > 5
    assert result["cache"]["boundary"] == "pool"
    lines = reporting.read_metrics(folder)
    assert [(line["step"], line["split"]) for line in lines] == [(0, "train"), (0, "validation")]
    assert lines[1]["top1_accuracy"] == result["splits"]["validation"]["top1_accuracy"]
    page = (folder / "report.html").read_text()
    assert result["selection"].split(",")[0] in page
    assert ("Heads by L2 strength" in page) == (name in solvers.PENALISED)
    assert "Learning curves" not in page
    with np.load(folder / "predictions.npz") as saved:
        right = saved["probabilities"].argmax(-1) == saved["labels"]
    assert result["splits"]["test"]["top1_accuracy"] == right.mean() > 0.3


def test_it_is_a_run_like_any_other(run, tmp_path):
    """Loaded, predicted with, evaluated, and exported weights start another run."""
    _, _, folder, result = run
    loaded = load_run(folder)
    images, labels = (getattr(Digits().split("test"), of) for of in ("images", "labels"))
    top1 = (loaded.predict(images).argmax(1) == labels).mean()
    assert top1 == pytest.approx(result["splits"]["test"]["top1_accuracy"], abs=2 / len(labels))
    again = evaluate.evaluate_run(folder, None, tmp_path / "evaluation")
    assert again["splits"]["test"]["top1_accuracy"] == pytest.approx(top1, abs=2 / len(labels))
    kept = config_of("", init__weights=str(folder), init__head="keep", freeze__strategy="none")
    (setup,) = prepare_phases(kept)
    np.testing.assert_array_equal(
        setup.initial.variables["params"]["head"]["kernel"], latest(folder)["params/head/kernel"]
    )


def test_what_only_updates_look_at_makes_no_other_run(run):
    _, config, folder, result = run
    config = config.copy_and_resolve_references()
    config.train.steps, config.train.epochs = 0, 3.0
    config.optim.learning_rate, config.augment.flip, config.data.batch_size = 3.0, False, 7
    assert training.run(config, folder) == json.loads(json.dumps(result))
    config.solver.name = "lbfgs" if config.solver.name != "lbfgs" else "ridge"
    config.solver.strengths = STRENGTHS
    with pytest.raises(InputError, match="holds a run of another config"):
        training.run(config, folder)


def test_the_loss_may_choose(tmp_path):
    result = training.run(config_of("lbfgs", train__select_by="loss"), tmp_path / "run")
    losses = [row["loss"] for row in result["solver"]["heads"]]
    assert result["solver"]["strength"] == STRENGTHS[int(np.argmin(losses))]
    assert result["splits"]["validation"]["loss"] == min(losses)
    assert "the lowest loss of 3 on" in result["selection"]


def test_the_best_value_and_of_equals_the_strongest():
    assert solved.choose([0.5, 0.9, 0.9, 0.7], [0.1, 1.0, 10.0, 100.0], "macro_f1") == 2
    assert solved.choose([0.5, 0.9, 0.5], [10.0, 1.0, 0.1], "loss") == 0
    assert solved.choose([float("nan"), 0.1, 0.2], [3.0, 2.0, 1.0], "top1_accuracy") == 2
    assert solved.choose([float("nan"), 0.3, float("inf")], [3.0, 2.0, 1.0], "loss") == 1
    assert solved.choose([float("nan")], [], "loss") == 0


def test_without_strengths_the_grid_of_the_probe_is_tried(tmp_path):
    config = config_of(solver__strengths=())
    result = training.run(config, tmp_path / "run")
    strengths = [row["strength"] for row in result["solver"]["heads"]]
    assert (len(strengths), strengths[0], strengths[-1]) == (45, 1e-6, 1e5)


def test_one_strength_needs_no_validation(tmp_path):
    config = config_of(solver__strengths=(2.0,), data__validation_fraction=0.0)
    seen = []
    parts = {"callbacks": [lambda *told: seen.append(told[:2])]}
    result = training.run(config, tmp_path / "run", **parts)
    assert result["selection"].startswith("ridge regression, L2 strength 2; test was read once")
    assert set(result["splits"]) == {"test"} and result["selected_by"] is None
    assert result["solver"]["heads"] == [{"strength": 2.0, "chosen": True}]
    assert seen == [(0, "train")]


def test_sealed_it_does_not_read_test_and_goes_on_with_the_same_head(monkeypatch, ridge, tmp_path):
    read, measure, whole = [], Evaluator.measure, Evaluator.__call__

    def reading(call):
        def recorded(self, params, batch_stats, split):
            read.append(len(split))
            return call(self, params, batch_stats, split)

        return recorded

    monkeypatch.setattr(Evaluator, "measure", reading(measure))
    monkeypatch.setattr(Evaluator, "__call__", reading(whole))
    folder = tmp_path / "run"
    result = training.run(config_of(), folder, sealed=True)
    assert set(result["splits"]) == {"validation"} and not (folder / "result.json").exists()
    assert "has not been read" in result["selection"]
    assert 500 not in read and 60 in read
    monkeypatch.setattr(solvers, "solve", None)
    finished = training.run(config_of(), folder)
    assert read.count(500) == 1
    assert finished["splits"] == ridge[1]["splits"]
    assert finished["solver"]["heads"] == result["solver"]["heads"] == ridge[1]["solver"]["heads"]
    assert_same_bits(folder, ridge[0])


def test_interrupted_it_ends_with_the_same_bits(ridge, tmp_path):
    with pytest.raises(loops.Stopped):
        training.run(config_of(), tmp_path / "run", stop_requested=lambda: True)
    assert not (tmp_path / "run" / "solver.json").exists()
    result = training.run(config_of(), tmp_path / "run")
    assert result["splits"] == ridge[1]["splits"]
    assert_same_bits(tmp_path / "run", ridge[0])


@pytest.mark.parametrize("lost", ["solver.json", "checkpoints"])
def test_killed_before_all_was_written_it_begins_again(lost, ridge, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(ridge[0], folder)
    (folder / "result.json").unlink()
    path = folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = training.run(config_of(), folder)
    assert result["splits"] == ridge[1]["splits"]
    assert len(reporting.read_metrics(folder)) == 2
    assert_same_bits(folder, ridge[0])


@pytest.mark.parametrize(
    "fields",
    [
        {"parallel__devices": 2, "data__batch_size": 7},
        {"parallel__devices": 2, "parallel__mode": "pmap"},
        {"data__placement": "host", "cache__storage": "host"},
    ],
)
def test_devices_and_placement_change_rounding_alone(fields, ridge, tmp_path):
    result = training.run(config_of(**fields), tmp_path / "run")
    assert result["solver"]["strength"] == ridge[1]["solver"]["strength"]
    for name, leaf in latest(tmp_path / "run").items():
        np.testing.assert_allclose(leaf, latest(ridge[0])[name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "fields",
    [
        {"model__dtype": "bfloat16"},
        {"cache__dtype": "bfloat16"},
        {"model__name": "vgg11", "model__classifier": "pooled", "data__image_size": 32, "preprocess__resize": 32},
        {"model__name": "small_cnn"},
        {"model__dropout": 0.5},
        {"cache__boundary": "auto", "cache__verify": 2},
        {"train__fit_to_data": True, "train__patience": 3, "average__name": "swa"},
    ],
    ids=str,
)  # fmt: skip
def test_networks_and_shared_fields_that_it_goes_with(fields, tmp_path):
    result = training.run(config_of(**fields), tmp_path / "run")
    assert result["steps"] == 0 and result["splits"]["test"]["top1_accuracy"] > 0.2


def test_a_source_run_is_trained_by_updates(tmp_path):
    config = config_of(
        model__name="small_cnn", train__steps=3, init__source=("data.test_split=test[:50%]",)
    )
    result = training.run(config, tmp_path / "run")
    source = json.loads((tmp_path / "run" / "source" / "result.json").read_text())
    assert (source["steps"], result["steps"]) == (3, 0)
    assert "solver" not in source and result["solver"]["name"] == "ridge"


class Body(nn.Module):
    """A convolution, and heads of several kinds on its mean."""

    num_classes: int
    kind: str = "dense"

    boundaries = ("body", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        first, last = models.segment(self, start, stop)
        for part in self.boundaries[first:last]:
            if part == "body":
                x = nn.relu(nn.Conv(8, (3, 3), strides=2, name="body")(x)).mean((1, 2))
            elif self.kind == "two":
                x = _Two(self.num_classes, name="head")(x)
            else:
                x = nn.Dense(self.num_classes, use_bias=self.kind != "no bias", name="head")(x)
                x = nn.relu(x) if self.kind == "relu" else x
        return x


class _Two(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(8)(x)))


def own(kind, folder):
    return tl_jax.finetune(config_of(), folder, model=lambda classes: Body(classes, kind))


def test_an_own_network_with_a_dense_head(tmp_path):
    result = own("dense", tmp_path / "run").result
    assert result["solver"]["name"] == "ridge" and result["cache"]["boundary"] == "body"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "two",
            "has head/Dense_0/bias, head/Dense_0/kernel, head/Dense_1/bias, head/Dense_1/kernel on",
        ),
        ("no bias", "has head/kernel on features [8] after body; expected one dense layer"),
        ("relu", "does something else than features @ kernel + bias"),
    ],
)
def test_own_heads_that_are_not_one_dense_layer(kind, message, tmp_path):
    with pytest.raises(InputError) as caught:
        own(kind, tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


REFUSED = {
    "strengths alone": (
        {"solver__name": ""}, "solver.strengths=(0.01, 1.0, 100.0) without solver.name has no effect",
    ),
    "strengths of the nearest mean": (
        {"solver__name": "nearest_mean"}, "solver.name=nearest_mean has no strength; expected ()",
    ),
    "twice": ({"solver__strengths": (1.0, 1.0)}, "solver.strengths=(1.0, 1.0): one is there twice"),
    "negative": ({"solver__strengths": (-1.0,)}, "solver.strengths=(-1.0,): expected numbers in [0, inf)"),
    "unknown": ({"solver__name": "rigde"}, "unknown solver.name 'rigde'; nearest: ridge"),
    "nothing held out": (
        {"data__validation_fraction": 0.0},
        "solver.strengths=(0.01, 1.0, 100.0): 3 strengths to choose from, and nothing is held out; expected "
        "data.validation_fraction above 0",
    ),
    "no strengths and nothing held out": (
        {"data__validation_fraction": 0.0, "solver__strengths": ()}, "45 strengths to choose from",
    ),
    "all trained": ({"freeze__strategy": "none"}, "freeze.strategy=none trains"),
    "some trained": ({"freeze__strategy": "up_to:stage1"}, "expected freeze.strategy=backbone"),
    "bias frozen": (
        {"freeze__patterns": ("head/bias",)},
        "freeze.patterns=('head/bias',) freezes head/bias; expected freeze.strategy=backbone and no freeze.patterns",
    ),
    "batch norm": ({"freeze__batch_norm": "update"}, "freeze.batch_norm=update: solver.name=ridge"),
    "phases": ({"phases": (("train.steps=2",), ())}, "solver.name=ridge makes no updates; expected phases=()"),
    "solver in a phase": (
        {"solver__name": "", "solver__strengths": (), "phases": (("solver.name=ridge",),)}, "solver.name",
    ),
    "objective": (
        {"objective__label_smoothing": 0.1},
        "objective.label_smoothing=0.1: solver.name=ridge has an objective of its own; expected the defaults",
    ),
    "objective of lbfgs": (
        {"solver__name": "lbfgs", "objective__l2_sp": 0.1},
        "objective.l2_sp=0.1: solver.name=lbfgs minimises cross-entropy with an L2 strength; expected the defaults",
    ),
    "balanced batches": ({"data__order": "balanced"}, "data.order=balanced: solver.name=ridge sees all"),
    "statistics": ({"train__eval_statistics": "image"}, "train.eval_statistics=image: solver.name=ridge"),
    "hidden layers": (
        {"model__name": "vgg11", "data__image_size": 32, "preprocess__resize": 32},
        "vgg11 has hidden layers before its head, and a solver finds one dense layer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_before_anything_is_computed(case, tmp_path):
    fields, message = REFUSED[case]
    config = config_of(**fields)
    with pytest.raises(InputError) as caught:
        check_config(config)
    assert message in str(caught.value)
    with pytest.raises(InputError) as caught:
        training.run(config, tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_optimizer_that_is_given_is_refused(tmp_path):
    import optax

    with pytest.raises(InputError, match=r"solver\.name=ridge makes no updates, and an optimizer"):
        tl_jax.finetune(
            config_of(optim__weight_decay=1e-4),
            tmp_path / "run",
            optimizer=optax.sgd(0.1),
        )


def test_a_class_without_images_has_no_mean(tmp_path):
    test = Digits().split("test")
    images, labels = test.images[test.labels < 8], test.labels[test.labels < 8]
    names = tuple("0123456789")
    config = config_of("nearest_mean", data__examples_per_class=0)
    with pytest.raises(InputError, match="no training image of 8, 9, and so no mean"):
        tl_jax.finetune(
            config,
            tmp_path / "run",
            data={"train": (images, labels), "test": (test.images, test.labels)},
            class_names=names,
        )


def test_what_does_not_fit_in_memory_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "host_available", lambda: 1000)
    with pytest.raises(InputError, match=r"solver.name=ridge needs .* of the host's memory"):
        training.run(config_of(), tmp_path / "run")


def test_several_processes_are_refused(monkeypatch):
    (setup,) = prepare_phases(config_of())
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="a head is solved in one process, not in 2"):
        solved.check(setup)


def test_other_commands_refuse_it(tmp_path):
    config = config_of(augment__flip=False, augment__crop_padding=0)
    for command in (sweep.run, profile.profile):
        with pytest.raises(InputError, match=r"solver\.name=ridge: only finetune"):
            command(config, tmp_path / "run")
    with pytest.raises(InputError, match=r"solver\.name='ridge'"):
        probe.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_is_not_trained_together_with_others(tmp_path):
    config = config_of(cache__boundary="auto")
    assert together.why_alone(config) == "a head that is solved"
    group = together.Group([config])
    (end,) = group.run(
        [lambda member: training.run(config, tmp_path / "run", sealed=True, member=member)]
    )
    assert isinstance(end, together.NotTogether)


def test_pixels_that_are_seen_are_those_of_evaluation(ridge, tmp_path):
    """Another seed of crops and flips would change training images."""
    config = config_of(augment__crop_padding=0, augment__flip=False)
    training.run(config, tmp_path / "run")
    assert_same_bits(tmp_path / "run", ridge[0])


def test_its_setup_is_on_images_as_they_are():
    (setup,) = prepare_phases(config_of())
    assert setup.boundary == "pool" and not setup.mixings
    assert dataclasses.asdict(setup.augmentation)["operations"] == ()
