"""A network of the user's own, without BatchNorm, through the public API; what is said of one that does not fit."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from running import tiny_config, tree_of
from safetensors.numpy import load_file

import tl_jax
from tl_jax import models
from tl_jax.data.arrays import Digits
from tl_jax.errors import InputError
from tl_jax.models import registry
from tl_jax.runs import sweep, training

OWN = {
    "init__weights": "",
    "data__examples_per_class": 0,
    "data__validation_fraction": 0.25,
    "train__steps": 4,
}
FROZEN = {
    "freeze__strategy": "backbone",
    "augment__flip": False,
    "augment__crop_padding": 0,
    "cache__boundary": "auto",
}


def digits(name, count):
    split = Digits().split(name)
    chosen = np.arange(len(split))[:: len(split) // count][:count]
    return split.images[chosen], split.labels[chosen]


class Plain(nn.Module):
    """Convolutions with biases, GroupNorm, dropout; parts that are named as no other network's are."""

    num_classes: int
    width: int = 4

    boundaries = ("zero", "bottom", "average", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        first = 0 if start is None else self.boundaries.index(start) + 1
        last = len(self.boundaries) if stop is None else self.boundaries.index(stop) + 1
        for part in self.boundaries[first:last]:
            if part == "zero":
                x = nn.relu(nn.Conv(self.width, (3, 3), name="zero")(x))
            elif part == "bottom":
                x = _Bottom(self.width, name="bottom")(x)
            elif part == "average":
                x = x.mean((1, 2))
            else:
                x = nn.Dropout(0.25)(x, deterministic=not train)
                x = nn.Dense(self.num_classes, name="head")(x)
        return x


class _Bottom(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2 * self.width, (3, 3), strides=(2, 2), name="conv")(x)
        return nn.relu(nn.GroupNorm(2, name="norm")(x))


class Flat(nn.Module):
    """A dense layer on pixels: its parameters depend on the size of the images."""

    boundaries = ("body", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        if start is None:
            x = nn.relu(nn.Dense(8, name="body")(x.reshape(len(x), -1)))
        return x if stop == "body" else nn.Dense(10, name="head")(x)


class Normed(nn.Module):
    """With BatchNorm: Flax's, or ours and the fields that it can be frozen by."""

    num_classes: int
    ours: bool = False
    frozen_norms: frozenset[str] = frozenset()
    norm_policy: str = "frozen"

    boundaries = ("body", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        if start is None:
            x = _Body(self.ours, self.frozen_norms, self.norm_policy, name="body")(x, train)
        return x if stop == "body" else nn.Dense(self.num_classes, name="head")(x)


class _Body(nn.Module):
    ours: bool
    frozen_norms: frozenset[str]
    norm_policy: str

    @nn.compact
    def __call__(self, x, train):
        x = models.Convolution(4, 3, jnp.dtype("float32"), name="conv")(x)
        if self.ours:
            norm = models.BatchNorm(
                frozen_norms=self.frozen_norms, norm_policy=self.norm_policy, name="bn"
            )
            x = norm(x, train)
        else:
            x = nn.BatchNorm(use_running_average=not train, name="bn")(x)
        return nn.relu(x).mean((1, 2))


class FlaxNormed(nn.Module):
    """Flax's BatchNorm, and no field to freeze it by."""

    num_classes: int

    boundaries = ("body", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        if start is None:
            x = _Body(False, frozenset(), "frozen", name="body")(x, train)
        return x if stop == "body" else nn.Dense(self.num_classes, name="head")(x)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("own") / "run"
    config = tiny_config(**OWN, optim__layerwise_decay=0.5)
    return workdir, tl_jax.finetune(config, workdir, data=digits("train", 100), model=Plain)


def test_a_network_is_trained_saved_and_used(made):
    workdir, run = made
    assert run.config.model.name == "own:Plain"
    assert isinstance(run.model, Plain) and run.model.num_classes == 10
    assert run.variables["batch_stats"] == {}
    exported = load_file(workdir / "weights.safetensors")
    assert exported.keys() == {
        f"params/{module}/{leaf}"
        for module, leaves in {
            "zero": ("kernel", "bias"),
            "bottom/conv": ("kernel", "bias"),
            "bottom/norm": ("scale", "bias"),
            "head": ("kernel", "bias"),
        }.items()
        for leaf in leaves
    }
    test = tl_jax.data.Arrays.split_off_test(*digits("train", 100)).split("test")
    saved = np.load(workdir / "predictions.npz")["probabilities"]
    np.testing.assert_allclose(run.predict(test.images), saved, atol=1e-6)
    rows = json.loads((workdir / "freezing.json").read_text())
    # From input to head, whatever the names: half the rate for each part below the next.
    assert [(row["group"], row["lr_multiplier"]) for row in rows] == [
        ("zero", 0.25),
        ("bottom", 0.5),
        ("head", 1.0),
    ]
    assert all(row["batch_norm"] == "-" for row in rows)  # GroupNorm is none


def test_every_part_is_trained(made):
    _, run = made
    start = models.init_variables(run.model, jax.random.key(run.config.seed), (1, 8, 8, 3))
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), start["params"], run.variables["params"]
    )
    assert all(jax.tree.leaves(moved)), moved


def test_a_loaded_run_needs_the_network_for_predictions_alone(made):
    workdir, run = made
    loaded = tl_jax.load_run(workdir)
    assert loaded.result == run.result
    images, _ = digits("test", 6)
    with pytest.raises(
        InputError, match=r"model.name=own:Plain: .* given in Python; expected it again"
    ):
        loaded.predict(images)
    again = tl_jax.load_run(workdir, model=Plain(10))
    np.testing.assert_array_equal(again.predict(images), run.predict(images))
    with pytest.raises(InputError, match=r"model=own:Flat: .* made with model.name=own:Plain"):
        tl_jax.load_run(workdir, model=Flat())


def test_an_evaluation(made, tmp_path):
    workdir, run = made
    images, labels = digits("test", 50)
    right = (run.predict(images).argmax(-1) == labels).mean()
    for given, model, name in [(run, None, "a"), (workdir, Plain, "b")]:
        result = tl_jax.evaluate(given, tmp_path / name, data=(images, labels), model=model)
        assert result["splits"]["test"]["top1_accuracy"] == pytest.approx(right)
    with pytest.raises(InputError, match=r"model.name=own:Plain"):
        tl_jax.evaluate(workdir, tmp_path / "c", data=(images, labels))


def test_a_run_starts_from_another_ones_weights(made, tmp_path):
    _, run = made
    data = digits("train", 100)
    for head in ("keep", "reset"):
        config = tiny_config(**OWN | FROZEN, init__head=head)
        config.init.weights = str(run.workdir)
        again = tl_jax.finetune(config, tmp_path / head, data=data, model=Plain)
        for part in ("zero", "bottom"):  # frozen, so as they came
            one, other = again.variables["params"][part], run.variables["params"][part]
            jax.tree.map(np.testing.assert_array_equal, one, other)
        assert again.result["cache"]["boundary"] == "average"
        report = json.loads((tmp_path / head / "port_report.json").read_text())
        assert report["naming"] == "tl_jax"
        assert report["counts"] == {
            "filled": 8 if head == "keep" else 6,
            "reset": 0 if head == "keep" else 2,
            "waived": 0 if head == "keep" else 2,
        }


def test_resumed_with_the_network_and_refused_without(tmp_path):
    """Dropout draws the same again; the folder of an interrupted run says what is missing."""
    config = tiny_config(**OWN | {"train__steps": 8, "train__updates_per_dispatch": 1})
    config.train.checkpoint_every_steps = 2
    data = digits("train", 100)

    def interrupt(step, split, metrics):
        if step == 5 and split == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tl_jax.finetune(config, tmp_path / "run", data=data, model=Plain, callbacks=[interrupt])
    with pytest.raises(InputError, match=r"model.name"):
        tl_jax.finetune(config, tmp_path / "run", data=data)
    resumed = tl_jax.finetune(config, tmp_path / "run", data=data, model=Plain)
    whole = tl_jax.finetune(config, tmp_path / "whole", data=data, model=Plain)
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, whole.variables)
    assert resumed.result["resumed_at_step"] > 0


def test_a_config_that_names_an_object_says_what_to_give(tmp_path):
    config = tiny_config(**OWN, model__name="own:Plain")
    with pytest.raises(
        InputError, match=r"made with Plain, an object.*tl_jax.finetune\(..., model="
    ):
        training.run(config, tmp_path / "run")
    assert tree_of(tmp_path) == {}


def test_one_device_and_eight(made, tmp_path):
    config = tiny_config(
        **OWN, optim__layerwise_decay=0.5, parallel__devices=8, data__batch_size=16
    )
    single = config.copy_and_resolve_references()
    single.parallel.devices = 1
    data = digits("train", 100)
    runs = [
        tl_jax.finetune(one, tmp_path / str(one.parallel.devices), data=data, model=Plain)
        for one in (config, single)
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *(run.variables for run in runs)
    )


def test_a_sweep_of_a_registered_network(registered, tmp_path):
    config = tiny_config(**OWN | FROZEN, model__name="plain")
    config.sweep.learning_rate = (0.01, 0.1)
    result = sweep.run(config, tmp_path / "sweep")
    assert result["cache"]["boundary"] == "average"
    alone = config.copy_and_resolve_references()
    alone.optim.learning_rate = result["chosen"]["learning_rate"]
    run = tl_jax.finetune(alone, tmp_path / "alone")
    test = run.result["splits"]["test"]
    assert result["splits"]["test"]["top1_accuracy"] == pytest.approx(test["top1_accuracy"])


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "ARCHITECTURES", dict(registry.ARCHITECTURES))
    models.register("plain", Plain, options=("width",))


def test_a_registered_network(registered, tmp_path):
    assert "plain" in models.list_models()
    assert models.create_model("plain", 3, width=2) == Plain(3, width=2)
    run = tl_jax.finetune(tiny_config(**OWN, model__name="plain"), tmp_path / "run")
    assert run.config.model.name == "plain"
    assert tl_jax.load_run(tmp_path / "run").predict(digits("test", 2)[0]).shape == (2, 10)
    with pytest.raises(
        InputError, match=r"dtype='bfloat16': plain has no such option; its options: width"
    ):
        models.create_model("plain", 3, dtype="bfloat16")
    with pytest.raises(InputError, match=r"model.dtype='bfloat16': plain has no such option"):
        training.run(
            tiny_config(**OWN, model__name="plain", model__dtype="bfloat16"), tmp_path / "new"
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg16", "a network 'vgg16' is registered already; expected another"),
        (
            "plain",
            "a network 'plain' is registered already; expected another name, or replace=True",
        ),
        ("own:plain", "name of a network 'own:plain': expected letters, digits"),
        ("", "name of a network '': expected"),
    ],
)
def test_names_that_cannot_be_registered(registered, name, message):
    with pytest.raises(InputError, match=message):
        models.register(name, Plain)


def test_a_registered_network_is_replaced_when_asked(registered):
    models.register("plain", lambda num_classes: Plain(num_classes, width=6), replace=True)
    assert models.create_model("plain", 3).width == 6
    with pytest.raises(InputError, match="registered already"):
        models.register("vgg16", Plain, replace=True)


def test_parameters_that_depend_on_the_size_of_the_images(tmp_path):
    run = tl_jax.finetune(
        tiny_config(**OWN), tmp_path / "run", data=digits("train", 100), model=Flat()
    )
    assert run.variables["params"]["body"]["kernel"].shape == (8 * 8 * 3, 8)
    assert run.predict(digits("test", 3)[0]).shape == (3, 10)
    config = tiny_config(**OWN)
    config.init.weights = str(tmp_path / "run")
    again = tl_jax.finetune(config, tmp_path / "again", data=digits("train", 100), model=Flat())
    assert again.result["steps"] == 4


def test_batch_norm_with_the_fields_can_be_frozen(tmp_path):
    config = tiny_config(**OWN | FROZEN)
    data = digits("train", 100)
    run = tl_jax.finetune(
        config, tmp_path / "ours", data=data, model=lambda classes: Normed(classes, ours=True)
    )
    assert run.result["cache"]["boundary"] == "body"
    assert run.result["frozen"] == {"frozen_leaves": 3, "frozen_statistics": 2, "changed": []}


def test_batch_norm_without_the_fields_trains_and_cannot_be_frozen(tmp_path):
    data = digits("train", 100)
    run = tl_jax.finetune(tiny_config(**OWN), tmp_path / "run", data=data, model=FlaxNormed)
    assert (run.variables["batch_stats"]["body"]["bn"]["mean"] != 0).any()
    with pytest.raises(InputError, match="FlaxNormed has no fields frozen_norms and norm_policy"):
        tl_jax.finetune(
            tiny_config(**OWN, freeze__strategy="backbone"),
            tmp_path / "new",
            data=data,
            model=FlaxNormed,
        )


class _Wrong(Plain):
    """A network whose fields and methods the cases below change."""


def wrong(**members):
    return type("Wrong", (_Wrong,), {"__module__": __name__, **members})(10)


def _strange(self, x, train=False, start=None, stop=None):
    return nn.Dense(10, name="tail")(x.reshape(len(x), -1))


def _sown(self, x, train=False, start=None, stop=None):
    self.variable("cache", "x", jnp.zeros, (1,))
    return nn.Dense(10, name="head")(x.mean((1, 2)))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Plain(3), "it returns [1, 3] of one image; expected logits [1, 10]"),
        (nn.Dense(10), "network Dense: boundaries is None; expected a tuple of names"),
        (wrong(boundaries=("zero", "tail")), "expected names that differ, 'head' last"),
        (wrong(boundaries=["zero", "head"]), "expected a tuple of names, input to head"),
        (wrong(__call__=nn.compact(_strange)), "params has the groups tail; expected names of"),
        (
            wrong(__call__=nn.compact(_sown)),
            "variables of the collection 'cache'; expected params and",
        ),
        (Plain(10, width=[4]), "fields cannot be hashed"),
        (
            lambda classes: "net",
            "the network is a str; expected a flax.linen.Module, or a function",
        ),
    ],
)
def test_networks_that_do_not_meet_the_contract(tmp_path, network, message):
    with pytest.raises(InputError, match=re.escape(message)):
        tl_jax.finetune(
            tiny_config(**OWN), tmp_path / "run", data=digits("train", 60), model=network
        )
    assert tree_of(tmp_path) == {}


@pytest.mark.parametrize(("field", "value"), [("stem", "cifar"), ("batch_norm_rows", 5)])
def test_options_of_a_config_are_not_those_of_an_object(tmp_path, field, value):
    config = tiny_config(**OWN, **{f"model__{field}": value})
    with pytest.raises(InputError, match=rf"model.{field}={value!r}: own:Plain takes no options"):
        tl_jax.finetune(config, tmp_path / "run", data=digits("train", 60), model=Plain)
