"""Every update gets the rows that the order says, however they reach the devices and wherever a run begins."""

import numpy as np
import pytest
from parts import nothing_compiled
from small import config_with

from tl_jax.runs import dispatch
from tl_jax.runs.setup import prepare

pytestmark = pytest.mark.usefixtures("small_networks")


def made(**changes):
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    with nothing_compiled():
        setup = prepare(config_with(fields))
        return setup, dispatch.make(setup)


def expected(setup, first, count):
    return np.stack([setup.order.rows(first + turn) for turn in range(count)])


@pytest.mark.parametrize("start", [0, 3])
def test_rows_on_the_devices(start):
    setup, plan = made(train__updates_per_dispatch=3)
    assert plan.data.startswith("device") and plan.updates == 3
    with plan.open_feed(start, setup.total_steps) as feed:
        done = start
        # The last dispatches are shorter than the rows that were worked out ahead for them, and longer.
        for count in (3, 3, 1, 2):
            np.testing.assert_array_equal(feed(done, count), expected(setup, done, count))
            done += count


@pytest.mark.parametrize("start", [0, 3])
def test_batches_from_the_host(start):
    setup, plan = made(data__placement="host")
    assert (plan.data, plan.updates) == ("host", 1)
    split = setup.splits["train"]
    with plan.open_feed(start, setup.total_steps) as feed:
        for step in range(start, setup.total_steps):
            batch = feed(step, 1)
            (rows,) = expected(setup, step, 1)
            np.testing.assert_array_equal(batch["index"], rows)
            np.testing.assert_array_equal(batch["label"], split.labels[rows])
            np.testing.assert_array_equal(batch["image"], split.gather(rows))
            np.testing.assert_array_equal(batch["position"], np.arange(12))


@pytest.mark.parametrize(
    ("platform", "devices", "updates"), [("cpu", 1, 8), ("cpu", 4, 8), ("gpu", 4, 32)]
)
def test_updates_take_a_quarter_of_a_second_by_the_operations_on_one_device(
    platform, devices, updates, monkeypatch
):
    """Those of the stand-in for the program are a million on all devices; simulated ones share the cores."""
    monkeypatch.setattr(dispatch, "_platform", lambda setup: platform)
    monkeypatch.setitem(dispatch._FLOP_PER_DISPATCH, platform, 8e6)
    fields = {"train__updates_per_dispatch": 0, "freeze__strategy": "backbone"}
    assert made(parallel__devices=devices, **fields)[1].updates == updates


@pytest.mark.parametrize(
    ("platform", "fields", "lengths"),
    [
        ("cpu", {"freeze.strategy": "backbone"}, [3, 4, 5]),
        ("cpu", {"freeze.strategy": "backbone", "train.updates_per_dispatch": 1}, [1]),
        ("gpu", {}, [5]),
    ],
)
def test_every_program_of_a_run_is_there_before_its_first_update(
    platform, fields, lengths, monkeypatch
):
    """Of 12 updates, evaluated after 7, the spans are cut into 4 and 3, and into 5.

    On a CPU each number of updates takes a program; off it the longest makes fewer too.
    """
    monkeypatch.setattr(dispatch, "_platform", lambda setup: platform)
    spans = {"train.updates_per_dispatch": 5, "train.eval_every_steps": 7}
    held_out = {"data.validation_fraction": 0.3, "data.examples_per_class": 10}
    with nothing_compiled():
        plan = dispatch.make(prepare(config_with(spans | held_out | fields)))
    assert sorted(plan.step._programs) == lengths


@pytest.mark.parametrize(("platform", "fewer"), [("cpu", False), ("gpu", True)])
def test_off_the_cpu_one_program_makes_fewer_updates_too(platform, fewer, monkeypatch):
    """On a CPU it would round them differently."""
    monkeypatch.setattr(dispatch, "_platform", lambda setup: platform)
    assert made(train__updates_per_dispatch=3)[1].step._fewer == fewer


@pytest.mark.parametrize(
    ("fields", "platform", "stored"),
    [
        pytest.param({}, "cpu", [], id="images on the host itself"),
        pytest.param({"data.placement": "device"}, "cpu", ["validation", "test"], id="asked for"),
        pytest.param({}, "gpu", ["validation", "test"], id="images on an accelerator"),
        pytest.param({"data.placement": "host"}, "gpu", [], id="data stay on the host"),
        pytest.param({"parallel.mode": "pmap"}, "gpu", [], id="pmap"),
        pytest.param({"data.validation_fraction": 0.0}, "gpu", ["test"], id="nothing held out"),
    ],
)
def test_where_the_splits_that_are_evaluated_are(fields, platform, stored, monkeypatch):
    monkeypatch.setattr(dispatch, "_platform", lambda setup: platform)
    with nothing_compiled():
        setup = prepare(
            config_with({"data.validation_fraction": 0.3, "data.examples_per_class": 10} | fields)
        )
        plan = dispatch.make(setup)
    kept = setup.evaluator._stored
    assert (kept.splits if kept else ()) == tuple(setup.inputs[role] for role in stored)
    assert plan.evaluation_bytes == (kept.num_bytes if kept else 0)
    rows = {row["what"]: row["bytes"] for row in plan.memory}
    where = plan.facts()["evaluation"]
    assert where == ("device, replicated" if kept else "host")
    assert rows.get(f"evaluation data ({where})", 0) == plan.evaluation_bytes
    if kept:
        assert setup.evaluator._at_once == (platform != "cpu")


def test_splits_without_room_beside_the_training_data_stay_on_the_host(monkeypatch):
    """A fifth of what those leave."""
    monkeypatch.setattr(dispatch, "_platform", lambda setup: "gpu")
    asked = []
    monkeypatch.setattr(dispatch, "room_for_evaluation", lambda taken: asked.append(taken) or 5)
    setup, plan = made()
    assert asked == [plan.data_bytes] and plan.evaluation_bytes == 0
    assert setup.evaluator._stored is None
