"""Every update gets the rows that the order says, however they reach the devices and wherever a run begins."""

import functools

import numpy as np
import pytest
from parts import nothing_compiled
from small import config_with

from tl_jax import data
from tl_jax.data import images
from tl_jax.parallel import device_dataset
from tl_jax.runs import activation_cache, dispatch
from tl_jax.runs.setup import prepare

STORED = {
    "freeze.strategy": "backbone",
    "cache.boundary": "auto",
    "cache.dir": "",
    "augment.flip": False,
    "augment.crop_padding": 0,
}
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


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of 20 training and 4 test images, shared as if this were the second of two processes."""
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for place in range(count):
            path = tmp_path / split / "ab"[place % 2] / f"{place:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.to_png(random.integers(0, 256, (8, 8, 3), np.uint8)))
    shared = functools.partial(data.Decoding, shared=True)
    monkeypatch.setattr(
        data, "Decoding", lambda *given, **named: shared(*given, **named | {"shared": True})
    )
    monkeypatch.setattr(device_dataset, "own_rows", lambda mesh, rows: np.arange(rows // 2, rows))
    return {
        "data.name": f"folder:{tmp_path}",
        "data.train_split": "train",
        "data.test_split": "test",
        "data.examples_per_class": 0,
        "data.validation_fraction": 0.25,
        "data.cache_dir": "",
    }


@pytest.mark.parametrize(
    ("fields", "train", "validation", "test"),
    [
        # Of 5 and 4 that are evaluated the second process stores the last 5.
        pytest.param({"data.placement": "device"}, range(7, 15), [4], range(4), id="devices"),
        pytest.param({}, range(7, 15), range(5), range(4), id="training data on the devices"),
        pytest.param({"data.placement": "host"}, range(15), range(5), range(4), id="host"),
        pytest.param(STORED, [], [], [], id="activations"),
        pytest.param(
            {"data.placement": "device", "average.name": "swa"},
            range(15),
            [4],
            range(4),
            id="statistics of an average",
        ),
    ],
)
def test_which_images_a_process_keeps(fields, train, validation, test, photos, monkeypatch):
    kept = {}
    keep = data.InMemorySplit.keep

    def seen(split, rows):
        kept[split.name.split()[-1]] = sorted(rows.tolist())
        keep(split, rows)

    monkeypatch.setattr(data.InMemorySplit, "keep", seen)
    with nothing_compiled():
        setup = activation_cache.use(prepare(config_with(photos | fields)))
        plan = dispatch.make(setup)
    splits = setup.splits
    rows = {name: split.whole()[1] for name, split in splits.items()}
    expected = [*rows["train"][list(train)], *rows["validation"][list(validation)]]
    assert kept == {"train": sorted(expected), "test": list(test)}
    plan_rows = {row["what"]: row["bytes"] for row in plan.memory}
    assert plan_rows.get("decoded images", 0) == (len(expected) + len(test)) * 8 * 8 * 3
    # Of images the part of this process, of activations those that were chosen from what is stored.
    copied = 8 * 8 * 8 * 3 if setup.cache is None else setup.inputs["train"].num_bytes
    assert plan_rows.get("training data, copied", 0) == (0 if plan.data == "host" else copied)
    plan.place()
    if plan.data != "host" and setup.cache is None:
        np.testing.assert_array_equal(
            plan.step._data[0], splits["train"].images.reshape(len(splits["train"]), -1)
        )
    if plan.evaluation != "host" and setup.cache is None:
        stored, _ = setup.evaluator._stored.arrays
        both = [splits[name].images.reshape(-1, 8 * 8 * 3) for name in ("validation", "test")]
        np.testing.assert_array_equal(stored, np.concatenate(both))


def test_images_that_are_still_decoded_leave_less_room(photos, monkeypatch):
    """Of shared ones it is not said yet which."""
    missing = []

    def room(mesh, bytes_missing):
        missing.append(bytes_missing)
        return 10**9

    monkeypatch.setattr(dispatch, "room_for_data", room)
    with nothing_compiled():
        dispatch.make(prepare(config_with(photos)))
    assert missing == [24 * 8 * 8 * 3]


def test_data_that_are_split_over_the_devices_count_by_part(monkeypatch):
    monkeypatch.setattr(dispatch, "choose_layout", lambda *arguments: "sharded")
    setup, plan = made(parallel__devices=4)
    train = setup.splits["train"]
    part, of_image = -(-len(train) // 4), train.num_bytes // len(train)
    assert plan.data == "device, sharded"
    assert plan.data_bytes == part * of_image + 4 * len(train)


def test_what_was_stored_for_a_phase_is_not_used_by_one_without_room(monkeypatch):
    fields = {"data.placement": "device", "data.validation_fraction": 0.3}
    with nothing_compiled():
        setup = prepare(config_with({"data.examples_per_class": 10} | fields))
        assert dispatch.make(setup).evaluation == "device, replicated"
        monkeypatch.setattr(dispatch, "room_for_evaluation", lambda taken: 0)
        plan = dispatch.make(setup)
    assert (plan.evaluation, plan.evaluation_bytes) == ("host", 0)
    test = setup.splits["test"]
    assert not setup.evaluator._is_stored(test)
    assert setup.evaluator.own_rows(test).tolist() == list(range(len(test)))


@pytest.mark.parametrize(("storage", "where"), [("host", "host"), ("device", "device, replicated")])
def test_activations_are_evaluated_where_they_are_stored(storage, where):
    with nothing_compiled():
        fields = {"cache.storage": storage, "data.validation_fraction": 0.3}
        enough = {"data.examples_per_class": 10}
        setup = activation_cache.use(prepare(config_with(STORED | fields | enough)))
        plan = dispatch.make(setup)
    assert (plan.data, plan.evaluation) == (where, where)


def test_splits_of_which_one_is_decoded_on_access_stay_on_the_host(photos, monkeypatch):
    fields = {"data.placement": "device"}
    with nothing_compiled():
        setup = prepare(config_with(photos | fields))
        lazy = setup.splits["test"]._pixels._split
        setup.inputs["test"] = lazy
        plan = dispatch.make(setup)
    assert (plan.data, plan.evaluation) == ("device, replicated", "host")
