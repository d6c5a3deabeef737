"""What a run holds in memory, counted before anything is placed; what does not fit is refused."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax

from tl_jax.data import InMemorySplit, Split, stream
from tl_jax.data.records import LazySplit
from tl_jax.errors import InputError
from tl_jax.features import ActivationSplit
from tl_jax.parallel import device_dataset, memory, sharding
from tl_jax.runs.setup import Setup
from tl_jax.training.stored_splits import is_shared

# What a run holds besides, from its first update to its report: checkpoints, metrics, plots. Measured on small
# networks, above what the process held when the plan was made: 55 to 110 MB without a report, 142 to 280 MB with one.
_CHECKPOINTS_BYTES = 128 << 20
_REPORT_BYTES = 128 << 20
_PROCESS = "Python, JAX and compiled programs"


class DispatchFacts(Protocol):
    """What is asked of a `dispatch.Dispatch`."""

    @property
    def data(self) -> str:
        """Where the training split is stored."""

    @property
    def data_bytes(self) -> int:
        """Bytes of the training split on each device; 0 where it stays on the host."""

    @property
    def program(self) -> memory.Compiled:
        """The compiled step."""

    @property
    def batch_bytes(self) -> int:
        """Bytes of a training batch that comes from the host; 0 where the data are on the device."""

    @property
    def batches_ahead(self) -> int:
        """Batches that are copied to the devices before they are needed."""

    @property
    def evaluation(self) -> str:
        """Where the splits that are evaluated are stored."""

    @property
    def evaluation_bytes(self) -> int:
        """Bytes of the splits that are evaluated on each device; 0 where they stay on the host."""


def checked_items(
    setup: Setup, dispatch: DispatchFacts
) -> tuple[list[memory.Item], dict[str, int]]:
    """Returns the items of the memory plan and what each place has for them; InputError if it is too little."""
    decoded = setup.decoded_splits
    held = memory.host_in_use()
    # What the process holds now without its images: Python, JAX, programs and initial weights.
    counted = sum(split.bytes_in_memory for split in decoded) + _activations_on_host(setup)
    here = max(0, held - counted)
    items = [*_lasting_items(setup, dispatch, decoded, here), *_training_items(setup, dispatch)]
    capacity = {
        "device": memory.available(jax.local_devices()[0]),
        "host": memory.host_available() + held,
    }
    # Before evaluation asks what is left for it: it may be nothing.
    _check(setup, items, capacity)
    state = setup.state_shapes
    for name in setup.evaluated:
        room = sharding.least(_room(setup, [item for item in items if not item.phase], capacity))
        passes = setup.evaluator.memory_items(**state.network, split=setup.inputs[name], room=room)
        items = _larger(items, passes, "evaluation")
    _check(setup, items, capacity)
    return items, capacity


def bytes_of_run(plan: Sequence[dict[str, Any]]) -> int:
    """Returns the bytes that the rows of a plan count besides the process itself, which grows over time."""
    return sum(row["bytes"] for row in plan if row["what"] not in (_PROCESS, *memory.TOTALS))


def _lasting_items(
    setup: Setup, dispatch: DispatchFacts, decoded: list[InMemorySplit], here: int
) -> list[memory.Item]:
    """Returns what is there during the whole run, and while images are decoded and placed."""
    state = setup.state_shapes
    mask = setup.optimisation.frozen_mask
    initial = memory.tree_bytes((state.params, state.batch_stats))
    split = setup.inputs["train"]
    items = [
        *memory.state_items(state.params, state.batch_stats, state.opt_state, mask),
        memory.Item("initial weights, compared with at the end", initial),
        memory.Item("averaged weights", memory.tree_bytes(state.average)),
        memory.Item("frozen networks of objectives", memory.tree_bytes(state.references)),
        memory.Item("copies of the state, to be saved", _copied_bytes(setup)),
        memory.Item(f"training data ({dispatch.data})", dispatch.data_bytes),
        memory.Item(f"evaluation data ({dispatch.evaluation})", dispatch.evaluation_bytes),
    ]
    if setup.first_step:
        items.append(memory.Item("weights at the start of the phase", initial, "host"))
    if setup.cache is not None and not dispatch.data_bytes:
        items.append(memory.Item("training activations", split.num_bytes, setup.cache["storage"]))
    items += [
        memory.Item(_PROCESS, here, "host"),
        memory.Item("checkpoints, about", _CHECKPOINTS_BYTES, "host"),
        memory.Item("report, about", _REPORT_BYTES if setup.config.report.html else 0, "host"),
        memory.Item("decoded images", sum(split.whole_bytes for split in decoded), "host"),
        memory.Item(
            "decoding",
            max((split.decoding_bytes for split in decoded), default=0),
            "host",
            "decoding",
        ),
    ]
    if dispatch.data_bytes:
        copied = _bytes_copied(setup, split)
        items.append(memory.Item("training data, copied", copied, "host", "placing"))
    return items


def _bytes_copied(setup: Setup, split: Split) -> int:
    """Returns the bytes that are copied on the host on their way to the devices: none of what is one array."""
    if is_shared(split):
        rows = len(split) * setup.order.views
        own = len(device_dataset.own_rows(setup.mesh, rows))
        return own * (split.num_bytes // rows)
    if isinstance(split, ActivationSplit):
        return 0 if split.is_whole else split.num_bytes
    return 0 if split.whole()[0] is split else split.num_bytes


def _copied_bytes(setup: Setup) -> int:
    """Returns the bytes of copies of the state: one that is being saved, and the best one until it is."""
    best = "validation" in setup.inputs and setup.intervals.eval_every > 0
    return (1 + best) * memory.tree_bytes(setup.state_shapes.without_references())


def _training_items(setup: Setup, dispatch: DispatchFacts) -> list[memory.Item]:
    state = setup.state_shapes
    mask = setup.optimisation.frozen_mask
    step = memory.step_items(dispatch.program, state.params, mask)
    items = [dataclasses.replace(item, phase="training") for item in step]
    split, workers = setup.inputs["train"], setup.config.data.workers
    lazy = isinstance(split, LazySplit)
    made = (stream.AHEAD + 1) * (max(1, workers) if lazy else 1)
    share = dispatch.batch_bytes // jax.process_count()
    on_device = (dispatch.batches_ahead + 1) * dispatch.batch_bytes // setup.mesh.size
    return [
        *items,
        memory.Item("training batches", on_device, "device", "training"),
        memory.Item("training batches read ahead", (made + 1) * share, "host", "training"),
        memory.Item(
            "decoding of training batches",
            split.decoding_bytes if lazy else 0,
            "host",
            "training",
        ),
    ]


def _larger(items: list[memory.Item], others: list[memory.Item], phase: str) -> list[memory.Item]:
    """Returns `items` with those of a phase replaced by `others` at each place where these take more."""
    larger = [item for item in items if item.phase != phase]
    own = [item for item in items if item.phase == phase]
    for place in memory.PLACES:
        groups = [[item for item in group if item.where == place] for group in (own, others)]
        larger += max(groups, key=lambda group: sum(item.bytes for item in group))
    return larger


def _activations_on_host(setup: Setup) -> int:
    """Returns the bytes of the training activations that are in the host's memory already."""
    if setup.cache is None or setup.cache["storage"] != "host":
        return 0
    return setup.inputs["train"].num_bytes


def _room(setup: Setup, items: list[memory.Item], capacity: dict[str, int]) -> int:
    """Returns the bytes that a device has left beside `items`; 0 where it does not say what it has."""
    if not capacity["device"]:
        return 0
    if _is_host(setup):
        return max(1, (capacity["host"] - _needed_on_host(setup, items)) // setup.mesh.size)
    return max(1, capacity["device"] - memory.peak(items, "device"))


def _needed_on_host(setup: Setup, items: list[memory.Item]) -> int:
    """Returns the bytes of the host's memory that are needed at once, those of CPU devices included."""
    host, device = (memory.by_phase(items, place) for place in ("host", "device"))
    devices = len(setup.mesh.local_devices) if _is_host(setup) else 0
    return max(host[phase] + devices * device[phase] for phase in host)


def _is_host(setup: Setup) -> bool:
    return setup.mesh.devices.flat[0].platform == "cpu"


def _check(setup: Setup, items: list[memory.Item], capacity: dict[str, int]) -> None:
    """Raises InputError in every process if the run does not fit in one of them."""
    problems = []
    places = {"host": _needed_on_host(setup, items)}
    if not _is_host(setup) and capacity["device"]:
        places["device"] = memory.peak(items, "device")
    for place, needed in places.items():
        if needed <= capacity[place]:
            continue
        counted = [item for item in items if item.where == place or _is_host(setup)]
        largest = sorted(counted, key=lambda item: -item.bytes)[:3]
        problems.append(
            f"the run needs {memory.format_bytes(needed)} of the {place}'s memory, which has "
            f"{memory.format_bytes(capacity[place])}. The most is taken by: "
            + "; ".join(f"{item.what}, {memory.format_bytes(item.bytes)}" for item in largest)
            + f". Smaller: data.image_size ({_image_size(setup)}), data.batch_size "
            f"({setup.config.data.batch_size}) or data.eval_batch_size "
            f"({setup.config.data.eval_batch_size})"
        )
    if sharding.least(-len(problems)) < 0:
        raise InputError("\n".join(problems) or "another process has too little memory for the run")


def _image_size(setup: Setup) -> str:
    height, width, _ = setup.splits["train"].image_shape
    given = setup.config.data.image_size
    side = setup.preprocessing.image_size
    return f"{given}: the network sees {side}x{side} pixels of {height}x{width}"
