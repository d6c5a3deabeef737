"""Which activations a split reads: those of its own examples, augmented for training alone."""

import contextlib
import os

import numpy as np
import pytest
from parts import nothing_compiled
from small import CACHED, QUIET, VIEWS, config_with

from tl_jax import compiler_options, features
from tl_jax.errors import InputError
from tl_jax.parallel import memory, placement, sharding
from tl_jax.runs import activation_banks, activation_cache, dispatch, training
from tl_jax.runs.setup import prepare

pytestmark = pytest.mark.usefixtures("small_networks")


def made(changes):
    with nothing_compiled():
        return activation_cache.use(prepare(config_with(changes)))


@pytest.mark.parametrize("context", [CACHED, VIEWS], ids=["as they are", "views"])
def test_every_split_reads_the_activations_of_its_own_examples(context):
    setup = made(context)
    for name, split in setup.inputs.items():
        numbers = setup.splits[name].whole()[1]
        views = 3 if name == "train" and context is VIEWS else 1
        assert split.views == views
        for view in range(views):
            rows = np.arange(len(split))
            found = split.gather_views(rows, np.full(len(split), view))
            np.testing.assert_array_equal(found[:, 0], numbers * views + view, err_msg=name)
        np.testing.assert_array_equal(split.labels, setup.splits[name].labels)


def test_images_that_change_at_every_update_are_not_stored():
    with pytest.raises(InputError, match=r"cache\.views=1 stores every image as it is"):
        prepare(config_with(CACHED | {"augment.flip": True}))
    with pytest.raises(InputError, match=r"augment\.operations=\('rotation=15',\) change it"):
        prepare(config_with(CACHED | {"augment.operations": ("rotation=15",)}))
    views = {"augment.operations": ("rotation=15",), "cache.views": 2}
    assert prepare(config_with(CACHED | views)).boundary == "pool"
    with pytest.raises(InputError, match="all views are the same"):
        prepare(config_with(CACHED | {"cache.views": 2}))


@pytest.mark.parametrize("strategy", ["up_to:stage2", "backbone"])
def test_freezing_up_to_the_last_stage_leaves_nothing_but_the_head(strategy):
    """Pooling holds no weights, so activations are stored after it."""
    setup = made(CACHED | {"freeze.strategy": strategy})
    assert setup.boundary == "pool"
    frozen = setup.optimisation.frozen_mask
    assert frozen["stage2"]["block0"]["conv2"]["kernel"] and not frozen["head"]["kernel"]


def test_activations_are_mixed_where_the_mixing_can():
    assert prepare(config_with(CACHED | {"augment.mixing": ("mixup=0.2",)})).mixing is not None
    cutmix = {"augment.mixing": ("cutmix=1.0",)}
    message = r"augment\.mixing=.*cutmix cuts boxes .* \[B, 8\], which has no height and width"
    with pytest.raises(InputError, match=message):
        prepare(config_with(CACHED | cutmix))
    assert prepare(config_with(CACHED | cutmix | {"cache.boundary": "stage1"})).mixing is not None
    with pytest.raises(InputError, match=r"cache\.verify=1 compares training on activations"):
        prepare(config_with(CACHED | {"augment.mixing": ("mixup=0.2",), "cache.verify": 1}))


def banks(folder):
    return made(CACHED | {"cache.dir": str(folder)}).cache["banks"]


@pytest.mark.parametrize("name", ["XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"])
def test_what_changes_numbers_from_outside_is_part_of_the_key(tmp_path, monkeypatch, name):
    keys = {row["key"] for row in banks(tmp_path)}
    assert keys == {row["key"] for row in banks(tmp_path)}
    monkeypatch.setenv(name, "1")
    assert not keys & {row["key"] for row in banks(tmp_path)}


def test_all_processes_compute_where_one_finds_nothing(tmp_path, monkeypatch):
    assert {row["state"] for row in banks(tmp_path)} == {"to be computed"}
    assert {row["state"] for row in banks(tmp_path)} == {"there"}
    monkeypatch.setattr(sharding, "least", lambda value: 0 if value == 1 else value)
    assert {row["state"] for row in banks(tmp_path)} == {"to be computed"}


@pytest.mark.parametrize(
    ("changes", "processes", "shared"),
    [
        ({}, 2, True),
        ({"cache.storage": "device"}, 2, True),
        ({}, 1, False),
        ({"cache.storage": "host"}, 2, False),
        ({"cache.storage": "disk"}, 2, False),
        ({"data.placement": "host"}, 2, False),
        ({"cache.verify": 2}, 2, False),
        ({"report.scatter": 10}, 2, False),
        ({"average.name": "ema"}, 2, True),
        ({"average.name": "swa", "freeze.strategy": "up_to:stage1"}, 2, False),
    ],
)
def test_activations_are_shared_where_nothing_reads_those_of_others(
    monkeypatch, changes, processes, shared
):
    setup = prepare(config_with(CACHED | changes))
    monkeypatch.setattr(activation_banks.jax, "process_count", lambda: processes)
    assert activation_banks._may_be_shared(setup) is shared


def shared(changes):
    """Returns the plan of a process that would share with others, and is alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activation_banks, "_may_be_shared", lambda setup: True)
        return activation_banks.make_plan(prepare(config_with(changes)))


def test_they_are_shared_where_devices_and_host_have_room(monkeypatch):
    plan = shared(CACHED)
    images = sum(len(bank.rows) for bank in plan.banks)
    assert (plan.kept, plan.shared, plan.storage) == ([images], True, "device")
    rooms = placement.rooms_for_activations
    for place in ("device", "host"):
        with monkeypatch.context() as patch:
            full = {place: 0}
            patch.setattr(placement, "rooms_for_activations", lambda *of, f=full: rooms(*of) | f)
            if place == "host":  # nothing but memory to compute them into, and no other place
                with pytest.raises(InputError, match="0 \\(device\\), 0 \\(host\\)"):
                    shared(CACHED)
            else:
                assert not shared(CACHED).shared
    with monkeypatch.context() as patch:
        patch.setattr(placement, "room_for_evaluation", lambda taken: 0)
        assert not shared(CACHED).shared


def test_they_are_shared_where_one_device_has_no_room_for_all(monkeypatch):
    """What is split over devices takes a part of each, and leaves room for what is evaluated."""
    four = CACHED | {"parallel.devices": 4, "data.validation_fraction": 0.0}
    trained = next(bank for bank in shared(four).banks if "train" in bank.roles)
    monkeypatch.setattr(memory, "available", lambda device: trained.num_bytes * 0.9)
    assert trained.num_bytes > 0.4 * memory.available(None)
    assert not shared(four).shared  # of 500 test images there are more than of 30 for training
    few = {"data.test_split": "test[:10]"}
    assert shared(four | few).shared


def test_flags_that_change_no_number_are_no_part_of_the_key(tmp_path, monkeypatch):
    """Several processes have one of their own, and find what a single one stored."""
    keys = {row["key"] for row in banks(tmp_path)}
    flags = "--xla_force_host_platform_device_count=2 " + os.environ.get("XLA_FLAGS", "")
    monkeypatch.setenv("XLA_FLAGS", f"{compiler_options.ORDERED_FLAG} {flags}")
    assert keys == {row["key"] for row in banks(tmp_path)}


@pytest.mark.parametrize("context", [CACHED, VIEWS], ids=["as they are", "views"])
def test_a_shared_run_is_the_run(tmp_path, monkeypatch, context):
    """Alone in what would be several processes: what is read by each is everything."""
    changes = context | QUIET | {"data.validation_fraction": 0.2, "train.eval_every_steps": 4}
    plain = training.run(config_with(changes), tmp_path / "plain")
    monkeypatch.setattr(activation_banks, "_may_be_shared", lambda setup: True)
    # Found to fit when the activations were planned.
    monkeypatch.setattr(dispatch, "room_for_evaluation", lambda taken: 0)
    result = training.run(config_with(changes), tmp_path / "shared")
    assert result["cache"]["images_kept"] and "images_kept" not in plain["cache"]
    assert result["dispatch"]["evaluation"] == "device, sharded"
    for name, metrics in plain["splits"].items():
        assert result["splits"][name]["loss"] == pytest.approx(metrics["loss"], rel=1e-5)
        assert result["splits"][name]["top1_accuracy"] == metrics["top1_accuracy"]


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_process_that_fails_alone_tells_the_others(monkeypatch, is_shared):
    """Where each computes its own, no program would meet those of the others; else one that waits would hang."""
    depths, inside = [], 0

    @contextlib.contextmanager
    def together():
        nonlocal inside
        inside += 1
        yield
        inside -= 1

    monkeypatch.setattr(activation_banks, "_may_be_shared", lambda setup: is_shared)
    # Undone before what it replaces is.
    with nothing_compiled(), monkeypatch.context() as patch:
        compute = features.compute

        def seen(*given, **options):
            depths.append(inside)
            return compute(*given, **options)

        patch.setattr(sharding, "together", together)
        patch.setattr(features, "compute", seen)
        activation_cache.use(prepare(config_with(CACHED)))
    assert depths == ([1, 1] if is_shared else [0, 0])


@pytest.mark.parametrize("whole", [False, True])
def test_all_images_are_stored_where_they_are_asked_for(tmp_path, whole):
    """Of a few images of a class the others are not needed; what is there whole is read by a run of other images."""
    few = CACHED | {"data.examples_per_class": 3, "cache.dir": str(tmp_path)}
    plans = [
        activation_banks.make_plan(prepare(config_with(few | fields)))
        for fields in ({"cache.whole": whole}, {"cache.whole": whole, "data.seed": 1})
    ]
    for plan in plans:
        (bank,) = (bank for bank in plan.banks if "train" in bank.roles)
        assert (len(bank.rows) == len(bank.whole)) is whole
    (one, other) = ({bank.store.key for bank in plan.banks} for plan in plans)
    assert (one == other) is whole


def test_what_is_there_whole_is_read_by_a_run_of_few(tmp_path):
    few = CACHED | {"data.examples_per_class": 3, "cache.dir": str(tmp_path)}
    with nothing_compiled():
        activation_cache.use(prepare(config_with(few | {"cache.whole": True})))
    setup = prepare(config_with(few | {"data.seed": 1}))
    with nothing_compiled():
        plan = activation_banks.make_plan(setup)
    assert all(bank.found is not None for bank in plan.banks)
    assert all(len(bank.rows) == len(bank.whole) for bank in plan.banks)
