"""The frozen prefix of a run, computed once: its splits of images become splits of activations."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from tl_jax import console, data, features, models, reporting
from tl_jax.data import Split, stream
from tl_jax.errors import InputError
from tl_jax.parallel import memory, sharding
from tl_jax.runs import activation_check
from tl_jax.runs.activation_banks import Bank, Plan, make_plan, make_prefix, prefix_variables
from tl_jax.runs.setup import Setup
from tl_jax.training.busy_time import BusyTime
from tl_jax.training.evaluator import Evaluator, fit
from tl_jax.training.loops import Stopped

# On a CPU the activations of a batch should stay in its caches: ResNet-20 at 32 px passes 1,050 images a second in
# batches of 64 and 860 in batches of 500 (two cores).
_CPU_BATCH = 64


def use(
    setup: Setup,
    stop_requested: Callable[[], bool] = lambda: False,
    busy: BusyTime | None = None,
) -> Setup:
    """Returns the run on activations; one without `cache.boundary` as it is.

    What earlier runs left under the same key is used again. The plan is printed before anything is
    computed. With `cache.verify` the run then begins both ways, on activations and on images, and
    the largest difference is printed.

    Args:
        setup: on images.
        stop_requested: whether to stop; asked between batches.
        busy: counts what the devices do for it; None: nothing counts it.

    Raises:
        InputError: if the place that was asked for has no room.
        OSError: if the disk is full.
        loops.Stopped: when asked to; what is not whole by then is not kept.
    """
    if setup.boundary is None:
        return setup
    began = time.perf_counter()
    with sharding.together():
        plan = make_plan(setup)
    rows = [bank.row(plan.storage) for bank in plan.banks]
    reporting.print_table(f"Activations after {setup.boundary}, computed once", rows)
    size = memory.format_bytes(sum(bank.num_bytes for bank in plan.banks))
    there = " before" if all(bank.found is not None for bank in plan.banks) else ""
    is_kept = any(bank.store.path is not None for bank in plan.banks)
    console.say(
        f"activations after {setup.boundary}: {size}, computed once{there}, kept in "
        f"{setup.config.cache.dir if is_kept else 'memory only'}"
    )
    if setup.config.cache.dir and not is_kept:
        console.note(
            "cache.dir: no room there in every process, so that later runs find no activations"
        )
    inputs: dict[str, Split] = {}
    for bank, stored in zip(plan.banks, _stored(setup, plan, stop_requested, busy), strict=True):
        if plan.storage == "host" and isinstance(stored, np.memmap):
            stored = np.array(stored)
        for role in bank.roles:
            inputs[role] = bank.split(setup.splits[role], stored, plan.shared)
    evaluator = Evaluator(
        models.make_forward(setup.model, start=setup.boundary),
        lambda stored: stored.astype("float32"),
        setup.mesh,
        setup.config.data.eval_batch_size,
        compilation=setup.compilation,
    )
    facts = {
        "boundary": setup.boundary,
        "storage": plan.storage,
        "seconds": time.perf_counter() - began,
        "banks": rows,
    }
    if plan.kept is not None:
        facts["images_kept"] = plan.kept
    setup = dataclasses.replace(setup, inputs=inputs, evaluator=evaluator, cache=facts)
    updates = setup.config.cache.verify
    return activation_check.verified(setup, updates) if updates else setup


def _stored(
    setup: Setup, plan: Plan, stop_requested: Callable[[], bool], busy: BusyTime | None
) -> list[np.ndarray]:
    """Returns the activations [M, V, ...] of each bank, as found or computed now.

    Those of one bank are written and hashed while those of the next are computed. Where processes compute the same
    ones, the first to finish stores them and the others open the same.
    """
    with contextlib.ExitStack() as closing:
        for bank in plan.banks:
            closing.callback(bank.store.discard)  # what was kept by then stays
        thread = closing.enter_context(
            concurrent.futures.ThreadPoolExecutor(1, "tl_jax activations")
        )
        saving: dict[int, concurrent.futures.Future[np.ndarray]] = {}
        for number, bank in enumerate(plan.banks):
            if bank.found is None:
                with sharding.together():  # a disk that is full is said before more is computed
                    for earlier in saving.values():
                        if earlier.done():
                            earlier.result()
                computed = _computed(bank, setup, plan.shared, stop_requested, busy)
                saving[number] = thread.submit(bank.store.keep, computed)
        with sharding.together():
            return [
                saving[number].result() if bank.found is None else bank.found
                for number, bank in enumerate(plan.banks)
            ]


def _computed(
    bank: Bank,
    setup: Setup,
    shared: bool,
    stop_requested: Callable[[], bool],
    busy: BusyTime | None,
) -> np.ndarray:
    """Returns the activations [M, V, ...] of the rows that this process keeps, as `Store.create` gives them."""
    step = sharding.compile_eval_step(
        make_prefix(setup, bank.views), setup.mesh, setup.compilation, split=shared
    )
    params, batch_stats = sharding.replicate(setup.mesh, prefix_variables(setup))
    with sharding.together():
        batch_size = fit(
            lambda count: step.compiled(params, batch_stats, _shapes(bank.whole, count)),
            _batch_size(setup, bank.whole if shared else bank.images),
            setup.mesh.size,
            sharding.least(memory.available(jax.local_devices()[0])),
            "computing the activations",
        ).rows
        rows = sharding.local_rows(setup.mesh, batch_size)
        if isinstance(bank.whole, data.InMemorySplit):
            own = np.arange(len(bank.rows))
            if not shared:
                own = stream.own_places(len(own), batch_size, rows)
            bank.whole.keep(bank.rows[own])
        data.wait_for({"": bank.whole})
        out = _created(bank, setup.config.cache.dir)
        fetched = rows.stop - rows.start if shared else batch_size
        count = max(sharding.each(-(-len(bank.rows) // fetched)))
    workers = setup.config.data.workers
    # Several processes would have to agree on a stop; they end when all is computed.
    alone = jax.process_count() == 1
    prefix = functools.partial(step, params, batch_stats)
    with (
        # Where each computes its own, nothing else tells the others that one has failed.
        sharding.together() if shared else contextlib.nullcontext(),
        reporting.Progress(count * bank.views, batch_size=batch_size, unit="batch") as bar,
    ):
        whole = features.compute(
            prefix if busy is None else busy.watch(prefix),
            _own_batches(bank, fetched, count, workers)
            if shared
            else _batches(bank, batch_size, rows, workers),
            fetched,
            out,
            fetch=sharding.rows_here if shared else np.asarray,
            show=bar.update,
            stop_requested=lambda: alone and stop_requested(),
        )
    if not whole:
        raise Stopped(setup.first_step)
    return out


def _created(bank: Bank, folder: str) -> np.ndarray:
    """Returns the array to write the activations of a bank to; see `Store.create`."""
    try:
        return bank.store.create()
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(
            f"cache.dir={folder!r}: {error}; expected a folder that can be made and written, or '' to keep "
            "activations in memory only"
        ) from error


def _batches(bank: Bank, batch_size: int, rows: slice, workers: int) -> Iterator[stream.Batch]:
    """Yields this process's `rows` of batches over the images of a bank, with the number of each in its split."""
    for batch in stream.eval_batches(bank.images, batch_size, rows, workers):
        yield {"image": batch["image"], "example": bank.rows[batch["index"]]}


def _own_batches(bank: Bank, size: int, count: int, workers: int) -> Iterator[stream.Batch]:
    """Yields `count` batches over the images that this process keeps, those after the last of them black."""
    own = _batches(bank, size, slice(0, size), workers) if len(bank.rows) else iter(())
    blank = {
        "image": np.zeros((size, *bank.whole.image_shape), np.uint8),
        "example": np.zeros(size, np.int64),
    }
    yield from itertools.islice(itertools.chain(own, itertools.repeat(blank)), count)


def _shapes(images: Split, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch as the prefix takes it."""
    return {
        "image": jax.ShapeDtypeStruct((rows, *images.image_shape), np.uint8),
        "row": jax.ShapeDtypeStruct((rows,), np.int32),
    }


def _batch_size(setup: Setup, images: Split) -> int:
    """Returns the images of one forward pass, a multiple of the devices."""
    rows = setup.evaluator.rows(images)
    if setup.mesh.devices.flat[0].platform != "cpu":
        return rows
    return -(-min(_CPU_BATCH, rows) // setup.mesh.size) * setup.mesh.size
