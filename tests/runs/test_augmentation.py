"""Operations and mixings in whole runs: by name and as objects, resumed, on one device and eight."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import assert_same_bits, metric_lines, tiny_config

import tl_jax
from tl_jax import ablation, augment
from tl_jax.errors import InputError
from tl_jax.runs import training
from tl_jax.runs.setup import prepare
from tl_jax.training.loops import Stopped

pytestmark = pytest.mark.usefixtures("small_networks")

NAMES = {
    "augment__operations": (
        "rotation=20",
        "random_resized_crop=0.5",
        "color_jitter=0.4",
        "random_erasing=0.5",
    ),
    "augment__mixing": ("mixup=0.4", "cutmix=1"),
}


def made(**fields):
    return tiny_config(**{"data__validation_fraction": 0.1} | fields)


def darken(key, image, strength):
    return image * (1 - strength * jax.random.uniform(key))


def with_the_next(key, images, targets, strength):
    del key
    partners = jnp.roll(jnp.arange(len(images)), 1)
    return tuple((1 - strength) * rows + strength * rows[partners] for rows in (images, targets))


DARKEN = augment.Operation("darken", darken, 0.5)
NEXT = augment.Mixing("with_the_next", with_the_next, 0.25)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    config = made(**NAMES, train__steps=8, train__updates_per_dispatch=1)
    training.run(config, tmp_path / "whole")
    asked = iter([False] * 3 + [True] * 100)
    with pytest.raises(Stopped) as stopped:
        training.run(config, tmp_path / "run", lambda: next(asked))
    assert 0 < stopped.value.step < 8
    result = training.run(config, tmp_path / "run")
    assert result["resumed_at_step"] == stopped.value.step
    assert_same_bits(tmp_path / "run", tmp_path / "whole")
    assert metric_lines(tmp_path / "run") == metric_lines(tmp_path / "whole")
    other = training.run(
        made(**NAMES | {"augment__mixing": ()}, train__steps=8), tmp_path / "other"
    )
    assert other["splits"]["test"]["loss"] != result["splits"]["test"]["loss"]


def test_eight_devices_train_as_one(tmp_path):
    losses = {}
    for devices in (1, 8):
        # What each operation does on eight devices: tests/augment/test_augmentation.py.
        fields = {**NAMES, "augment__operations": ("rotation=20",), "data__batch_size": 16}
        config = made(**fields, parallel__devices=devices, train__steps=4)
        training.run(config, tmp_path / str(devices))
        lines = metric_lines(tmp_path / str(devices))
        losses[devices] = [line["loss"] for line in lines if line["split"] == "train"]
    assert len(losses[1]) == 4
    np.testing.assert_allclose(losses[8], losses[1], rtol=1e-5)


def test_objects_are_recorded_by_name_and_given_again(tmp_path):
    config = made(train__steps=2)
    given = {"operations": ["rotation=5", DARKEN], "mixing": [NEXT]}
    run = tl_jax.finetune(config, tmp_path / "run", **given)
    assert run.config.augment.operations == ["rotation=5", "own:darken=0.5"]
    assert run.config.augment.mixing == ["own:with_the_next=0.25"]
    assert config.augment.operations == ()  # as it was given
    assert tl_jax.finetune(config, tmp_path / "run", **given).result == run.result
    for field, value in [("operations", ["rotation=5"]), ("mixing", [])]:
        with pytest.raises(InputError, match=rf"augment\.{field}: .* in the folder, .* given"):
            tl_jax.finetune(config, tmp_path / "run", **given | {field: value})
    longer = run.config.copy_and_resolve_references()
    longer.train.steps = 3
    with pytest.raises(InputError, match=r"'own:darken=0\.5' is an object of the Python code"):
        tl_jax.finetune(longer, tmp_path / "other")
    images = np.zeros((2, 8, 8, 3), np.uint8)
    assert tl_jax.load_run(tmp_path / "run").predict(images).shape == (2, 10)
    evaluated = tl_jax.evaluate(tmp_path / "run", tmp_path / "evaluated")  # changes no image
    assert evaluated["splits"]["test"]["loss"] == run.result["splits"]["test"]["loss"]


def test_operations_come_in_the_order_of_the_config():
    names = ("rotation=5", "random_erasing=0.5", "color_jitter=0.2")
    for given in itertools.permutations(names):
        operations = prepare(made(augment__operations=given)).augmentation.operations
        assert tuple(map(str, operations)) == given


def test_a_misspelt_operation_of_a_method_stops_a_comparison_before_its_first_run(tmp_path):
    config = made(train__steps=2)
    config.compare.seeds, config.compare.baseline = (0,), "plain"
    config.compare.methods.plain = ()
    config.compare.methods.phased = ("phases=[('train.steps=1', 'augment.operations=rotaton=5')]",)
    with pytest.raises(InputError, match=r"phased, .*seed 0: phase 1: .*'rotaton'.*rotation"):
        ablation.run(ablation.spec_of(config), tmp_path / "compared")
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_what_objects_do_reaches_the_updates(tmp_path):
    losses = []
    for number, given in enumerate(
        [{}, {"operations": [DARKEN]}, {"mixing": [NEXT]}, {"operations": [], "mixing": []}]
    ):
        tl_jax.finetune(made(train__steps=2), tmp_path / str(number), **given)
        losses.append(metric_lines(tmp_path / str(number))[0]["loss"])
    assert losses[0] == losses[3] and len(set(losses)) == 3


def test_registered_names_are_those_of_objects(tmp_path, monkeypatch):
    for table in (augment.OPERATIONS, augment.MIXINGS):
        monkeypatch.setattr(table, "entries", dict(table.entries))
    augment.register_operation("darken", darken)
    augment.register_mixing("with_the_next", with_the_next)
    config = made(
        train__steps=2,
        augment__operations=("darken=0.5",),
        augment__mixing=("with_the_next=0.25",),
    )
    training.run(config, tmp_path / "named")
    tl_jax.finetune(made(train__steps=2), tmp_path / "objects", operations=[DARKEN], mixing=[NEXT])
    assert_same_bits(tmp_path / "named", tmp_path / "objects")


def test_views_of_operations_are_stored_by_what_they_are(tmp_path):
    """Other operations or strengths are other activations; the same ones are found again."""
    fields = {
        "freeze__strategy": "backbone",
        "cache__boundary": "pool",
        "cache__views": 2,
        "cache__dir": str(tmp_path / "cache"),
        "augment__crop_padding": 0,
        "augment__flip": False,
        "train__steps": 2,
    }
    keys = []
    for number, names in enumerate([("rotation=20",), ("rotation=20",), ("rotation=21",)]):
        config = made(**fields, augment__operations=names, augment__mixing=("mixup=1",))
        result = training.run(config, tmp_path / str(number))
        keys.append([bank["key"] for bank in result["cache"]["banks"] if bank["for"] == "train"])
    assert keys[0] == keys[1] != keys[2] and len(keys[0]) == 1
    assert_same_bits(tmp_path / "0", tmp_path / "1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"operations": "rotation=15"}, r"expected a list of names such as operations="),
        ({"operations": [darken]}, r"augment\.Operation\(name, function, strength\)"),
        ({"mixing": [DARKEN]}, r"augment\.Mixing\(name, function, strength\)"),
        (
            {"operations": [DARKEN, augment.Operation("darken", with_the_next, 0.5)]},
            "two of them are 'own:darken=0.5'",
        ),
        (
            {"operations": [augment.Operation("half", lambda key, image, s: image[::2], 1.0)]},
            r"augment\.operations=\('own:half=1',\): operation half=1 returns",
        ),
        (
            {"mixing": [augment.Mixing("none", lambda key, images, targets, s: None, 1.0)]},
            "mixing none=1 returns None",
        ),
    ],
)
def test_what_cannot_be_given(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        tl_jax.finetune(made(), tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
