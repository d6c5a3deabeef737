"""The frozen prefix of a run, computed once: its splits of images become splits of activations."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import console, data, features, models, reporting, trees
from tl_jax.data import Split, stream
from tl_jax.features import ActivationSplit, Store
from tl_jax.parallel import memory, placement, sharding
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.setup import Setup
from tl_jax.training.busy_time import BusyTime
from tl_jax.training.evaluator import Evaluator, fit
from tl_jax.training.loops import Stopped

# On a CPU the activations of a batch should stay in its caches: ResNet-20 at 32 px passes 1,050 images a second in
# batches of 64 and 860 in batches of 500 (two cores).
_CPU_BATCH = 64
# What changes the numbers of a compiled program from outside of it.
_NUMERICS = ("XLA_FLAGS", "NVIDIA_TF32_OVERRIDE")


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
        loops.Stopped: when asked to; nothing is kept then.
    """
    if setup.boundary is None:
        return setup
    began = time.perf_counter()
    with sharding.together():
        banks = _plan(setup)
        storage = _storage(setup, banks)
    rows = [bank.row(storage) for bank in banks]
    reporting.print_table(f"Activations after {setup.boundary}, computed once", rows)
    size = memory.format_bytes(sum(bank.store.num_bytes for bank in banks))
    there = " before" if all(bank.found is not None for bank in banks) else ""
    console.say(
        f"activations after {setup.boundary}: {size}, computed once{there}, kept in "
        f"{setup.config.cache.dir or 'memory only'}"
    )
    inputs: dict[str, Split] = {}
    for bank in banks:
        found = bank.found
        if found is None:
            found = bank.computed(setup, stop_requested, busy)
        if storage == "host" and isinstance(found, np.memmap):
            found = np.array(found)
        for role in bank.roles:
            inputs[role] = bank.split(setup.splits[role], found)
    evaluator = Evaluator(
        models.make_forward(setup.model, start=setup.boundary),
        lambda stored: stored.astype("float32"),
        setup.mesh,
        setup.config.data.eval_batch_size,
        compilation=setup.compilation,
    )
    facts = {
        "boundary": setup.boundary,
        "storage": storage,
        "seconds": time.perf_counter() - began,
        "banks": rows,
    }
    setup = dataclasses.replace(setup, inputs=inputs, evaluator=evaluator, cache=facts)
    return _verified(setup, setup.config.cache.verify) if setup.config.cache.verify else setup


@dataclasses.dataclass(frozen=True)
class _Bank:
    """The activations of some rows of a stored split, for the splits (roles) that were taken from it.

    `found` holds those that an earlier run stored, opened once: entries may be deleted at any time.
    """

    whole: Split
    rows: np.ndarray
    roles: list[str]
    views: int
    store: Store
    found: np.ndarray | None

    @property
    def images(self) -> Split:
        return _part(self.whole, self.rows)

    def row(self, storage: str) -> dict[str, Any]:
        """Returns the plan as a row of a table."""
        return {
            "for": ", ".join(self.roles),
            "images": len(self.rows),
            "views": self.views,
            "activation": "x".join(map(str, self.store.shape[2:])),
            "dtype": self.store.dtype.name,
            "bytes": self.store.num_bytes,
            "read from": storage if "train" in self.roles else self._place(storage),
            "key": self.store.key if self.store.path else "(memory only)",
            "state": "to be computed" if self.found is None else "there",
        }

    def _place(self, storage: str) -> str:
        """Returns where what is only evaluated is read from."""
        return "host" if storage == "host" or self.store.path is None else "disk"

    def computed(
        self, setup: Setup, stop_requested: Callable[[], bool], busy: BusyTime | None
    ) -> np.ndarray:
        """Returns the activations [M, V, ...], computed now and kept; every process has the whole of them.

        Where processes share the folder, the first to finish stores them and the others open the same.
        """
        step = sharding.compile_eval_step(
            make_prefix(setup, self.views), setup.mesh, setup.compilation
        )
        params, batch_stats = sharding.replicate(setup.mesh, prefix_variables(setup))
        with sharding.together():
            batch_size = fit(
                lambda count: step.compiled(params, batch_stats, _shapes(self.images, count)),
                _batch_size(setup, self.images),
                setup.mesh.size,
                sharding.least(memory.available(jax.local_devices()[0])),
                "computing the activations",
            ).rows
            rows = sharding.local_rows(setup.mesh, batch_size)
            if isinstance(self.whole, data.InMemorySplit):
                own = stream.own_places(len(self.rows), batch_size, rows)
                self.whole.keep(self.rows[own])
            data.wait_for({"": self.whole})
            out = self.store.create()
        with contextlib.ExitStack() as showing:
            showing.callback(self.store.discard)  # what was kept by then stays
            batches = -(-len(self.rows) // batch_size) * self.views
            progress = reporting.Progress(batches, batch_size=batch_size, unit="batch")
            # Several processes would have to agree on a stop; they end when all is computed.
            alone = jax.process_count() == 1
            prefix = functools.partial(step, params, batch_stats)
            whole = features.compute(
                prefix if busy is None else busy.watch(prefix),
                stream.eval_batches(self.images, batch_size, rows, setup.config.data.workers),
                batch_size,
                self.rows,
                out,
                show=showing.enter_context(progress).update,
                stop_requested=lambda: alone and stop_requested(),
            )
            if not whole:
                raise Stopped(setup.first_step)
            with sharding.together():
                return self.store.keep(out)

    def split(self, split: Split, found: np.ndarray) -> ActivationSplit:
        """Returns the activations of a split of images."""
        places = np.searchsorted(self.rows, split.whole()[1])
        return ActivationSplit(
            found, places, split.labels, split.class_names, self.store.key, split.name
        )


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


def make_prefix(setup: Setup, views: int):
    """Returns the pure prefix of a run; see `features.make_prefix`."""
    return features.make_prefix(
        setup.model,
        setup.preprocessing,
        _boundary(setup),
        views=views,
        seed=setup.config.cache.view_seed,
        dtype=_dtype(setup),
        augmentation=setup.augmentation,
    )


def _dtype(setup: Setup) -> str:
    """Returns the type of what is stored: what is computed in bfloat16 is stored so, too, without any loss."""
    size = setup.preprocessing.image_size
    computed = models.features_dtype(setup.model, _boundary(setup), size)
    return "bfloat16" if computed == jnp.bfloat16 else setup.config.cache.dtype


def _boundary(setup: Setup) -> str:
    assert setup.boundary is not None  # only a run with a boundary has activations
    return setup.boundary


def prefix_variables(setup: Setup) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the params and batch_stats of the prefix, as they start and stay."""
    params, batch_stats = (
        features.prefix_of(setup.model, _boundary(setup), setup.variables[name])
        for name in ("params", "batch_stats")
    )
    return params, batch_stats


def _plan(setup: Setup) -> list[_Bank]:
    """Returns the banks that the splits need, one for all that were taken from the same stored split.

    Where they take half of it or more it is computed whole, so that other seeds, hold-outs and few-shot
    choices find it. Augmented views are for training only: it then has a separate bank.
    """
    views = setup.config.cache.views
    groups: dict[tuple[int, int], tuple[Split, dict[str, np.ndarray]]] = {}
    for role, split in setup.splits.items():
        whole, rows = split.whole()
        group = (id(whole), views if role == "train" else 1)
        groups.setdefault(group, (whole, {}))[1][role] = rows
    banks = []
    for (_, views), (whole, needed) in groups.items():
        rows = np.unique(np.concatenate(list(needed.values())))
        if 2 * len(rows) >= len(whole):
            rows = np.arange(len(whole))
        prefix, (params, batch_stats) = make_prefix(setup, views), prefix_variables(setup)
        images = _part(whole, rows)
        store = Store(
            setup.config.cache.dir or None,
            features.facts(
                prefix,
                params,
                batch_stats,
                images,
                rows if views > 1 else None,
                setup.compilation,
            )
            | {name: os.environ.get(name, "") for name in _NUMERICS},
            (len(rows), views, *features.shape_of(prefix, params, batch_stats, images)),
            _dtype(setup),
        )
        found = store.open()
        if not sharding.least(int(found is not None)):
            found = None
        if found is None and sharding.least(store.room()) < store.num_bytes:
            store = store.in_memory()
        banks.append(_Bank(whole, rows, list(needed), views, store, found))
    return banks


def _storage(setup: Setup, banks: list[_Bank]) -> str:
    """Returns where training reads its activations from, the same in every process."""
    trained = next(bank for bank in banks if "train" in bank.roles)
    on_device = setup.config.data.placement != "host" and setup.config.parallel.mode == "jit"
    others = sum(bank.store.num_bytes for bank in banks if bank is not trained)
    rooms = placement.rooms_for_activations(setup.mesh, others)
    rooms["disk"] = 0 if trained.store.path is None else trained.store.num_bytes
    if not on_device:
        rooms["device"] = 0
    if trained.store.path is None and trained.store.num_bytes > rooms["host"]:
        # It is computed into the host's memory first.
        rooms["device"] = 0
    return placement.choose_storage(trained.store.num_bytes, setup.config.cache.storage, rooms)


def _part(whole: Split, rows: np.ndarray) -> Split:
    return whole if len(rows) == len(whole) else whole.subset(rows)


def _verified(setup: Setup, updates: int) -> Setup:
    """Returns the run, having trained a few updates from its start both ways: on activations, on images.

    The largest difference of a parameter or statistic is printed, and becomes part of the
    cache statistics.

    Args:
        setup: on activations.
        updates: how many; no more than the run has are made.
    """
    order, split, stored = setup.order, setup.splits["train"], setup.inputs["train"]
    rows = sharding.local_rows(setup.mesh, order.batch_size)
    numbers = split.whole()[1]
    as_is = features.make_view_transform(
        setup.preprocessing, setup.augmentation, order.views, setup.config.cache.view_seed
    )
    on_images = dataclasses.replace(setup, cache=None)
    steps = [
        sharding.StreamedStep(make_pure_step(setup), setup.mesh, compilation=setup.compilation),
        sharding.StreamedStep(
            make_pure_step(on_images, lambda key, rows, images: as_is(rows, images)),
            setup.mesh,
            compilation=setup.compilation,
        ),
    ]
    states = [setup.initial_state(), setup.initial_state()]
    updates = min(updates, setup.total_steps - setup.first_step)
    for number in range(setup.first_step, setup.first_step + updates):
        examples, views = np.divmod(order.rows(number)[rows], order.views)
        inputs = [
            (stored.gather_views(examples, views), np.arange(order.batch_size)[rows]),
            (split.gather(examples), numbers[examples] * order.views + views),
        ]
        for i, (images, positions) in enumerate(inputs):
            batch = {
                "image": images,
                "label": split.labels[examples],
                "position": positions.astype(np.int32),
            }
            states[i], _ = steps[i](states[i], steps[i].place(batch))
        jax.block_until_ready(states)
    cached, plain = (
        trees.flatten({"params": state.params, "batch_stats": state.batch_stats})
        for state in states
    )
    differences = {
        name: float(np.max(np.abs(np.asarray(leaf) - np.asarray(cached[name]))))
        for name, leaf in plain.items()
    }
    name = max(differences, key=differences.__getitem__)
    console.say(
        f"cache.verify: after {updates} updates on activations and on images the largest difference is "
        f"{differences[name]:.2e} ({name})"
    )
    found = {"updates": updates, "largest_difference": differences[name], "leaf": name}
    return dataclasses.replace(setup, cache={**(setup.cache or {}), "verified": found})
