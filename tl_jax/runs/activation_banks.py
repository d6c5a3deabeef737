"""Which activations a run needs, which of them each process keeps, and where they are read from."""

import dataclasses
import functools
import os
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import features, models
from tl_jax.compiler_options import of_numbers
from tl_jax.data import Split
from tl_jax.features import ActivationSplit, Store
from tl_jax.parallel import device_dataset, placement, sharding
from tl_jax.runs.setup import Setup
from tl_jax.training.stored_splits import StoredSplits

# What changes the numbers of a compiled program from outside of it.
_NUMERICS = ("XLA_FLAGS", "NVIDIA_TF32_OVERRIDE")


@dataclasses.dataclass(frozen=True)
class Bank:
    """The activations of some rows of a stored split, for the splits (roles) that were taken from it.

    Attributes:
        whole: the stored split, of images.
        needed: int64, the rows of it whose activations there are, in all processes together.
        rows: int64, those of them whose activations are in this process's store.
        roles: names of the splits.
        views: of each image.
        store: of the activations of `rows`.
        found: those that an earlier run stored, opened once: entries may be deleted at any time. None where they
            have to be computed, in every process.
    """

    whole: Split
    needed: np.ndarray
    rows: np.ndarray
    roles: list[str]
    views: int
    store: Store
    found: np.ndarray | None

    @property
    def images(self) -> Split:
        """The images of `rows`."""
        return _part(self.whole, self.rows)

    @property
    def num_bytes(self) -> int:
        """Bytes of the activations of all processes."""
        return len(self.needed) * self.example_bytes

    @property
    def example_bytes(self) -> int:
        """Bytes of all views of one image."""
        return int(np.prod(self.store.shape[1:])) * self.store.dtype.itemsize

    def row(self, storage: str) -> dict[str, Any]:
        """Returns the plan as a row of a table."""
        return {
            "for": ", ".join(self.roles),
            "images": len(self.needed),
            "views": self.views,
            "activation": "x".join(map(str, self.store.shape[2:])),
            "dtype": self.store.dtype.name,
            "bytes": self.num_bytes,
            "read from": storage if "train" in self.roles else self._place(storage),
            "key": self._key,
            "state": "to be computed" if self.found is None else "there",
        }

    @property
    def _key(self) -> str:
        if self.store.path is None:
            return "(memory only)"
        part = len(self.rows) < len(self.needed)
        return f"{self.store.key} (of the first process)" if part else self.store.key

    def _place(self, storage: str) -> str:
        """Returns where what is only evaluated is read from."""
        return "host" if storage == "host" or self.store.path is None else "disk"

    def split(self, split: Split, stored: np.ndarray, shared: bool) -> ActivationSplit:
        """Returns the activations of a split of images, from those of `rows`."""
        wanted = split.whole()[1]
        places = np.searchsorted(self.rows, wanted)
        if shared:
            places[places == len(self.rows)] = 0
            here = self.rows[places] == wanted if len(self.rows) else np.zeros(len(wanted), bool)
            places = np.where(here, places, -1)
        return ActivationSplit(
            stored,
            places,
            split.labels,
            split.class_names,
            self.store.key,
            split.name,
            shared=shared,
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """The activations of a run.

    Attributes:
        banks: one for all splits that were taken from the same stored split; augmented views, which are for
            training only, have one of their own.
        storage: where training reads them from: "device", "host" or "disk".
        kept: how many images each of several processes reads the activations of, where these are only those that
            its devices store; None where each reads all.
    """

    banks: list[Bank]
    storage: str
    kept: list[int] | None = None

    @property
    def shared(self) -> bool:
        """Whether a process reads no other activations than its devices store."""
        return self.kept is not None


def make_plan(setup: Setup) -> Plan:
    """Returns the plan of a run with a boundary, the same in every process; opens what earlier runs stored.

    Raises:
        InputError: if the place that was asked for has no room.
    """
    if _may_be_shared(setup):
        banks = _banks(setup, shared=True)
        if _fit_on_devices(setup, banks):
            own = [_rows_here(setup, bank.roles) for bank in banks]
            return Plan(banks, "device", sharding.each(sum(map(len, own))))
    banks = _banks(setup, shared=False)
    return Plan(banks, _storage(setup, banks))


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


def prefix_variables(setup: Setup) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the params and batch_stats of the prefix, as they start and stay."""
    params, batch_stats = (
        features.prefix_of(setup.model, _boundary(setup), setup.variables[name])
        for name in ("params", "batch_stats")
    )
    return params, batch_stats


def _dtype(setup: Setup) -> str:
    """Returns the type of what is stored: what is computed in bfloat16 is stored so, too, without any loss."""
    size = setup.preprocessing.image_size
    computed = models.features_dtype(setup.model, _boundary(setup), size)
    return "bfloat16" if computed == jnp.bfloat16 else setup.config.cache.dtype


def _boundary(setup: Setup) -> str:
    assert setup.boundary is not None  # only a run with a boundary has activations
    return setup.boundary


def _may_be_shared(setup: Setup) -> bool:
    """Returns whether nothing in the run reads other activations than those that a process's devices store."""
    config = setup.config
    reads_others = (
        config.cache.verify
        or config.report.scatter
        or (setup.averaging is not None and setup.averaging.needs_statistics)
    )
    return (
        jax.process_count() > 1
        and setup.may_store_on_devices
        and config.cache.storage in ("auto", "device")
        and not reads_others
    )


def _banks(setup: Setup, shared: bool) -> list[Bank]:
    """Returns the banks that the splits need.

    Where they take half of a stored split or more, or `cache.whole` says so, it is computed whole, so that other
    seeds, hold-outs and few-shot choices find it; what is there whole is taken. Where processes share a split, each
    computes what it keeps, under a key of its own, which is that of the same choice and number of processes alone.
    """
    views = setup.config.cache.views
    groups: dict[tuple[int, int], tuple[Split, dict[str, np.ndarray]]] = {}
    for role, split in setup.splits.items():
        whole, rows = split.whole()
        group = (id(whole), views if role == "train" else 1)
        groups.setdefault(group, (whole, {}))[1][role] = rows
    program = functools.cache(functools.partial(_program, setup))
    banks = []
    for (_, views), (whole, needed) in groups.items():
        rows = np.unique(np.concatenate(list(needed.values())))
        together = np.arange(len(whole))
        bank = _bank(setup, program, whole, together, together, list(needed), views)
        few = 2 * len(rows) < len(whole) and not setup.config.cache.whole
        if bank.found is None and few:
            bank = _bank(setup, program, whole, rows, rows, list(needed), views)
        if shared and bank.found is None:
            bank = _bank(
                setup, program, whole, rows, _rows_here(setup, needed), list(needed), views
            )
        banks.append(bank)
    return banks


def _bank(
    setup: Setup,
    program: Any,
    whole: Split,
    needed: np.ndarray,
    rows: np.ndarray,
    roles: list[str],
    views: int,
) -> Bank:
    """Returns a bank whose activations, if all processes find theirs, are opened."""
    facts, shape = program(views, tuple(whole.image_shape))
    examples = rows if views > 1 else None
    store = Store(
        setup.config.cache.dir or None,
        facts | features.facts_of_images(_part(whole, rows), examples),
        (len(rows), views, *shape),
        _dtype(setup),
    )
    if not len(rows):
        store = store.in_memory()
    found = store.open() if len(rows) else store.create()
    if not sharding.least(int(found is not None)):
        found = None
    if found is None and sharding.least(store.room() - store.num_bytes) < 0:
        store = store.in_memory()
    return Bank(whole, needed, rows, roles, views, store, found)


def _program(
    setup: Setup, views: int, image_shape: tuple[int, ...]
) -> tuple[dict[str, str], tuple[int, ...]]:
    """Returns the facts of the prefix of some views of images of a shape, and the shape of an activation."""
    prefix, (params, batch_stats) = make_prefix(setup, views), prefix_variables(setup)
    facts = features.facts_of_program(prefix, params, batch_stats, image_shape, setup.compilation)
    facts |= {name: of_numbers(os.environ.get(name, "")) for name in _NUMERICS}
    return facts, features.shape_of(prefix, params, batch_stats, image_shape)


def _rows_here(setup: Setup, roles: Iterable[str]) -> np.ndarray:
    """Returns the rows of a stored split that this process's devices store for the splits taken from it: int64."""
    stored = StoredSplits([setup.splits[name] for name in setup.evaluated], setup.mesh, "sharded")
    views = setup.config.cache.views
    rows = []
    for role in roles:
        split = setup.splits[role]
        if role == "train":
            own = device_dataset.own_rows(setup.mesh, len(split) * views) // views
        else:
            own = stored.own_rows(split)
        rows.append(split.whole()[1][own])
    return np.unique(np.concatenate(rows))


def _fit_on_devices(setup: Setup, banks: list[Bank]) -> bool:
    """Returns whether the devices together hold the activations, and each host those of its own on the way there."""
    trained = _trained(banks)
    rooms = placement.rooms_for_activations(setup.mesh, 0)
    in_memory = sum(bank.store.num_bytes for bank in banks if bank.store.path is None)
    evaluated = sum(
        len(setup.splits[role]) * bank.example_bytes
        for bank in banks
        for role in bank.roles
        if role in setup.evaluated
    )
    room = placement.room_for_evaluation(min(trained.num_bytes, rooms["device"] // setup.mesh.size))
    return (
        trained.num_bytes <= rooms["device"]
        and max(sharding.each(in_memory)) <= rooms["host"]
        and evaluated <= room * setup.mesh.size
    )


def _storage(setup: Setup, banks: list[Bank]) -> str:
    """Returns where training reads its activations from, the same in every process."""
    trained = _trained(banks)
    others = sum(bank.num_bytes for bank in banks if bank is not trained)
    rooms = placement.rooms_for_activations(setup.mesh, others)
    rooms["disk"] = 0 if trained.store.path is None else trained.num_bytes
    if not setup.may_store_on_devices:
        rooms["device"] = 0
    if trained.store.path is None and trained.num_bytes > rooms["host"]:
        # It is computed into the host's memory first.
        rooms["device"] = 0
    return placement.choose_storage(trained.num_bytes, setup.config.cache.storage, rooms)


def _trained(banks: list[Bank]) -> Bank:
    return next(bank for bank in banks if "train" in bank.roles)


def _part(whole: Split, rows: np.ndarray) -> Split:
    return whole if len(rows) == len(whole) else whole.subset(rows)
