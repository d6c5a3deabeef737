"""Where data are stored, by what there is room for."""

import re

import pytest

from tl_jax.errors import InputError
from tl_jax.parallel import memory, placement, sharding
from tl_jax.parallel.placement import choose_layout, choose_storage


@pytest.mark.parametrize(
    ("num_bytes", "wanted", "expected"),
    [
        (100, "auto", "replicated"),
        (400, "auto", "sharded"),
        (401, "auto", None),
        (100, "host", None),
        (400, "device", "sharded"),
    ],
)
def test_layout_as_room_allows(num_bytes, wanted, expected):
    mesh = sharding.make_mesh(4)
    assert choose_layout(num_bytes, mesh, 100, wanted) == expected


def test_no_room_or_no_such_placement():
    mesh = sharding.make_mesh(4)
    with pytest.raises(
        InputError, match="401 bytes over 4 devices do not fit in 100 bytes of each"
    ):
        choose_layout(401, mesh, 100, "device")
    with pytest.raises(InputError, match=r"unknown data\.placement 'devise'; nearest: device"):
        choose_layout(1, mesh, 100, "devise")


@pytest.mark.parametrize(
    ("wanted", "device", "host", "disk", "expected"),
    [
        ("auto", 100, 100, 0, "device"),
        ("auto", 99, 100, 100, "host"),
        ("auto", 99, 99, 100, "disk"),
        ("host", 100, 100, 100, "host"),
        ("disk", 100, 100, 100, "disk"),
    ],
)
def test_where_activations_are_read_from(wanted, device, host, disk, expected):
    rooms = {"device": device, "host": host, "disk": disk}
    assert choose_storage(100, wanted, rooms) == expected


def test_no_room_or_no_such_storage():
    message = (
        "cache.storage=host: the activations take 100 bytes, there is room for 0 (device), 99 (host), "
        "100 (disk); nearest: disk"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        choose_storage(100, "host", {"device": 0, "host": 99, "disk": 100})
    with pytest.raises(InputError, match="nearest: fewer views or images, bfloat16"):
        choose_storage(100, "auto", {"device": 0, "host": 99, "disk": 0})
    with pytest.raises(InputError, match=r"unknown cache\.storage 'disc'; nearest: disk"):
        choose_storage(100, "disc", {"device": 0, "host": 0, "disk": 0})


@pytest.fixture
def machine(monkeypatch):
    """A host with 1,000 bytes free, shared by its CPU devices, 600 of them free on each."""
    monkeypatch.setattr(memory, "host_available", lambda: 1000)
    monkeypatch.setattr(memory, "available", lambda device: 600)


@pytest.mark.usefixtures("machine")
def test_each_use_has_its_share_of_what_is_free():
    one, four = sharding.make_mesh(1), sharding.make_mesh(4)
    assert placement.room_for_decoded_images() == 400
    assert placement.room_for_members() == 360
    assert placement.room_for_data(one) == 240
    # On a CPU, a copy and what is placed are in the memory of the host, for each device.
    assert placement.room_for_data(four) == 125
    assert placement.room_for_data(one, missing_on_host=900) == 50
    assert placement.room_for_data(one, missing_on_host=2000) == 0
    assert placement.rooms_for_activations(four, others=100) == {"device": 960, "host": 400}


def test_decoded_images_take_eight_gibibytes_at_most(monkeypatch):
    monkeypatch.setattr(memory, "host_available", lambda: 1 << 40)
    assert placement.room_for_decoded_images() == 8 << 30
