"""What becomes of a training split of a million images, on accelerators that are simulated: nothing is held."""

import dataclasses
import types

import numpy as np
import pytest
from parts import nothing_compiled
from small import config_with

from tl_jax.data import InMemorySplit
from tl_jax.errors import InputError
from tl_jax.parallel import memory
from tl_jax.runs import dispatch, memory_plan
from tl_jax.runs.setup import prepare

pytestmark = pytest.mark.usefixtures("small_networks")

MILLION = 10**6
GB = 10**9


class Promised:
    """A million images that are never looked at."""

    decoding_bytes = 0

    def __init__(self, side):
        self.shape = (MILLION, side, side, 3)
        self.bytes_in_memory = 0  # still decoding
        self.num_bytes = MILLION * side * side * 3

    def get(self, rows=None):
        raise AssertionError("nothing of this size is to be read")


def planned(monkeypatch, side, devices=1, host=512 * GB, **fields):
    """Returns the dispatch on devices that have 60 GB each, what a card of 80 GB gives by default."""
    changes = {f"data.{name}": value for name, value in fields.items()}
    accelerator = types.SimpleNamespace(
        platform="gpu", memory_stats=lambda: {"bytes_limit": 60 * GB, "bytes_in_use": 0}
    )
    limit = memory.available(accelerator)
    monkeypatch.setattr(dispatch, "_platform", lambda setup: "gpu")
    monkeypatch.setattr(memory_plan, "_is_host", lambda setup: False)
    monkeypatch.setattr(memory, "available", lambda device: limit)
    monkeypatch.setattr(memory, "host_available", lambda: host)
    monkeypatch.setattr(dispatch, "room_for_data", lambda mesh, missing: round(0.4 * limit))
    with nothing_compiled():
        setup = prepare(config_with({"parallel.devices": devices} | changes))
        labels = np.zeros(MILLION, np.int32)
        names = setup.splits["train"].class_names
        train = InMemorySplit.of(Promised(side), labels, names, "train")
        splits = type(setup.splits)(setup.splits | {"train": train}, "test", ())
        setup = dataclasses.replace(setup, splits=splits, inputs=dict(splits))
        return dispatch.make(setup)


def row(plan, what):
    return next(row["bytes"] for row in plan.memory if row["what"].startswith(what))


def test_32_pixels_are_stored_whole(monkeypatch):
    plan = planned(monkeypatch, 32)
    assert plan.data == "device, replicated"
    assert row(plan, "training data") == MILLION * (32 * 32 * 3 + 4)


def test_224_pixels_are_stored_over_eight_devices(monkeypatch):
    plan = planned(monkeypatch, 224, devices=8, batch_size=16)
    assert plan.data == "device, sharded"
    assert row(plan, "training data") == MILLION * (224 * 224 * 3 // 8 + 4)


def test_224_pixels_come_from_the_host_where_one_device_is_too_small(monkeypatch):
    plan = planned(monkeypatch, 224)
    assert plan.data == "host" and plan.evaluation_bytes > 0
    small = row(plan, "decoded images") - MILLION * 224 * 224 * 3  # those that are evaluated
    assert 0 < small < 10**7
    assert row(plan, "training batches") == 3 * 12 * (224 * 224 * 3 + 12)


def test_what_has_no_room_is_refused(monkeypatch):
    with pytest.raises(InputError, match="150,528,000,000 bytes over 1 devices do not fit"):
        planned(monkeypatch, 224, placement="device")
    with pytest.raises(
        InputError, match=r"needs 14\d\.\d GiB of the host's memory.* decoded images, 140\.2 GiB"
    ):
        planned(monkeypatch, 224, host=100 * GB)
