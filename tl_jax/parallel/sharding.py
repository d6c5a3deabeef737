"""The mesh, shardings, host batches as global arrays, and the compiled form of a step.

One mesh axis, `data`, of type Auto: parameters are replicated, batches are split over their first
axis. Process `p` of `P` holds rows `[p * B / P, (p + 1) * B / P)` of a global batch of `B`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tl_jax.compilation import PLAIN, Compilation
from tl_jax.errors import InputError, unknown

AXIS = "data"
MODES = ("jit", "pmap")


def check_mode(mode: str) -> None:
    """Raises InputError unless `mode` is one of `MODES`, and of this process alone where it is "pmap"."""
    if mode not in MODES:
        raise unknown("parallel.mode", mode, MODES)
    if mode == "pmap" and jax.process_count() > 1:
        raise InputError(
            f"parallel.mode=pmap in {jax.process_count()} processes: expected jit, which spreads over all of "
            "them; pmap is for the devices of one"
        )


def make_mesh(num_devices: int = 0) -> Mesh:
    """Returns a mesh of one axis, `data`, over the first `num_devices` devices (0: all of them).

    Raises:
        InputError: if there are fewer devices, or if a subset is asked for among several processes.
    """
    # Grouped by process, which the rows of `local_rows` rely on; jax.devices() of a TPU pod need not be.
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if not 0 <= num_devices <= len(devices):
        raise InputError(f"parallel.devices={num_devices}: this machine has {len(devices)} devices")
    if num_devices and num_devices < len(devices) and jax.process_count() > 1:
        raise InputError(
            f"parallel.devices={num_devices}: with {jax.process_count()} processes all "
            f"{len(devices)} devices are used; leave it at 0"
        )
    chosen = np.array(devices[: num_devices or len(devices)])
    return Mesh(chosen, (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays split over their first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Returns the tree with every leaf copied whole to every device; never aliases its input."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, np.array(leaf)), tree
    )


def one_copy(tree: Any) -> Any:
    """Returns the tree copied on the devices, what is replicated to one of them; nothing is compiled or waited for.

    The copy stays as it is while programs overwrite what it was made of (donated arguments).
    """

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        parts = leaf.addressable_shards[: 1 if leaf.is_fully_replicated else None]
        copies = [jax.device_put(part.data, part.device, may_alias=False) for part in parts]
        if leaf.is_fully_replicated:
            return copies[0]
        return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, copies)

    return jax.tree.map(copied, tree)


def put_whole(mesh: Mesh, tree: Any) -> Any:
    """Returns the tree whole on every device; leaves that are there already are not moved."""
    return jax.device_put(tree, replicated(mesh))


def local_rows(mesh: Mesh, batch_size: int) -> slice:
    """Returns the rows of a global batch that this process loads.

    Raises:
        InputError: if the devices do not divide `batch_size`, or it is below 1; names the nearest
            sizes they divide.
    """
    devices = mesh.size
    if batch_size < 1:
        raise InputError(f"data.batch_size={batch_size}: expected at least 1; nearest: {devices}")
    if batch_size % devices:
        below = batch_size - batch_size % devices
        choices = [size for size in (below, below + devices) if size]
        raise InputError(
            f"data.batch_size={batch_size} is not divisible by {devices} devices; nearest: "
            f"{' or '.join(map(str, choices))}; or take fewer devices with parallel.devices"
        )
    per_process = batch_size // jax.process_count()
    start = jax.process_index() * per_process
    return slice(start, start + per_process)


def global_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Returns this process's rows `[B / P, ...]` as parts of global arrays `[B, ...]` over the mesh."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }


def rows_here(array: jax.Array) -> np.ndarray:
    """Returns the rows [B / P, ...] of an array [B, ...] that this process's devices hold, of one split over them."""
    parts = sorted(array.addressable_shards, key=lambda part: part.index[0].start or 0)
    return np.concatenate([np.asarray(part.data) for part in parts])


def least(value: int) -> int:
    """Returns the smallest of what the processes give, the same in each: what all of them have room for.

    Raises:
        OSError: if another process failed in the block of `together` that this is asked in.
    """
    return min(each(value))


def each(value: int) -> list[int]:
    """Returns what each process gives, in their order.

    Raises:
        OSError: as `least`.
    """
    if jax.process_count() == 1:
        return [value]
    failures, values = _gathered(False, value)
    if failures.size:
        raise _OthersFailed(failures)
    return values.tolist()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Ends a block on all processes alike: where it fails on one, it fails on every one.

    To be used around what one process may fail to do alone, such as writing, for otherwise the
    others would wait for it at their next collective. All processes come here, as to a barrier,
    and none leaves before all have finished the block. The only collectives in it are `least` and
    `each`, which notice a failure too, and blocks like this one.

    Raises:
        OSError: where the block went well, if it failed on another process; names which.
    """
    try:
        yield
    except _OthersFailed as error:
        # `each` met the failure: the processes know of it already.
        raise OSError(*error.args) from None
    except BaseException:
        if jax.process_count() > 1:
            _gathered(True, 0)
        raise
    if jax.process_count() > 1:
        failures, _ = _gathered(False, 0)
        if failures.size:
            raise OSError(*_OthersFailed(failures).args)


class _OthersFailed(OSError):
    """What `each` raises in a block that failed on other processes."""

    def __init__(self, failures: np.ndarray):
        places = ", ".join(map(str, failures))
        super().__init__(f"process {places} failed, and says why; this one ends with it")


def _gathered(failed: bool, value: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of the processes that failed and the values of all, the same in each.

    One form for `each` and `together`: a process that failed meets the others wherever they are.
    """
    # As bytes: JAX would cut 64-bit integers to 32.
    given = np.frombuffer(np.array([failed, value], np.int64).tobytes(), np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(given), np.uint8)
    numbers = gathered.reshape(-1, 16).copy().view(np.int64)
    return np.flatnonzero(numbers[:, 0]), numbers[:, 1]


class StreamedStep:
    """One update a dispatch, on batches that come from the host.

    `step(state, step.place(batch))` returns the next state and metrics, left on the device.
    """

    def __init__(
        self,
        make_step: Callable[..., Callable],
        mesh: Mesh,
        mode: str = "jit",
        compilation: Compilation = PLAIN,
    ):
        """Prepares the program; nothing is compiled yet.

        Args:
            make_step: called with `axis_name=None` (jit sees global arrays) or `axis_name="data"`
                (pmap: the step reduces over devices itself), returns the pure step.
            mesh: the devices.
            mode: "jit" (`NamedSharding`, state donated) or "pmap", a thin wrapper around the same
                step (its state is not donated: replicated arguments of `pmap` cannot be).
            compilation: of the program.

        Raises:
            InputError: if `mode` is neither, or "pmap" among several processes.
        """
        check_mode(mode)
        self._mesh, self._mode = mesh, mode
        self._program: Callable | None = None
        whole = replicated(mesh)
        if mode == "jit":
            self._step = compilation.jit(
                make_step(axis_name=None),
                in_shardings=(whole, batch_sharding(mesh)),
                out_shardings=(whole, whole),
                donate_argnums=0,
            )
        else:
            self._step = compilation.pmap(
                make_step(axis_name=AXIS),
                axis_name=AXIS,
                in_axes=(None, 0),
                out_axes=(None, None),
                devices=list(mesh.devices.flat),
            )

    def lower(self, state: Any, batch: dict[str, Any]) -> Any:
        """Returns the lowered program, for `Compilation.compile`, which need not wait for the data.

        Args:
            state: of arrays or `jax.ShapeDtypeStruct`.
            batch: the global batch, of arrays or shapes.
        """
        if self._mode == "pmap":
            batch = jax.eval_shape(lambda rows: jax.tree.map(self._split_rows, rows), batch)
        return self._step.lower(state, batch)

    def use(self, program: Any) -> None:
        """Takes the compiled form of what `lower` returned."""
        self._program = program

    def place(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Returns this process's rows of a host batch on the devices; the transfer continues in the background."""
        if self._mode == "jit":
            return global_batch(self._mesh, batch)
        return jax.tree.map(self._split_rows, batch)

    def __call__(self, state: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, jax.Array]]:
        """Runs one update on a placed batch."""
        return (self._program or self._step)(state, batch)

    def _split_rows(self, rows: Any) -> Any:
        return rows.reshape(self._mesh.size, -1, *rows.shape[1:])


class EvalStep:
    """A compiled `step(params, batch_stats, host batch) -> outputs`.

    Outputs are whole on every device or, with `split`, split over the devices by rows.
    """

    def __init__(
        self, eval_step: Callable, mesh: Mesh, compilation: Compilation = PLAIN, split: bool = False
    ):
        """Prepares the step; nothing is compiled yet."""
        self._mesh, self._compilation = mesh, compilation
        whole = replicated(mesh)
        self._step = compilation.jit(
            eval_step,
            in_shardings=(whole, whole, batch_sharding(mesh)),
            out_shardings=batch_sharding(mesh) if split else whole,
        )
        self._programs: dict[Any, Any] = {}

    def compiled(self, params: Any, batch_stats: Any, batch: dict[str, Any]) -> Any:
        """Returns the program for batches of these shapes, compiled once and used by later calls.

        Args:
            params: of arrays or `jax.ShapeDtypeStruct`.
            batch_stats: likewise.
            batch: the global batch, likewise.
        """
        key = _shapes_of(batch)
        if key not in self._programs:
            arguments = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                (params, batch_stats, batch),
            )
            self._programs[key] = self._compilation.compile(self._step.lower(*arguments))
        return self._programs[key]

    def __call__(self, params: Any, batch_stats: Any, batch: dict[str, np.ndarray]) -> Any:
        """Runs the step on this process's rows of a batch."""
        placed = global_batch(self._mesh, batch)
        program = self._programs.get(_shapes_of(placed))
        if program is None:
            return self._step(params, batch_stats, placed)
        params, batch_stats = put_whole(self._mesh, (params, batch_stats))
        return program(params, batch_stats, placed)


def compile_eval_step(
    eval_step: Callable, mesh: Mesh, compilation: Compilation = PLAIN, split: bool = False
) -> EvalStep:
    """Returns the compiled form of `(params, batch_stats, batch) -> outputs`; see `EvalStep`."""
    return EvalStep(eval_step, mesh, compilation, split)


def _shapes_of(batch: dict[str, Any]) -> tuple[Any, ...]:
    return tuple((name, tuple(leaf.shape), str(leaf.dtype)) for name, leaf in sorted(batch.items()))
