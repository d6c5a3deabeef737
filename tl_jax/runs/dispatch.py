"""How the updates of a run reach the devices: where its data are stored, how many updates one dispatch makes.

Data that fit are stored on the devices and several updates are dispatched together; other data are read
ahead on the host, and every batch is copied to the devices before the previous step ends. What all
of it takes is counted here, and refused where there is no room, before anything is placed.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import data, flops, models
from tl_jax.data import InMemorySplit, stream
from tl_jax.features import ActivationSplit
from tl_jax.models import cpu
from tl_jax.parallel import device_dataset, memory, sharding
from tl_jax.parallel.placement import choose_layout, room_for_data, room_for_evaluation
from tl_jax.runs import memory_plan
from tl_jax.runs.numerics import check_deterministic, platform_of
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.setup import Setup
from tl_jax.runs.together import Member, Resident
from tl_jax.training.evaluator import compile_or_refuse
from tl_jax.training.stored_splits import can_be_stored

# A dispatch takes about a quarter of a second, so that a run still answers when it is asked to stop:
# FLOP/s that small networks reach on one device, times that.
_FLOP_PER_DISPATCH = {"cpu": 1e10, "gpu": 2e12, "tpu": 2e12}
_MOST_UPDATES = 256
_BATCHES_AHEAD = 2


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
        batches_ahead: of these, how many are copied to the devices before they are needed.
        evaluation: where the splits that are evaluated are stored, as `data`.
        evaluation_bytes: that the splits that are evaluated take on each device; 0 where they are on the host.
        images_kept: how many decoded images each process keeps, where there are several.
        together: runs whose updates the program makes.
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
    batches_ahead: int = 0
    evaluation: str = "host"
    evaluation_bytes: int = 0
    images_kept: tuple[int, ...] = ()
    together: int = 1
    memory: tuple[dict[str, Any], ...] = ()

    def facts(self) -> dict[str, Any]:
        """Returns what a run reports of it."""
        facts: dict[str, Any] = {
            "data": self.data,
            "evaluation": self.evaluation,
            "updates_per_dispatch": self.updates,
        }
        facts |= {"images_kept": list(self.images_kept)} if self.images_kept else {}
        return facts | ({"together": self.together} if self.together > 1 else {})


def make(setup: Setup, member: Member | None = None) -> Dispatch:
    """Returns how a run is dispatched, its programs compiled from shapes: images may still be decoding.

    Args:
        setup: of the run.
        member: makes its updates together with those of others; None: it is alone.

    Raises:
        InputError: if the devices have no room for data that are to be stored there, or devices or host
            have none for the run; what takes the most is named, and the fields that make it less.
    """
    layout = _layout(setup)
    evaluation, num_bytes = _store_evaluated(setup, _data_bytes(setup, layout))
    kept = sharding.each(_keep_own_images(setup, layout))
    streams = layout is None and member is None
    dispatch = _streamed(setup) if streams else _resident(setup, layout, member)
    dispatch = dataclasses.replace(
        dispatch,
        evaluation=evaluation,
        evaluation_bytes=num_bytes,
        images_kept=tuple(kept) if len(kept) > 1 else (),
    )
    items, capacity = memory_plan.checked_items(setup, dispatch)
    return dataclasses.replace(dispatch, memory=tuple(memory.plan(items, capacity)))


def _layout(setup: Setup) -> str | None:
    config, split = setup.config, setup.inputs["train"]
    placement = config.data.placement
    if config.parallel.mode != "jit" or not isinstance(split, InMemorySplit | ActivationSplit):
        placement = "host"
    if setup.cache is not None and setup.cache["storage"] != "device":
        placement = "host"
    missing = sum(max(0, one.whole_bytes - one.bytes_in_memory) for one in setup.decoded_splits)
    room = room_for_data(setup.mesh, missing)
    layout = choose_layout(split.num_bytes, setup.mesh, room, placement)
    # Activations were found to fit: what is free may have become a little less since.
    return layout if setup.cache is None or placement == "host" else layout or "sharded"


def _data_bytes(setup: Setup, layout: str | None) -> int:
    """Returns the bytes that the training data take on each device."""
    if layout is None:
        return 0
    images, labels = _data_shapes(setup)
    images = device_dataset.flat_shape(images, setup.mesh, layout)
    parts = setup.mesh.size if layout == "sharded" else 1
    return memory.tree_bytes(images) // parts + memory.tree_bytes(labels)


def _data_shapes(setup: Setup) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Returns the shapes of the training images or activations, every view a row, and of their labels."""
    split = setup.inputs["train"]
    images = (len(split) * setup.order.views, *split.image_shape)
    return jax.ShapeDtypeStruct(images, split.dtype), jax.ShapeDtypeStruct((len(split),), jnp.int32)


def _keep_own_images(setup: Setup, layout: str | None) -> int:
    """Says which images this process is going to read, which counts where several share them; returns how many.

    Those are what its own devices store; of splits that are not stored, and of training images from which the
    statistics of an average are estimated, all; and none once there are activations.
    """
    estimates = setup.averaging is not None and setup.averaging.needs_statistics
    kept = 0
    for whole in setup.decoded_splits:
        own = [np.arange(0)]
        for role, split in setup.splits.items() if setup.cache is None else ():
            taken_from, rows = split.whole()
            if taken_from is not whole:
                continue
            if role != "train":
                rows = rows[setup.evaluator.own_rows(split)]
            elif layout is not None and not estimates:
                rows = rows[device_dataset.own_rows(setup.mesh, len(split))]
            own.append(rows)
        whole.keep(np.concatenate(own))
        kept += whole.whole_bytes // int(np.prod(whole.image_shape))
    return kept


def _store_evaluated(setup: Setup, data_bytes: int) -> tuple[str, int]:
    """Has the splits that are evaluated stored on the devices, where they fit; returns where, and the bytes on each.

    Images of which the devices are the host stay where they are, unless data are asked to be on the devices.

    Args:
        setup: of the run.
        data_bytes: of the training data, on each device.
    """
    config, platform = setup.config, _platform(setup)
    splits = [setup.inputs[role] for role in setup.evaluated]
    if setup.cache is not None:
        wanted = setup.cache["storage"] == "device"
    else:
        wanted = platform != "cpu" or config.data.placement == "device"
    layout = None
    if (
        wanted
        and setup.may_store_on_devices
        and len({(tuple(split.image_shape), split.dtype) for split in splits}) == 1
        and all(can_be_stored(split) for split in splits)
    ):
        num_bytes = sum(split.num_bytes for split in splits)
        layout = choose_layout(num_bytes, setup.mesh, room_for_evaluation(data_bytes))
        if layout is None and isinstance(splits[0], ActivationSplit) and splits[0].is_shared:
            layout = "sharded"  # They were found to fit, and no process need have all of them.
    if layout is None:
        setup.evaluator.store((), "replicated", at_once=False)
        return "host", 0
    stored_bytes = setup.evaluator.store(splits, layout, at_once=platform != "cpu")
    return f"device, {layout}", stored_bytes


def _resident(setup: Setup, layout: str | None, member: Member | None) -> Dispatch:
    split, order = setup.inputs["train"], setup.order
    compiled = functools.partial(_compiled_updates, setup, layout or "replicated")
    step: device_dataset.ResidentStep | Member
    if member is None:
        train_step = make_pure_step(setup)(axis_name=None)
        shapes = setup.state_shapes, *_data_shapes(setup)
        resident = compiled(train_step, *shapes, order.batch_size)
        step, data_sets = resident.step, 1
    else:
        resident = member.resident(setup, layout, compiled)
        step, data_sets = member, member.group.data_sets

    @contextlib.contextmanager
    def open_feed(start: int, stop: int) -> Iterator[Callable[[int, int], np.ndarray]]:
        # The rows of the next dispatch, as many as now, are worked out while the device is busy with this one.
        with concurrent.futures.ThreadPoolExecutor(1, "tl_jax rows") as thread:
            ahead: dict[int, concurrent.futures.Future] = {}

            def feed(first: int, count: int) -> np.ndarray:
                found = ahead.pop(first).result() if first in ahead else order.rows_of(first, count)
                following = min(count, stop - first - count)
                if following > 0:
                    ahead[first + count] = thread.submit(order.rows_of, first + count, following)
                return found[:count] if len(found) >= count else order.rows_of(first, count)

            yield feed

    def place() -> None:
        _wait_for_images(setup)
        step.put(_rows(split), split.labels)

    return Dispatch(
        step,
        place,
        open_feed,
        resident.updates,
        f"device, {layout}",
        data_sets * _data_bytes(setup, layout),
        resident.program,
        together=1 if member is None else len(member.group),
    )


def _compiled_updates(
    setup: Setup,
    layout: str,
    train_step: Callable,
    state: Any,
    images: Any,
    labels: Any,
    batch_size: int,
) -> Resident:
    """Returns the updates of a run, or of those that train together; see `together.MakeResident`."""
    step = device_dataset.ResidentStep(
        train_step,
        setup.mesh,
        layout,
        shape=tuple(setup.inputs["train"].image_shape),
        views=setup.order.views,
        one_by_one=cpu.slow_in_loops(
            setup.optimisation.frozen_mask,
            grouped=models.own_convolutions(setup.model),
            platform=_platform(setup),
        ),
        fewer=_platform(setup) != "cpu",
        compilation=setup.compilation,
    )
    one = step.trace(state, 1, batch_size, images, labels)
    updates = setup.config.train.updates_per_dispatch or _updates(setup, one.jaxpr)
    lengths = dataclasses.replace(setup.intervals, updates_per_dispatch=updates).lengths
    # All that the run needs, so that nothing is compiled in its middle.
    programs = []
    for count in lengths if step.needs_each else lengths[:1]:
        traced = step.trace(state, count, batch_size, images, labels) if count > 1 else one
        programs.append(_compiled(setup, traced.lower()))
        step.use(count, programs[-1])
    return Resident(step, updates, programs[0])


def _streamed(setup: Setup) -> Dispatch:
    config, split, order = setup.config, setup.inputs["train"], setup.order
    step = sharding.StreamedStep(
        make_pure_step(setup), setup.mesh, config.parallel.mode, setup.compilation
    )
    batch = {
        "image": jax.ShapeDtypeStruct((order.batch_size, *split.image_shape), split.dtype),
        **{
            name: jax.ShapeDtypeStruct((order.batch_size,), jnp.int32)
            for name in ("label", "position", "index")
        },
    }
    program = _compiled(setup, step.lower(setup.state_shapes, batch))
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

    def place() -> None:
        _wait_for_images(setup)

    batch_bytes = memory.tree_bytes(batch)
    return Dispatch(step, place, open_feed, 1, "host", 0, program, batch_bytes, _BATCHES_AHEAD)


def _wait_for_images(setup: Setup) -> None:
    """Returns once the images that this process keeps are there; where they are not, no process goes on."""
    with sharding.together():
        data.wait_for(setup.splits)


def _compiled(setup: Setup, lowered: Any) -> Any:
    """Returns the program of a lowered training step; what the compiler refuses is an InputError."""
    check_deterministic(setup.config, lowered, _platform(setup))
    return compile_or_refuse(
        functools.partial(setup.compilation.compile, lowered),
        "the training step",
        "data.image_size or data.batch_size",
    )


def _updates(setup: Setup, jaxpr: Any) -> int:
    """Returns how many updates take about a quarter of a second, from the FLOPs of the one in `jaxpr`."""
    platform = _platform(setup)
    if platform == "cpu" and cpu.trains_below_head(setup.optimisation.frozen_mask):
        return 1  # Slow enough one by one.
    # Simulated devices share the cores.
    flop = flops.count(jaxpr) / (1 if platform == "cpu" else setup.mesh.size)
    return int(np.clip(_FLOP_PER_DISPATCH.get(platform, 2e12) // max(flop, 1.0), 1, _MOST_UPDATES))


def _platform(setup: Setup) -> str:
    return platform_of(setup.mesh)


def _take(items: Iterator, count: int) -> list:
    return [item for _, item in zip(range(count), items, strict=False)]


def _rows(split: InMemorySplit | ActivationSplit) -> np.ndarray | device_dataset.OwnRows:
    """Returns the images [N, ...] or activations [N * V, ...], or what reads those of this process."""
    if isinstance(split, InMemorySplit):
        if not split.is_shared:
            return split.images
        return device_dataset.OwnRows(split.gather, (len(split), math.prod(split.image_shape)))
    if not split.is_shared:
        stored = split.activations
        return stored.reshape(-1, *stored.shape[2:])
    views = split.views
    shape = len(split) * views, math.prod(split.image_shape)
    return device_dataset.OwnRows(lambda rows: split.gather_views(*np.divmod(rows, views)), shape)
