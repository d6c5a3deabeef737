"""How the updates of a run reach the devices: where its data are stored, how many updates one dispatch makes.

Data that fit are stored on the devices and several updates are dispatched together; other data are read
ahead on the host, and every batch is copied to the devices before the previous step ends. What all
of it takes is counted here, and refused where there is no room, before anything is placed.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluator import compile_or_refuse
from experiments.preparation import Setup, make_pure_step
from tl_jax import memory, resident, sharding, trees
from tl_jax.activations import ActivationSplit
from tl_jax.data import InMemorySplit, stream
from tl_jax.data.records import LazySplit
from tl_jax.errors import InputError

# Of a device's free memory, what the training data may take: the step needs the rest.
DEVICE_SHARE = 0.4
# A dispatch takes about a quarter of a second, so that a run still answers when it is asked to stop:
# FLOP/s that small networks reach, times that.
_FLOP_PER_DISPATCH = {"cpu": 1e10, "gpu": 2e12, "tpu": 2e12}
_MOST_UPDATES = 256
_BATCHES_AHEAD = 2
# What a run holds besides, from its first update to its report: checkpoints, metrics, plots. Measured on small
# networks, above what the process held when the plan was made: 110 MB without a report, 280 MB with one.
_OTHER_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Dispatch:
    """What the training loop needs to advance a run.

    Attributes:
        step: takes the state and what a feed returns; see `loops.train`.
        place: stores the data on the devices; called once, before the first update.
        open_feed: from (first update, one past the last) to a context manager that gives the feed.
        updates: in a dispatch, at most.
        data: where the training split is stored: "device, replicated", "device, sharded" or "host".
        data_bytes: that it takes on each device; 0 on the host.
        program: the compiled step, for its memory and cost.
        batch_bytes: of a training batch that comes from the host; 0 where the data are on the device.
        memory: the rows of the memory plan.
    """

    step: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
    place: Callable[[], None]
    open_feed: Callable[[int, int], contextlib.AbstractContextManager]
    updates: int
    data: str
    data_bytes: int
    program: Any
    batch_bytes: int = 0
    memory: tuple[dict[str, Any], ...] = ()

    def facts(self) -> dict[str, Any]:
        """Returns what a run reports of it."""
        return {"data": self.data, "updates_per_dispatch": self.updates}


def make(setup: Setup) -> Dispatch:
    """Returns how a run is dispatched, its programs compiled from shapes: images may still be decoding.

    Raises:
        InputError: if the devices have no room for data that are to be stored there, or devices or host
            have none for the run; what takes the most is named, and the fields that make it less.
    """
    layout = _layout(setup)
    dispatch = _streamed(setup) if layout is None else _resident(setup, layout)
    items, capacity = _checked_items(setup, dispatch)
    return dataclasses.replace(dispatch, memory=tuple(memory.plan(items, capacity)))


def _checked_items(setup: Setup, dispatch: Dispatch) -> tuple[list[memory.Item], dict[str, int]]:
    """Returns the items of the memory plan and what each place has for them; InputError if it is too little."""
    decoded = _decoded(setup)
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
    state = jax.eval_shape(setup.initial_state_on_host)
    for name in ("validation", "test"):
        if name in setup.inputs:
            room = sharding.least(
                _room(setup, [item for item in items if not item.phase], capacity)
            )
            passes = setup.evaluator.memory_items(
                state.params, state.batch_stats, setup.inputs[name], room
            )
            items = _larger(items, passes, "evaluation")
    _check(setup, items, capacity)
    return items, capacity


def _lasting_items(
    setup: Setup, dispatch: Dispatch, decoded: list[InMemorySplit], here: int
) -> list[memory.Item]:
    """Returns what is there during the whole run, and while images are decoded and placed."""
    state = jax.eval_shape(setup.initial_state_on_host)
    mask = setup.optimisation.frozen_mask
    initial = memory.tree_bytes((state.params, state.batch_stats))
    split = setup.inputs["train"]
    items = [
        *memory.state_items(state.params, state.batch_stats, state.opt_state, mask),
        memory.Item("initial weights, compared with at the end", initial),
        memory.Item(f"training data ({dispatch.data})", dispatch.data_bytes),
    ]
    if setup.cache is not None and not dispatch.data_bytes:
        items.append(memory.Item("training activations", split.num_bytes, setup.cache["storage"]))
    items += [
        memory.Item("Python, JAX and compiled programs", here, "host"),
        memory.Item("checkpoints and report, about", _OTHER_BYTES, "host"),
        memory.Item("decoded images", sum(split.whole_bytes for split in decoded), "host"),
        memory.Item(
            "decoding",
            max((split.decoding_bytes for split in decoded), default=0),
            "host",
            "decoding",
        ),
    ]
    if dispatch.data_bytes and isinstance(split, InMemorySplit) and split.whole()[0] is not split:
        items.append(memory.Item("training images, copied", split.num_bytes, "host", "placing"))
    return items


def _training_items(setup: Setup, dispatch: Dispatch) -> list[memory.Item]:
    state = jax.eval_shape(setup.initial_state_on_host)
    mask = setup.optimisation.frozen_mask
    step = memory.step_items(dispatch.program, state.params, mask)
    items = [dataclasses.replace(item, phase="training") for item in step]
    split, workers = setup.inputs["train"], setup.config.data.workers
    lazy = isinstance(split, LazySplit)
    made = (stream.AHEAD + 1) * (max(1, workers) if lazy else 1)
    share = dispatch.batch_bytes // jax.process_count()
    on_device = (_BATCHES_AHEAD + 1) * dispatch.batch_bytes // setup.mesh.size
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


def _decoded(setup: Setup) -> list[InMemorySplit]:
    """Returns the splits in memory from which all others are taken, each once."""
    wholes = {id(split.whole()[0]): split.whole()[0] for split in setup.splits.values()}
    return [split for split in wholes.values() if isinstance(split, InMemorySplit)]


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


def _layout(setup: Setup) -> str | None:
    config, split = setup.config, setup.inputs["train"]
    placement = config.data.placement
    if config.parallel.mode != "jit" or not isinstance(split, InMemorySplit | ActivationSplit):
        placement = "host"
    if setup.cache is not None and setup.cache["storage"] != "device":
        placement = "host"
    room = round(DEVICE_SHARE * memory.available(jax.local_devices()[0]))
    if _is_host(setup):
        # Beside the decoded images there are a copy and what is placed, all in the same memory.
        missing = sum(max(0, one.whole_bytes - one.bytes_in_memory) for one in _decoded(setup))
        left = max(0, memory.host_available() - missing)
        room = min(room, left // (2 * len(setup.mesh.local_devices)))
    room = sharding.least(room)
    layout = resident.choose_layout(split.num_bytes, setup.mesh, room, placement)
    # Activations were found to fit: what is free may have become a little less since.
    return layout if setup.cache is None or placement == "host" else layout or "sharded"


def _resident(setup: Setup, layout: str) -> Dispatch:
    split, order = setup.inputs["train"], setup.order
    step = resident.ResidentStep(
        make_pure_step(setup)(axis_name=None),
        setup.mesh,
        layout,
        views=order.views,
        # XLA's CPU compiler runs the gradients of grouped convolutions thirty times slower in a loop.
        one_by_one=_convolves_backwards(setup) and setup.model.groups > 1,
    )
    state = jax.eval_shape(setup.initial_state_on_host)
    images = jax.ShapeDtypeStruct((len(split) * order.views, *split.image_shape), split.dtype)
    labels = jax.ShapeDtypeStruct((len(split),), jnp.int32)
    lowered = step.lower(state, 1, order.batch_size, images, labels)
    updates = setup.config.train.updates_per_dispatch or _updates(setup, lowered)
    intervals = dataclasses.replace(setup.intervals, updates_per_dispatch=updates)
    count = intervals.updates_after(0)
    if count > 1:
        lowered = step.lower(state, count, order.batch_size, images, labels)
    program = compile_or_refuse(
        lowered.compile, "the training step", "data.image_size or data.batch_size"
    )
    step.use(count, program)

    def rows(first: int, count: int) -> np.ndarray:
        return np.stack([order.rows(first + i) for i in range(count)])

    @contextlib.contextmanager
    def open_feed(start: int, stop: int) -> Iterator[Callable[[int, int], np.ndarray]]:
        # The rows of the next dispatch, as many as now, are worked out while the device is busy with this one.
        with concurrent.futures.ThreadPoolExecutor(1, "tl_jax rows") as thread:
            ahead: dict[int, concurrent.futures.Future] = {}

            def feed(first: int, count: int) -> np.ndarray:
                found = ahead.pop(first).result() if first in ahead else rows(first, count)
                following = min(count, stop - first - count)
                if following > 0:
                    ahead[first + count] = thread.submit(rows, first + count, following)
                return found[:count] if len(found) >= count else rows(first, count)

            yield feed

    parts = setup.mesh.size if layout == "sharded" else 1
    data = memory.tree_bytes(images) // parts + memory.tree_bytes(labels)
    return Dispatch(
        step,
        lambda: step.put(_rows(split), split.labels),
        open_feed,
        updates,
        f"device, {layout}",
        data,
        program,
    )


def _streamed(setup: Setup) -> Dispatch:
    config, split, order = setup.config, setup.inputs["train"], setup.order
    step = sharding.StreamedStep(make_pure_step(setup), setup.mesh, config.parallel.mode)
    batch = {
        "image": jax.ShapeDtypeStruct((order.batch_size, *split.image_shape), split.dtype),
        **{
            name: jax.ShapeDtypeStruct((order.batch_size,), jnp.int32)
            for name in ("label", "position", "index")
        },
    }
    lowered = step.lower(jax.eval_shape(setup.initial_state_on_host), batch)
    program = compile_or_refuse(
        lowered.compile, "the training step", "data.image_size or data.batch_size"
    )
    step.use(program)

    @contextlib.contextmanager
    def open_feed(start: int, stop: int) -> Iterator[Callable[[int, int], dict[str, Any]]]:
        rows = sharding.local_rows(setup.mesh, order.batch_size)
        host = stream.batches(split, order, start, stop, rows, workers=config.data.workers)
        with contextlib.closing(host):
            placed = (step.place(batch) for batch in host)
            ahead = collections.deque(_take(placed, _BATCHES_AHEAD))

            def feed(first: int, count: int) -> dict[str, Any]:
                ahead.extend(_take(placed, 1))
                return ahead.popleft()

            yield feed

    return Dispatch(step, lambda: None, open_feed, 1, "host", 0, program, memory.tree_bytes(batch))


def _updates(setup: Setup, lowered: Any) -> int:
    """Returns how many updates take about a quarter of a second, from their FLOPs."""
    platform = setup.mesh.devices.flat[0].platform
    if platform == "cpu" and _convolves_backwards(setup):
        return 1
    flop = (lowered.cost_analysis() or {}).get("flops", 0.0)
    return int(np.clip(_FLOP_PER_DISPATCH.get(platform, 2e12) // max(flop, 1.0), 1, _MOST_UPDATES))


def _convolves_backwards(setup: Setup) -> bool:
    """Returns whether a step takes gradients through convolutions, on a CPU: slow enough one by one."""
    frozen = trees.flatten(setup.optimisation.frozen_mask)
    below_head = any(not held for name, held in frozen.items() if not name.startswith("head/"))
    return below_head and setup.mesh.devices.flat[0].platform == "cpu"


def _take(items: Iterator, count: int) -> list:
    return [item for _, item in zip(range(count), items, strict=False)]


def _rows(split: InMemorySplit | ActivationSplit) -> np.ndarray:
    """Returns the images [N, ...], or the activations [N * V, ...]."""
    if isinstance(split, InMemorySplit):
        return split.images
    stored = split.activations
    return stored.reshape(-1, *stored.shape[2:])
