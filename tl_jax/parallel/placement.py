"""The one place that decides where data are stored, and which share of the free memory each use may take.

Shares are of what is free when the question is asked; the rest is for everything else that a run holds. Every
number of bytes is the same in all processes of a run, so that all of them decide alike.
"""

from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from tl_jax.errors import InputError, unknown
from tl_jax.parallel import memory, sharding

LAYOUTS = ("replicated", "sharded")
PLACEMENTS = ("auto", "device", "host")
STORAGES = ("auto", "device", "host", "disk")

# Of the host's memory: decoded images. Those that do not fit are decoded on access, each time.
_DECODED_SHARE, _MOST_DECODED = 0.4, 8 << 30
# Of the host's memory: activations that are read from there.
_ACTIVATIONS_SHARE = 0.5
# Of a device's memory: the training data. The step needs the rest.
_DATA_SHARE = 0.4
# Of a device's memory that is left: the splits that are evaluated.
_EVALUATION_SHARE = 0.2
# Of a device's memory: the members of a sweep that train at once, beside their data.
_MEMBERS_SHARE = 0.6


def room_for_decoded_images() -> int:
    """Returns the bytes of the host's memory that the decoded images of a run may take."""
    return sharding.least(min(_MOST_DECODED, round(_DECODED_SHARE * memory.host_available())))


def room_for_data(mesh: Mesh, missing_on_host: int = 0) -> int:
    """Returns the bytes that the training data may take on one device.

    Args:
        mesh: the devices.
        missing_on_host: bytes of images that are still being decoded. Where the devices are the host, there
            are a copy and what is placed beside them, all in the same memory.
    """
    room = round(_DATA_SHARE * memory.available(jax.local_devices()[0]))
    if mesh.devices.flat[0].platform == "cpu":
        left = max(0, memory.host_available() - missing_on_host)
        room = min(room, left // (2 * len(mesh.local_devices)))
    return sharding.least(room)


def room_for_evaluation(taken: int) -> int:
    """Returns the bytes that the splits that are evaluated may take on one device.

    Args:
        taken: bytes of the device that other data are going to take.
    """
    left = memory.available(jax.local_devices()[0]) - taken
    return sharding.least(max(0, round(_EVALUATION_SHARE * left)))


def rooms_for_activations(mesh: Mesh, others: int) -> dict[str, int]:
    """Returns the bytes that stored activations may take on the devices together and in the host's memory.

    Args:
        mesh: the devices.
        others: bytes of the activations that are read from the host's memory besides.
    """
    on_devices = _DATA_SHARE * memory.available(jax.local_devices()[0]) * mesh.size
    on_host = _ACTIVATIONS_SHARE * memory.host_available()
    return {
        "device": sharding.least(round(on_devices)),
        "host": sharding.least(round(on_host) - others),
    }


def room_for_members() -> int:
    """Returns the bytes that the members of a sweep may take on a device."""
    return round(_MEMBERS_SHARE * memory.available(jax.local_devices()[0]))


def choose_layout(num_bytes: int, mesh: Mesh, room: int, placement: str = "auto") -> str | None:
    """Returns how a split is stored on the devices: whole on each, split over them, or None: on the host.

    Args:
        num_bytes: of the whole split.
        mesh: the devices.
        room: bytes that it may take on one device.
        placement: one of `PLACEMENTS`; "auto" takes the first of the three that fits.

    Raises:
        InputError: if `placement` is unknown, or "device" and it does not fit even when split.
    """
    if placement not in PLACEMENTS:
        raise unknown("data.placement", placement, PLACEMENTS)
    if placement == "host":
        return None
    if num_bytes <= room:
        return "replicated"
    if num_bytes / mesh.size <= room:
        return "sharded"
    if placement == "device":
        raise InputError(
            f"data.placement=device: {num_bytes:,} bytes over {mesh.size} devices do not fit in "
            f"{room:,} bytes of each; expected a smaller split, more devices, or auto"
        )
    return None


def choose_storage(num_bytes: int, wanted: str, rooms: Mapping[str, int]) -> str:
    """Returns where the activations that are trained on are read from: "device", "host" or "disk".

    Args:
        num_bytes: of all of them.
        wanted: one of `STORAGES`; "auto" takes the first of the three that has room.
        rooms: bytes that they may take on the devices together ("device"), in the host's memory ("host"),
            and on "disk".

    Raises:
        InputError: if `wanted` is unknown, or has no room, or nothing has.
    """
    if wanted not in STORAGES:
        raise unknown("cache.storage", wanted, STORAGES)
    fitting = [place for place in ("device", "host", "disk") if num_bytes <= rooms[place]]
    if wanted == "auto" and fitting:
        return fitting[0]
    if wanted not in fitting:
        raise InputError(
            f"cache.storage={wanted}: the activations take {num_bytes:,} bytes, there is room for "
            + ", ".join(f"{max(0, room):,} ({place})" for place, room in rooms.items())
            + f"; nearest: {', '.join(fitting) or 'fewer views or images, bfloat16, a later boundary'}"
        )
    return wanted
