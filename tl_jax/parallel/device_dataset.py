"""Splits stored on the devices, and several updates on them in one dispatch.

N: rows of a split (examples, or views of examples); B: rows in the global batch; U: updates in a
dispatch; V: views of an example. Batches are gathered by index inside the compiled step, so that
only int32 [U, B] crosses from the host, and the host is asked once for U updates.

Rows are stored flat, [N, H * W * C]: a TPU pads the last axis to 128 values, and that of colours has three.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from tl_jax.compilation import PLAIN, Compilation
from tl_jax.parallel import sharding


@dataclasses.dataclass(frozen=True)
class OwnRows:
    """Rows [N, D] of which a process reads only those of its own devices; see `own_rows`.

    Attributes:
        read: from places, int64 [B], to rows [B, ...].
        shape: (N, D).
    """

    read: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        rows = np.arange(len(self))[part]
        return self.read(rows).reshape(len(rows), self.shape[1])


def own_rows(mesh: Mesh, num_rows: int) -> np.ndarray:
    """Returns which of N rows this process reads to have them stored on the devices: int64, its part of them."""
    part = len_padded(num_rows, mesh, "sharded") // mesh.size
    own = [device.process_index == jax.process_index() for device in mesh.devices.flat]
    return np.flatnonzero(np.repeat(own, part)[:num_rows])


def place(mesh: Mesh, rows: np.ndarray | OwnRows, layout: str) -> jax.Array:
    """Returns an array [N, ...] on the devices; sharded ones are padded with zeros to equal parts.

    Args:
        mesh: the devices.
        rows: on the host, in memory or mapped, every process having the whole; of `OwnRows` each reads its part, and
            a replicated layout is made of them by the devices.
        layout: one of `placement.LAYOUTS`.
    """
    if layout == "replicated":
        whole = sharding.replicated(mesh)
        if isinstance(rows, OwnRows):
            parts, count = place(mesh, rows, "sharded"), len(rows)
            return jax.jit(lambda array: array[:count], out_shardings=whole)(parts)
        array = rows
        return jax.make_array_from_callback(
            array.shape, whole, lambda index: np.asarray(array[index])
        )
    part = len_padded(len(rows), mesh, layout) // mesh.size

    def padded(index: Any) -> np.ndarray:
        found = np.asarray(rows[index[0].start or 0 : (index[0].start or 0) + part])
        missing = part - len(found)
        return np.pad(found, [(0, missing)] + [(0, 0)] * (found.ndim - 1)) if missing else found

    shape = (part * mesh.size, *rows.shape[1:])
    return jax.make_array_from_callback(shape, sharding.batch_sharding(mesh), padded)


def flat(rows: np.ndarray) -> np.ndarray:
    """Returns an array [N, ...] as [N, D], without a copy where it is contiguous."""
    return rows.reshape(len(rows), -1)


def flat_shape(rows: Any, mesh: Mesh, layout: str) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of `rows` [N, ...] once they are stored: flat, padded where sharded."""
    length = len_padded(rows.shape[0], mesh, layout)
    return jax.ShapeDtypeStruct((length, math.prod(rows.shape[1:])), rows.dtype)


def gather(mesh: Mesh, layout: str, data: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns data[rows], [B, ...] split over the devices; for use inside a compiled function.

    Args:
        mesh: the devices.
        layout: of `data`, see `place`.
        data: [N, ...].
        rows: int32 [B], the same on every device.
    """
    if layout == "replicated":
        rows = jax.lax.with_sharding_constraint(rows, sharding.batch_sharding(mesh))
        return data[rows]

    def from_parts(part: jax.Array, rows: jax.Array) -> jax.Array:
        # Every device contributes the rows it holds, and zeros for the others': sums are exact.
        local = rows - jax.lax.axis_index(sharding.AXIS) * len(part)
        held = (local >= 0) & (local < len(part))
        found = part[jnp.clip(local, 0, len(part) - 1)]
        found = jnp.where(held.reshape(-1, *[1] * (found.ndim - 1)), found, 0)
        return jax.lax.psum_scatter(found, sharding.AXIS, tiled=True)

    split, whole = PartitionSpec(sharding.AXIS), PartitionSpec()
    return jax.shard_map(from_parts, mesh=mesh, in_specs=(split, whole), out_specs=split)(
        data, rows
    )


class ResidentStep:
    """Several updates in one call, on a split that is stored on the devices.

    The program is `lax.scan` over the updates, except where there is one update: it is then that of a step on
    one batch, after a gather. A number of updates that there is no program for has one compiled when it is first
    needed. `step(state, rows)`, with int32 rows [U, B] on the host, returns the next state and the metrics [U] or
    more, left on the device, where those beyond the updates asked for repeat the last one's; the state is donated.
    """

    def __init__(
        self,
        train_step: Callable,
        mesh: Mesh,
        layout: str,
        *,
        shape: tuple[int, ...],
        views: int = 1,
        one_by_one: bool = False,
        fewer: bool = False,
        compilation: Compilation = PLAIN,
    ):
        """Prepares the programs; nothing is compiled yet.

        Args:
            train_step: the pure step on a global batch.
            mesh: the devices.
            layout: of the images or activations, see `placement.choose_layout`.
            shape: of one of them.
            views: V, rows per example: row r is a view of example r // V.
            one_by_one: whether every update is a run of the program of one update, for what a compiler runs
                slower inside a loop. (Written out one after the other in one program, updates take several
                times longer to compile, and XLA for CPU of jaxlib 0.12 rounds them differently: it
                optimises across updates.)
            fewer: whether a program makes fewer updates too, by computing all and choosing the state after the
                last one asked for: nothing is compiled where a span of updates ends. (XLA for CPU fuses updates
                with the choice and rounds them differently, with a branch too in jaxlib 0.10; on GPUs a branch
                makes the host wait for its condition.)
            compilation: of the programs.
        """

        def update(state, rows, images, labels):
            batch = {
                "image": gather(mesh, layout, images, rows).reshape(len(rows), *shape),
                "label": gather(mesh, "replicated", labels, rows // views),
                "position": jnp.arange(len(rows), dtype=jnp.int32),
                "index": rows // views,
            }
            return train_step(state, batch)

        def updates(state, rows, count, images, labels):
            if len(rows) == 1:
                state, measured = update(state, rows[0], images, labels)
                return state, jax.tree.map(lambda value: value[None], measured)

            def body(state, numbered):
                number, rows = numbered
                new, measured = update(state, rows, images, labels)
                return _chosen(number < count, new, state) if fewer else new, measured

            numbers = jnp.arange(len(rows), dtype=jnp.int32)
            state, measured = jax.lax.scan(body, state, (numbers, rows))
            if fewer:
                shown = jnp.minimum(numbers, count - 1)
                measured = jax.tree.map(lambda values: values[shown], measured)
            return state, measured

        whole = sharding.replicated(mesh)
        images_sharding = whole if layout == "replicated" else sharding.batch_sharding(mesh)
        self._mesh, self._layout, self._one_by_one = mesh, layout, one_by_one
        self._programs: dict[int, Any] = {}
        self._fewer = fewer
        self._data: tuple[jax.Array, jax.Array] | None = None
        self._updates = compilation.jit(
            updates,
            in_shardings=(whole, whole, whole, images_sharding, whole),
            out_shardings=(whole, whole),
            donate_argnums=0,
        )

    def trace(self, state: Any, count: int, batch_size: int, images: Any, labels: Any) -> Any:
        """Returns the `jax.stages.Traced` program of `count` updates, whose compilation need not wait for the data.

        Args:
            state: of arrays or `jax.ShapeDtypeStruct`.
            count: U.
            batch_size: B.
            images: shape and dtype of what `put` is going to be given, [N, ...].
            labels: likewise, [N / V].
        """
        count = 1 if self._one_by_one else count
        rows = jax.ShapeDtypeStruct((count, batch_size), jnp.int32)
        images = flat_shape(images, self._mesh, self._layout)
        labels = jax.ShapeDtypeStruct(labels.shape, labels.dtype)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        return self._updates.trace(state, rows, number, images, labels)

    def use(self, count: int, program: Any) -> None:
        """Takes the compiled form of what `trace` returned for `count` updates."""
        self._programs[1 if self._one_by_one else count] = program

    @property
    def needs_each(self) -> bool:
        """Whether every number of updates takes a program of its own."""
        return not (self._one_by_one or self._fewer)

    def put(self, images: np.ndarray | OwnRows, labels: np.ndarray) -> None:
        """Places the split: images or activations [N, ...], and labels int32 [N / V]."""
        rows = images if isinstance(images, OwnRows) else flat(images)
        self._data = (
            place(self._mesh, rows, self._layout),
            place(self._mesh, labels, "replicated"),
        )

    def __call__(self, state: Any, rows: np.ndarray) -> tuple[Any, dict[str, jax.Array]]:
        """Runs len(rows) updates; `put` comes first."""
        assert self._data is not None
        count = len(rows)
        if self._one_by_one and count > 1:
            measured = []
            for row in rows:
                state, of_update = self(state, row[None])
                # On several simulated devices XLA for CPU must not be many programs ahead.
                measured.append(jax.block_until_ready(of_update))
            return state, jax.tree.map(lambda *values: jnp.concatenate(values), *measured)
        made = min((made for made in self._programs if made >= count), default=0)
        if made != count and not (made and self._fewer):
            shapes = jax.eval_shape(lambda *arrays: arrays, state, rows, np.int32(0), *self._data)
            self.use(count, self._updates.trace(*shapes).lower().compile())
            made = count
        rows = rows.astype(np.int32)
        if made > count:
            rows = np.pad(rows, ((0, made - count), (0, 0)), mode="edge")
        placed, number = (
            place(self._mesh, array, "replicated") for array in (rows, np.asarray(count, np.int32))
        )
        return self._programs[made](state, placed, number, *self._data)


def _chosen(condition: jax.Array, new: Any, old: Any) -> Any:
    """Returns the one tree or the other; leaves that are the same in both are as they are."""
    return jax.tree.map(
        lambda one, other: one if one is other else jnp.where(condition, one, other), new, old
    )


def len_padded(num_rows: int, mesh: Mesh, layout: str) -> int:
    """Returns the rows that a split takes on the devices together, or on each when replicated."""
    return num_rows if layout == "replicated" else -(-num_rows // mesh.size) * mesh.size
