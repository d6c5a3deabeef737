"""Runs that train as one program are the runs that they are alone."""

import functools
import json

import jax
import numpy as np
import pytest
from running import tiny_config

from tl_jax import checkpointing, trees
from tl_jax.compilation import programs_kept
from tl_jax.runs import together, training
from tl_jax.runs.together import Group, NotTogether
from tl_jax.training.loops import NonFiniteLoss, Stopped

pytestmark = pytest.mark.usefixtures("small_networks")
# With a convolution to train: a unit of an ablation would not be made of such runs on a CPU, but may be elsewhere.
STORED = {
    "freeze__strategy": "up_to:stage1",
    "cache__boundary": "auto",
    "augment__crop_padding": 0,
    "augment__flip": False,
    "data__validation_fraction": 0.2,
    "data__examples_per_class": 4,
    "train__eval_every_steps": 3,
    "train__steps": 9,
    "optim__learning_rate": 0.1,
    "optim__weight_decay": 1e-3,
    "objective__label_smoothing": 0.1,
    "objective__l2_sp": 1e-3,
}
# Each differs from the first in one field that is data of the program, and from its neighbours in its seed.
MEMBERS = (
    {},
    {"optim__learning_rate": 0.3, "seed": 1, "data__seed": 1},
    {"optim__weight_decay": 0.3},
    {"objective__label_smoothing": 0.5, "seed": 1, "data__seed": 1},
    {"objective__l2_sp": 0.5},
)


def config_of(**fields):
    return tiny_config(**STORED | fields)


def made(configs, folder, stop_requested=lambda: False, sealed=True):
    """Returns how the runs of a group ended."""
    jobs = [
        functools.partial(_run, config, folder / str(number), stop_requested, sealed)
        for number, config in enumerate(configs)
    ]
    with programs_kept():
        return Group(configs).run(jobs)


def _run(config, folder, stop_requested, sealed, member):
    return training.run(config, folder, stop_requested, sealed=sealed, member=member)


def logged(folder):
    """Returns [(step, split, metrics that are no times)]."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    timed = ("seconds", "images_per_second", "waiting_seconds", "step", "split")
    return [
        (line["step"], line["split"], {k: v for k, v in line.items() if k not in timed})
        for line in lines
    ]


def assert_same_run(one, other, rel=1e-5):
    """Compares two run folders that are sealed: the log, the choice and the metrics."""
    for mine, theirs in zip(logged(one), logged(other), strict=True):
        assert mine[:2] == theirs[:2]
        assert mine[2] == pytest.approx(theirs[2], rel=rel, abs=rel / 10)
    found, expected = (json.loads((run / "sealed.json").read_text()) for run in (one, other))
    for name in ("selected_step", "steps", "selection", "frozen", "stopped_early"):
        assert found[name] == expected[name], name
    of_splits = found["splits"]["validation"], expected["splits"]["validation"]
    assert of_splits[0]["loss"] == pytest.approx(of_splits[1]["loss"], rel=rel, abs=0)


@pytest.fixture(scope="module")
def alone(small_networks, tmp_path_factory):
    """Returns the folder of the members' runs, each made alone and then opened."""
    folder = tmp_path_factory.mktemp("alone")
    with programs_kept():
        for number, fields in enumerate(MEMBERS):
            training.run(config_of(**fields), folder / str(number), sealed=True)
    return folder


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
def test_members_are_the_runs_that_they_are_alone(alone, tmp_path, monkeypatch, at_once):
    if at_once:  # as on an accelerator
        monkeypatch.setattr(together, "_each_member", jax.vmap)
    configs = [config_of(**fields) for fields in MEMBERS]
    ends = made(configs, tmp_path)
    losses = set()
    for number, end in enumerate(ends):
        assert end["dispatch"]["together"] == len(MEMBERS)
        assert_same_run(tmp_path / str(number), alone / str(number))
        losses.add(end["splits"]["validation"]["loss"])
    assert len(losses) == len(MEMBERS)  # every field and seed counts
    # The same folder goes on alone, with the weights that were saved.
    opened, expected = (
        training.run(configs[1], folder / "1")["splits"]["test"] for folder in (tmp_path, alone)
    )
    assert opened["loss"] == pytest.approx(expected["loss"], rel=1e-5, abs=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"objective__class_weights": tuple(map(float, range(1, 11)))},
        {"optim__lr_multipliers": ("head/kernel=0.1",)},
        {"optim__sam_rho": 0.3},
        {
            "optim__schedule": "plateau",
            "optim__plateau_patience": 1,
            "optim__decay_epochs": 0.1,
            "optim__momentum": 0.0,
        },
    ],
    ids=["weights of classes", "multipliers", "SAM", "plateau"],
)
def test_what_members_have_in_common_counts_for_each(small_networks, tmp_path, fields):
    """And it is not nothing: without it the first member is another run."""
    common = {"freeze__strategy": "backbone", "train__eval_every_steps": 9, **fields}
    configs = [config_of(**common, optim__learning_rate=rate) for rate in (0.5, 0.05)]
    made(configs, tmp_path / "together")
    with programs_kept():
        for number, config in enumerate(configs):
            training.run(config, tmp_path / str(number), sealed=True)
            assert_same_run(tmp_path / "together" / str(number), tmp_path / str(number))
        without = {"freeze__strategy": "backbone", "train__eval_every_steps": 9}
        plain = config_of(
            **without, optim__learning_rate=0.5, optim__momentum=configs[0].optim.momentum
        )
        training.run(plain, tmp_path / "plain", sealed=True)
    ends = [json.loads((tmp_path / name / "sealed.json").read_text()) for name in ("0", "plain")]
    first, other = (end["splits"]["validation"]["loss"] for end in ends)
    assert first != pytest.approx(other, rel=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="at once there, in another order")
def test_heads_are_the_runs_that_they_are_alone_to_the_bit(small_networks, tmp_path):
    """Also where a learning rate is so high that rounding would grow: what an ablation on a CPU trains together."""
    heads = {"train__steps": 40, "freeze__strategy": "backbone"}
    configs = [
        config_of(**heads, seed=seed, data__seed=seed, optim__learning_rate=rate)
        for seed, rate in ((0, 30.0), (1, 30.0), (0, 0.1))
    ]
    with programs_kept():
        for number, config in enumerate(configs):
            training.run(config, tmp_path / "alone" / str(number), sealed=True)
    made(configs, tmp_path / "together")
    for number in range(len(configs)):
        folders = [tmp_path / where / str(number) for where in ("together", "alone")]
        assert_same_run(*folders, rel=1e-6)  # sums that are logged alone may be an ulp apart
        mine, theirs = (
            trees.flatten(checkpointing.restore_params(run / "checkpoints", "latest"))
            for run in folders
        )
        assert mine.keys() == theirs.keys()
        for name, leaf in mine.items():
            np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)


def test_members_that_are_stopped_go_on(alone, tmp_path):
    configs = [config_of(**fields, train__updates_per_dispatch=2) for fields in MEMBERS[:3]]

    def lines(number):
        log = tmp_path / str(number) / "metrics.jsonl"
        return len(log.read_text().splitlines()) if log.is_file() else 0

    # The first is asked to stop after two updates, the others after a few more.
    ends = made(configs, tmp_path, lambda: lines(0) == 2 or lines(1) >= 5)
    assert all(isinstance(end, Stopped) for end in ends)
    assert len({end.step for end in ends}) > 1 and min(end.step for end in ends) > 0
    for end, before in zip(made(configs, tmp_path), ends, strict=True):
        assert end["resumed_at_step"] == before.step
    for number in range(3):
        assert_same_run(tmp_path / str(number), alone / str(number))


def test_a_member_that_diverges_leaves_the_others_as_they_are(alone, tmp_path):
    fields = [MEMBERS[0], {"optim__learning_rate": 1e30}, MEMBERS[1]]
    first, wild, last = made([config_of(**one) for one in fields], tmp_path)
    assert isinstance(wild, NonFiniteLoss)
    assert {first["dispatch"]["together"], last["dispatch"]["together"]} == {3}
    assert_same_run(tmp_path / "0", alone / "0")
    assert_same_run(tmp_path / "2", alone / "1")


def test_members_whose_patience_ends_at_different_steps(tmp_path):
    """The first learns nothing: its first evaluation stays the best."""
    spans = {"train__patience": 2, "train__steps": 18}
    configs = [config_of(optim__learning_rate=rate, **spans) for rate in (1e-12, 0.3)]
    made(configs, tmp_path / "together")
    steps = []
    for number, config in enumerate(configs):
        result = training.run(config, tmp_path / "alone" / str(number), sealed=True)
        assert_same_run(tmp_path / "together" / str(number), tmp_path / "alone" / str(number))
        steps.append(result["steps"])
    assert steps[0] < steps[1]


def test_views_and_mixed_activations(tmp_path):
    fields = {"augment__flip": True, "cache__views": 2, "augment__mixing": ("mixup=0.2",)}
    configs = [config_of(**fields, seed=seed, data__seed=seed) for seed in (0, 1)]
    made(configs, tmp_path / "together")
    for number, config in enumerate(configs):
        training.run(config, tmp_path / "alone" / str(number), sealed=True)
        assert_same_run(tmp_path / "together" / str(number), tmp_path / "alone" / str(number))


def test_other_numbers_of_examples_are_not_trained_together(tmp_path):
    few = config_of(seed=1, data__seed=1, data__examples_per_class=3)
    first, other = made([config_of(), few], tmp_path)
    assert first["dispatch"]["together"] == 2
    assert isinstance(other, NotTogether)
    assert "are (30, ()), those of another seed (40, ())" in str(other)
    assert not (tmp_path / "1" / "sealed.json").exists()


def test_other_weights_of_classes_are_not_trained_together(tmp_path):
    """They follow from the labels of a seed, and are constants of the program."""
    weighted = config_of(seed=1, data__seed=1, objective__class_weighting="balanced")
    first, other = made([config_of(), weighted], tmp_path)
    assert first["dispatch"]["together"] == 2
    assert isinstance(other, NotTogether) and "weights of classes are (40, (1.0," in str(other)


def test_data_that_stay_on_the_host_are_trained_one_by_one(tmp_path):
    configs = [config_of(seed=seed, cache__storage="host") for seed in (0, 1)]
    for end in made(configs, tmp_path):
        assert isinstance(end, NotTogether) and "not on one device" in str(end)
    assert not (tmp_path / "1").exists()  # it was not begun


@pytest.mark.parametrize(
    ("fields", "reason"),
    {
        "head": ({"freeze__strategy": "backbone"}, ""),
        "no cache": ({"cache__boundary": ""}, "no stored activations"),
        "phases": ({"phases": (("train.steps=4",), ())}, "phases"),
        "source": ({"init__source": ("data.name=digits",)}, "a source"),
        "average": ({"average__name": "ema"}, "averages"),
        "fitted": ({"train__fit_to_data": True}, "fitted"),
        "teacher": ({"objective__distillation": 0.5}, "a teacher"),
        "own rule": ({"optim__name": "own:lion"}, "own parts"),
        "own objective": ({"objective__name": "own:mine"}, "own parts"),
        "storage": ({"cache__storage": "disk"}, "not on the device"),
        "placement": ({"data__placement": "host"}, "not on the device"),
        "pmap": ({"parallel__mode": "pmap"}, "several devices"),
        "devices": ({"parallel__devices": 2}, "several devices"),
        "convolutions": ({}, "slow on a CPU"),
    }.values(),
)
def test_why_a_run_is_made_alone(fields, reason):
    found = together.why_alone(config_of(**fields))
    assert reason in found and bool(reason) == bool(found)


def test_seeds_and_strengths_do_not_tell_programs_apart():
    keys = {together.key(config_of(**fields)) for fields in MEMBERS}
    assert len(keys) == 1
    others = {
        "optim__momentum": 0.5,
        "optim__weight_decay": 0.0,  # no part of the program at all
        "objective__l2_sp": 0.0,
        "objective__label_smoothing": 0.0,
        "train__steps": 8,
        "data__examples_per_class": 3,
        "cache__views": 2,
    }
    for name, value in others.items():
        assert together.key(config_of(**{name: value})) not in keys, name


def test_data_of_a_seed_are_placed_once():
    configs = [config_of(**fields) for fields in MEMBERS]
    assert Group(configs).data_sets == 2
    group = Group([config_of(seed=seed, data__seed=0) for seed in (3, 3, 4)])
    assert group.data_sets == 2
    np.testing.assert_array_equal(group._data_set, [0, 0, 1])
