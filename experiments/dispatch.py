"""How the updates of a run reach the devices: where its data lie, how many updates go at once.

Data that fit lie on the devices and several updates are dispatched together; other data are read
ahead on the host, and every batch is on its way to the devices before the step before it ends.
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

from experiments.preparation import Setup, make_pure_step
from tl_jax import memory, resident, sharding, trees
from tl_jax.activations import ActivationSplit
from tl_jax.data import InMemorySplit, Split, stream

# Of a device's free memory, what the training data may take: the step needs the rest.
DEVICE_SHARE = 0.4
# A dispatch takes about a quarter of a second, so that a run still answers when it is asked to stop:
# FLOP/s that small networks reach, times that.
_FLOP_PER_DISPATCH = {"cpu": 1e10, "gpu": 2e12, "tpu": 2e12}
_MOST_UPDATES = 256
_BATCHES_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Dispatch:
    """What the training loop needs to advance a run.

    Attributes:
        step: takes the state and what a feed returns; see `loops.train`.
        place: puts the data where they are to lie; to be called once, before the first update.
        open_feed: from (first update, one past the last) to a context manager that gives the feed.
        updates: in a dispatch, at most.
        data: where the training split lies: "device, replicated", "device, sharded" or "host".
        data_bytes: that it takes on each device; 0 on the host.
        program: the compiled step, for its memory and cost.
    """

    step: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
    place: Callable[[], None]
    open_feed: Callable[[int, int], contextlib.AbstractContextManager]
    updates: int
    data: str
    data_bytes: int
    program: Any

    def facts(self) -> dict[str, Any]:
        """Returns what a run reports of it."""
        return {"data": self.data, "updates_per_dispatch": self.updates}


def make(setup: Setup) -> Dispatch:
    """Returns how a run is dispatched, its program compiled from shapes alone: images may still be decoded.

    Raises:
        InputError: if the devices have no room for data that are to lie there.
    """
    layout = _layout(setup)
    return _streamed(setup) if layout is None else _resident(setup, layout)


def memory_plan(setup: Setup, how: Dispatch) -> list[dict[str, Any]]:
    """Returns the rows of what the run is going to hold, on one device and on the host."""
    state = jax.eval_shape(setup.initial_state_on_host)
    mask = setup.optimisation.frozen_mask
    split = setup.inputs["train"]
    on_host = 0 if how.data_bytes else _num_bytes(split)
    items = [
        *memory.state_items(state.params, state.batch_stats, state.opt_state, mask),
        *memory.step_items(how.program, state.params, mask),
        memory.Item(f"training data ({how.data})", how.data_bytes),
    ]
    if setup.cache is not None and on_host:
        items.append(memory.Item("training activations", on_host, setup.cache["storage"]))
    if isinstance(setup.splits["train"], InMemorySplit):
        items.append(
            memory.Item("decoded training images", _num_bytes(setup.splits["train"]), "host")
        )
    capacity = {
        "device": memory.available(jax.local_devices()[0]),
        "host": memory.host_available(),
    }
    return memory.plan(items, capacity)


def _layout(setup: Setup) -> str | None:
    config, split = setup.config, setup.inputs["train"]
    placement = config.data.placement
    if config.parallel.mode != "jit" or not isinstance(split, InMemorySplit | ActivationSplit):
        placement = "host"
    if setup.cache is not None and setup.cache["storage"] != "device":
        placement = "host"
    room = sharding.least(round(DEVICE_SHARE * memory.available(jax.local_devices()[0])))
    layout = resident.choose_layout(_num_bytes(split), setup.mesh, room, placement)
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
    images = jax.ShapeDtypeStruct((len(split) * order.views, *split.image_shape), _dtype(split))
    labels = jax.ShapeDtypeStruct((len(split),), jnp.int32)
    lowered = step.lower(state, 1, order.batch_size, images, labels)
    updates = setup.config.train.updates_per_dispatch or _updates(setup, lowered)
    intervals = dataclasses.replace(setup.intervals, updates_per_dispatch=updates)
    count = intervals.updates_after(0)
    if count > 1:
        lowered = step.lower(state, count, order.batch_size, images, labels)
    program = lowered.compile()
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
        "image": jax.ShapeDtypeStruct((order.batch_size, *split.image_shape), _dtype(split)),
        **{
            name: jax.ShapeDtypeStruct((order.batch_size,), jnp.int32)
            for name in ("label", "position", "index")
        },
    }
    program = step.lower(jax.eval_shape(setup.initial_state_on_host), batch).compile()
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

    return Dispatch(step, lambda: None, open_feed, 1, "host", 0, program)


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


def _dtype(split: Split) -> np.dtype:
    return split.dtype if isinstance(split, ActivationSplit) else np.dtype(np.uint8)


def _num_bytes(split: Split) -> int:
    if isinstance(split, ActivationSplit):
        return split.num_bytes
    return len(split) * int(np.prod(split.image_shape))


def _rows(split: InMemorySplit | ActivationSplit) -> np.ndarray:
    """Returns the images [N, ...], or the activations [N * V, ...]."""
    if isinstance(split, InMemorySplit):
        return split.images
    stored = split.activations
    return stored.reshape(-1, *stored.shape[2:])
