"""What a run holds in memory, counted before it starts, and what there is to hold it.

Bytes are those of one device: what is split over a mesh is given by its share. A compiled step is an
argument here, never made here.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax

PLACES = ("device", "host", "disk")
# Rows of a plan that sum up a place.
TOTALS = ("most at once", "total")

# Of an accelerator that does not say how much it can hold: the least that a core of a TPU has (v2, v3: 8 and 16 GB).
ASSUMED_BYTES = 8 << 30

_MEMINFO = pathlib.Path("/proc/meminfo")
_STATUS = pathlib.Path("/proc/self/status")
# Limit and use of the control group a container runs in, version 2 and version 1.
_CONTROL_GROUPS = (
    (pathlib.Path("/sys/fs/cgroup/memory.max"), pathlib.Path("/sys/fs/cgroup/memory.current")),
    (
        pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        pathlib.Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


class Device(Protocol):
    """What is asked of a `jax.Device`."""

    platform: str

    def memory_stats(self) -> dict[str, int] | None:
        """Returns the allocator's counters in bytes; None where it keeps none."""


class Compiled(Protocol):
    """What is asked of a compiled program (`jax.stages.Compiled`)."""

    def memory_analysis(self) -> Any:
        """Returns the compiler's count of argument, output and temporary bytes, or None."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One row of a memory plan.

    Attributes:
        what: such as "parameters".
        bytes: on one device, or in the host's memory or disk that this process uses.
        where: "device", "host" or "disk".
        phase: when it is there, such as "training"; empty: during the whole run. Phases follow
            each other: their bytes are not needed at once.
    """

    what: str
    bytes: int
    where: str = "device"
    phase: str = ""


def available(device: Device) -> int:
    """Returns the bytes that a device can still hold.

    Of an accelerator it is its allocator's limit (three quarters of the card unless told otherwise:
    XLA_PYTHON_CLIENT_MEM_FRACTION) less what is in use; `ASSUMED_BYTES` less that where its allocator does not
    say. A CPU device holds what the host does; where the host is several simulated devices, its share of it.
    """
    stats = device.memory_stats() or {}
    if device.platform != "cpu" or "bytes_limit" in stats:
        return max(0, stats.get("bytes_limit", ASSUMED_BYTES) - stats.get("bytes_in_use", 0))
    return host_available() // max(1, len(jax.local_devices(backend=device.platform)))


def is_assumed(device: Device) -> bool:
    """Returns whether a device does not say how much it can hold, so that `ASSUMED_BYTES` are taken."""
    return device.platform != "cpu" and "bytes_limit" not in (device.memory_stats() or {})


def host_available() -> int:
    """Returns the bytes of the host's memory that are free or can be freed, within a container's limit."""
    free = _machine_available()
    for limit, usage in _CONTROL_GROUPS:
        try:
            used = int(usage.read_text()) - _cached_files(usage.with_name("memory.stat"))
            free = min(free, int(limit.read_text()) - used)
        except (OSError, ValueError):
            # No such control group, or "max": no limit.
            continue
    return max(0, free)


def host_in_use() -> int:
    """Returns the bytes of the host's memory that this process holds now; 0 where the system does not say."""
    try:
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def tree_bytes(tree: Any) -> int:
    """Returns the bytes of all arrays, or shapes (`jax.ShapeDtypeStruct`), of a pytree.

    Example:
        >>> tree_bytes({"kernel": jax.ShapeDtypeStruct((3, 4), "float32")})
        48
    """
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def state_items(
    params: dict[str, Any],
    batch_stats: dict[str, Any],
    opt_state: Any,
    frozen_mask: dict[str, Any],
) -> list[Item]:
    """Returns the rows of parameters (trainable and frozen), statistics and optimizer state.

    Args:
        params: nested dict of arrays or shapes.
        batch_stats: likewise.
        opt_state: any pytree of them.
        frozen_mask: tree of bools like params, True where frozen.
    """
    frozen = _frozen_bytes(params, frozen_mask)
    return [
        Item("trainable parameters", tree_bytes(params) - frozen),
        Item("frozen parameters", frozen),
        Item("BatchNorm statistics", tree_bytes(batch_stats)),
        Item("optimizer state", tree_bytes(opt_state)),
    ]


def step_items(
    compiled: Compiled, params: dict[str, Any], frozen_mask: dict[str, Any]
) -> list[Item]:
    """Returns the rows of what exists only while the compiled step runs.

    The compiler counts gradients, activations and workspace as one temporary buffer; the gradients are
    counted apart here, at the size of the trainable parameters, and the rest is the difference. Outputs
    that take the place of a donated argument cost nothing more and are not counted.
    """
    gradients = tree_bytes(params) - _frozen_bytes(params, frozen_mask)
    temporary = temporary_bytes(compiled)
    analysis = compiled.memory_analysis()
    fresh = analysis.output_size_in_bytes - analysis.alias_size_in_bytes if analysis else 0
    gradients = min(gradients, temporary)
    return [
        Item("gradients", gradients),
        Item("activations and workspace", temporary - gradients),
        Item("outputs not donated", max(0, fresh)),
    ]


def temporary_bytes(compiled: Compiled) -> int:
    """Returns the bytes that a compiled program needs beside its arguments and outputs; 0 if unknown."""
    analysis = compiled.memory_analysis()
    return analysis.temp_size_in_bytes if analysis else 0


def peak(items: Sequence[Item], place: str) -> int:
    """Returns the most bytes that are needed at once in a place: the lasting ones and the largest phase.

    Example:
        >>> peak([Item("state", 5), Item("step", 3, phase="training"), Item("pass", 2, phase="test")], "device")
        8
    """
    return max(by_phase(items, place).values())


def by_phase(items: Sequence[Item], place: str) -> dict[str, int]:
    """Returns {phase: bytes needed in it}, the lasting ones counted in each; "" is the run without any."""
    here = [item for item in items if item.where == place]
    lasting = sum(item.bytes for item in here if not item.phase)
    phases = dict.fromkeys(["", *(item.phase for item in items if item.phase)])
    return {
        phase: lasting + sum(item.bytes for item in here if item.phase == phase and phase)
        for phase in phases
    }


def plan(items: Sequence[Item], capacity: Mapping[str, int]) -> list[dict[str, Any]]:
    """Returns the rows of the plan's table: each item, then what each place holds of what it has.

    Args:
        items: rows without bytes are left out.
        capacity: {place: bytes available before any of the items is there}.

    Example:
        >>> plan([Item("data", 3 * 2**20)], {"device": 2**30})[-1]
        {'what': 'total', 'where': 'device', 'bytes': 3145728, 'size': '3.0 MiB', 'available': '1.0 GiB'}
    """
    rows: list[dict[str, Any]] = [
        {
            "what": item.what,
            "where": item.where,
            "bytes": item.bytes,
            "size": format_bytes(item.bytes),
            **({"during": item.phase} if item.phase else {}),
        }
        for item in items
        if item.bytes
    ]
    for place in PLACES:
        total = peak(items, place)
        if not total:
            continue
        several = len(by_phase(items, place)) > 1
        row = {
            "what": TOTALS[0] if several else TOTALS[1],
            "where": place,
            "bytes": total,
            "size": format_bytes(total),
        }
        if place in capacity:
            row["available"] = format_bytes(capacity[place])
        rows.append(row)
    return rows


def format_bytes(count: int) -> str:
    """Returns bytes in the largest binary unit that leaves one whole digit: 1536 as "1.5 KiB"."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _frozen_bytes(params: dict[str, Any], frozen_mask: dict[str, Any]) -> int:
    sizes = jax.tree.map(
        lambda leaf, frozen: tree_bytes(leaf) if frozen else 0, params, frozen_mask
    )
    return sum(jax.tree.leaves(sizes))


def _cached_files(statistics: pathlib.Path) -> int:
    """Returns the bytes that a control group counts as used and gives up when asked: cached files."""
    try:
        fields = dict(line.split(" ", 1) for line in statistics.read_text().splitlines())
    except OSError:
        return 0
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))


def _machine_available() -> int:
    """Returns the machine's free and reclaimable bytes; all its memory where it does not say."""
    try:
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
