"""The frozen prefix of a run, computed once: its splits of images become splits of activations."""

import contextlib
import dataclasses
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.evaluator import Evaluator
from experiments.preparation import Setup, make_pure_step
from tl_jax import activations, memory, models, reporting, sharding, trees
from tl_jax.activations import ActivationSplit, Store
from tl_jax.data import Split

# The rest of the memory that is free is for everything else that a run holds.
_SHARE = 0.5


def use(setup: Setup) -> Setup:
    """Returns the run on activations; one without `cache.boundary` as it is.

    What earlier runs left under the same key is used again. The plan is printed before anything is
    computed. With `cache.verify` the run then begins both ways, on activations and on images, and
    the largest difference is printed.

    Raises:
        InputError: if the place that was asked for has no room.
        OSError: if the disk is full.
    """
    if setup.boundary is None:
        return setup
    began = time.perf_counter()
    banks = _plan(setup)
    trained = next(bank for bank in banks if "train" in bank.roles)
    storage = activations.choose_storage(
        trained.store.num_bytes,
        setup.config.cache.storage,
        round(_SHARE * memory.available(jax.local_devices()[0]) * setup.mesh.size),
        round(_SHARE * memory.host_available()),
    )
    rows = [bank.row(storage) for bank in banks]
    if jax.process_index() == 0:
        reporting.print_table(f"Activations after {setup.boundary}, computed once", rows)
        print(f"activations are kept in {setup.config.cache.dir or 'memory only'}")
    inputs: dict[str, Split] = {}
    for bank in banks:
        found = bank.opened() if bank.found else bank.computed(setup)
        if storage == "host":
            found = np.array(found)
        for role in bank.roles:
            inputs[role] = bank.split(setup.splits[role], found)
    evaluator = Evaluator(
        models.make_forward(setup.model, start=setup.boundary),
        lambda stored: stored.astype("float32"),
        setup.mesh,
        setup.config.data.eval_batch_size,
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
    """The activations of some rows of a stored split, for the splits (roles) that were taken from it."""

    whole: Split
    rows: np.ndarray
    roles: list[str]
    views: int
    store: Store
    found: bool

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
            "state": "there" if self.found else "to be computed",
        }

    def _place(self, storage: str) -> str:
        """Returns where what is only evaluated is read from."""
        return "host" if storage == "host" or self.store.path is None else "disk"

    def opened(self) -> np.ndarray:
        """Returns the activations that an earlier run left."""
        found = self.store.open(verify=False)
        assert found is not None
        return found

    def computed(self, setup: Setup) -> np.ndarray:
        """Returns the activations [M, V, ...], computed now; process 0 keeps them in the folder."""
        evaluator = setup.evaluator
        step = sharding.compile_eval_step(make_prefix(setup, self.views), setup.mesh)
        params, batch_stats = sharding.replicate(setup.mesh, prefix_variables(setup))
        primary = jax.process_index() == 0
        store = self.store if primary else self.store.in_memory()
        with sharding.together():
            out = store.create()
        with contextlib.ExitStack() as showing:
            show = None
            if primary:
                batches = -(-len(self.rows) // evaluator.batch_size) * self.views
                show = showing.enter_context(
                    reporting.Progress(batches, batch_size=evaluator.batch_size, unit="batch")
                ).update
            activations.compute(
                step,
                params,
                batch_stats,
                self.images,
                self.rows,
                out,
                batch_size=evaluator.batch_size,
                rows=sharding.local_rows(setup.mesh, evaluator.batch_size),
                workers=setup.config.data.workers,
                show=show or (lambda batches: None),
            )
        with sharding.together():
            return store.keep(out)

    def split(self, split: Split, found: np.ndarray) -> ActivationSplit:
        """Returns the activations of a split of images."""
        places = np.searchsorted(self.rows, split.whole()[1])
        return ActivationSplit(
            found, places, split.labels, split.class_names, self.store.key, split.name
        )


def make_prefix(setup: Setup, views: int):
    """Returns the pure prefix of a run; see `activations.make_prefix`."""
    return activations.make_prefix(
        setup.model,
        setup.preprocessing,
        setup.boundary,
        views=views,
        seed=setup.config.cache.view_seed,
        dtype=setup.config.cache.dtype,
    )


def prefix_variables(setup: Setup) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the params and batch_stats of the prefix, as they start and stay."""
    params, batch_stats = (
        activations.prefix_of(setup.model, setup.boundary, setup.initial.variables[name])
        for name in ("params", "batch_stats")
    )
    return params, batch_stats


def _plan(setup: Setup) -> list[_Bank]:
    """Returns the banks that the splits need, one for all that were taken from the same stored split.

    Where they take half of it or more it is computed whole, so that other seeds, hold-outs and few-shot
    choices find it. Augmented views are for training only: it then has a bank of its own.
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
            activations.facts(prefix, params, batch_stats, images),
            (len(rows), views, *activations.shape_of(prefix, params, batch_stats, images)),
            setup.config.cache.dtype,
        )
        found = _everywhere(store.open() is not None)
        if not found and store.room() < store.num_bytes:
            store = store.in_memory()
        banks.append(_Bank(whole, rows, list(needed), views, store, found))
    return banks


def _part(whole: Split, rows: np.ndarray) -> Split:
    return whole if len(rows) == len(whole) else whole.subset(rows)


def _everywhere(found: bool) -> bool:
    """Returns whether it is so in every process."""
    if jax.process_count() == 1:
        return found
    return bool(np.all(multihost_utils.process_allgather(np.array(found))))


def _verified(setup: Setup, updates: int) -> Setup:
    """Returns the run, having trained a few updates from its start both ways: on activations, on images.

    The largest difference of a parameter or statistic is printed, and becomes part of what is told of
    the cache.

    Args:
        setup: on activations.
        updates: how many; no more than the run has are made.
    """
    order, split, stored = setup.order, setup.splits["train"], setup.inputs["train"]
    rows = sharding.local_rows(setup.mesh, order.batch_size)
    numbers = split.whole()[1]
    as_is = activations.make_view_transform(
        setup.preprocessing, order.views, setup.config.cache.view_seed
    )
    on_images = dataclasses.replace(setup, cache=None)
    steps = [
        sharding.StreamedStep(make_pure_step(setup), setup.mesh),
        sharding.StreamedStep(
            make_pure_step(on_images, lambda key, rows, images: as_is(rows, images)), setup.mesh
        ),
    ]
    states = [setup.initial_state(), setup.initial_state()]
    updates = min(updates, setup.total_steps)
    for number in range(updates):
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
    if jax.process_index() == 0:
        print(
            f"cache.verify: after {updates} updates on activations and on images the largest "
            f"difference is {differences[name]:.2e} ({name})"
        )
    found = {"updates": updates, "largest_difference": differences[name], "leaf": name}
    return dataclasses.replace(setup, cache={**setup.cache, "verified": found})
