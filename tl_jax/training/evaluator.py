"""Whole passes over splits with one compiled evaluation step."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax.compilation import PLAIN, Compilation
from tl_jax.data import Split, stream
from tl_jax.data.records import LazySplit
from tl_jax.errors import InputError
from tl_jax.features import ActivationSplit
from tl_jax.parallel import memory, sharding
from tl_jax.training import evaluation, metrics, steps

# Bytes of the pixels, or activations, of a batch on one device.
BATCH_BYTES = 32 << 20
# Of the memory that is left on a device, what a batch may take before it is made smaller.
_SHARE = 0.5
_PHASE = "evaluation"
# What XLA says where determinism is asked for and not to be had (google/flax issue 4233).
_NO_KERNEL = "does not have a deterministic implementation"


@dataclasses.dataclass(frozen=True)
class Pass:
    """How a split is read.

    Attributes:
        rows: of a batch.
        bytes: that the compiled step takes on a device for one, beside its arguments.
    """

    rows: int
    bytes: int


class Evaluator:
    """Evaluates variables of one model on any split; compiled once for each shape of its inputs.

    A batch has at most `batch_size` rows, no more than the split has, and no more than make
    `BATCH_BYTES` on a device: of the uint8 pixels as they are stored or as the network sees them,
    whichever are more, or of the activations. All that is rounded up to a multiple of the devices. Where the
    compiled step then takes more than half of the memory that a device has left, batches are made smaller
    still. The last batch is padded and the padding masked, so that every example counts once; the
    size of batches changes no result beyond the rounding of float32 sums.

    Attributes:
        batch_size: global, a multiple of the devices.
    """

    def __init__(
        self,
        forward: Callable,
        transform: Callable[[jax.Array], jax.Array],
        mesh: jax.sharding.Mesh,
        batch_size: int,
        workers: int = 0,
        compilation: Compilation = PLAIN,
    ):
        """Prepares the step; nothing is compiled yet.

        Args:
            forward: of the network, or of the part after a boundary.
            transform: from what the split holds to what `forward` takes.
            mesh: the devices.
            batch_size: global, rounded up to the devices.
            workers: processes that decode splits larger than memory; 0 for threads.
            compilation: of the step.

        Raises:
            InputError: if `batch_size` is below 1.
        """
        if batch_size < 1:
            raise InputError(f"data.eval_batch_size={batch_size}: expected at least 1")
        self._mesh = mesh
        self._workers = workers
        self._transform = transform
        self.batch_size = self._whole(batch_size)
        self._step = sharding.compile_eval_step(
            steps.make_eval_step(forward, transform), mesh, compilation
        )
        self._passes: dict[tuple[Any, ...], Pass] = {}

    def __call__(
        self, params: dict[str, Any], batch_stats: dict[str, Any], split: Split
    ) -> tuple[dict[str, float], np.ndarray]:
        """Returns the metrics of `split` and its logits, float32 [N, K].

        The metrics are those of `metrics.finalize` and `metrics.class_averages`.

        Raises:
            InputError: if the devices have no room for a batch of one row each.
        """
        size = self._fitted(params, batch_stats, split, None).rows
        rows = sharding.local_rows(self._mesh, size)
        batches = stream.eval_batches(split, size, rows, workers=self._workers)
        measured, logits = evaluation.evaluate(self._step, params, batch_stats, batches, len(split))
        predicted = metrics.predictions(logits)
        averages = metrics.class_averages(split.labels, predicted, logits.shape[-1])
        return {**measured, **averages}, logits

    def rows(self, split: Split) -> int:
        """Returns the rows of a batch of `split`, before it is known what the compiled step takes."""
        return min(self.batch_size, self._whole(len(split)), self._most(split))

    def memory_items(
        self, params: dict[str, Any], batch_stats: dict[str, Any], split: Split, room: int | None
    ) -> list[memory.Item]:
        """Returns the rows of a memory plan for a pass over `split`, which then runs as planned.

        The step is compiled for it, from shapes.

        Args:
            params: of arrays or `jax.ShapeDtypeStruct`.
            batch_stats: likewise.
            split: of which the shape counts; nothing is read.
            room: bytes that are left on a device, the same in every process; None: ask it.

        Raises:
            InputError: if the devices have no room for a batch of one row each.
        """
        fitted = self._fitted(params, batch_stats, split, room)
        batches = -(-len(split) // fitted.rows)
        on_device = min(batches, evaluation.BATCHES_IN_FLIGHT + 1)
        made = stream.AHEAD + 1
        if self._workers and isinstance(split, LazySplit):
            made *= self._workers
        share = fitted.rows * _row_bytes(split)
        return [
            memory.Item(
                f"evaluation: {fitted.rows} images at once, activations and workspace",
                fitted.bytes,
                "device",
                _PHASE,
            ),
            memory.Item(
                "evaluation: batches", on_device * share // self._mesh.size, "device", _PHASE
            ),
            memory.Item(
                "evaluation: batches read ahead",
                min(batches, made + 1) * share // jax.process_count(),
                "host",
                _PHASE,
            ),
            memory.Item(
                "evaluation: decoding",
                split.decoding_bytes if isinstance(split, LazySplit) else 0,
                "host",
                _PHASE,
            ),
        ]

    def _fitted(self, params: Any, batch_stats: Any, split: Split, room: int | None) -> Pass:
        rows = self.rows(split)
        key = (rows, tuple(split.image_shape), split.dtype)
        if key not in self._passes:
            if room is None:
                room = sharding.least(memory.available(jax.local_devices()[0]))
            self._passes[key] = fit(
                lambda rows: self._step.compiled(params, batch_stats, _batch(split, rows)),
                rows,
                self._mesh.size,
                room,
                "evaluation",
            )
        return self._passes[key]

    def _whole(self, rows: int) -> int:
        return -(-rows // self._mesh.size) * self._mesh.size

    def _most(self, split: Split) -> int:
        """Returns the rows whose pixels or activations are `BATCH_BYTES` on each device."""
        one = {"image": jax.ShapeDtypeStruct((1, *split.image_shape), split.dtype)}
        seen = jax.eval_shape(self._transform, one["image"])
        pixels = 0 if isinstance(split, ActivationSplit) else int(np.prod(seen.shape))
        return self._mesh.size * max(1, BATCH_BYTES // max(_row_bytes(split), pixels))


def fit(compiled: Callable[[int], Any], rows: int, devices: int, room: int, what: str) -> Pass:
    """Returns the most rows, up to those given, of which the compiled step takes half of the room.

    Where not even one row on each device takes so little, all of the room is for it.

    Args:
        compiled: from rows to the compiled step.
        rows: a multiple of the devices.
        devices: their number.
        room: bytes that are left on a device, the same in every process; 0 where it does not say: it is
            taken to have enough.
        what: how a message calls the step.

    Raises:
        InputError: if there is no room for one row on each device, or the compiler finds none for `rows`.
    """
    while True:
        program = compile_or_refuse(
            functools.partial(compiled, rows),
            f"{what} of {rows} images at once",
            "data.image_size or data.eval_batch_size",
        )
        needed = memory.temporary_bytes(program)
        if not room or needed <= _SHARE * room or (rows == devices and needed <= room):
            return Pass(rows, needed)
        if rows == devices:
            raise InputError(
                f"{what} of one image needs {memory.format_bytes(needed)} of a device that has "
                f"{memory.format_bytes(room)} left; expected a smaller data.image_size"
            )
        fewer = int(rows * _SHARE * room / needed) // devices * devices
        rows = max(devices, min(fewer, rows - devices))


def compile_or_refuse(compiled: Callable[[], Any], what: str, fields: str) -> Any:
    """Returns `compiled()`; where the compiler finds no room for what it is, or no deterministic kernel, says so.

    Raises:
        InputError: naming `what` and the `fields` that make it smaller, or `train.deterministic`.
    """
    try:
        return compiled()
    except jax.errors.JaxRuntimeError as error:
        if _NO_KERNEL in str(error):
            raise InputError(
                f"train.deterministic=True: {what} has an operation without a deterministic kernel; expected "
                f"False, or another operation ({str(error).splitlines()[0]})"
            ) from error
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            f"{what} does not fit in the memory of the device; expected a smaller {fields} "
            f"({str(error).splitlines()[0]})"
        ) from error


def _batch(split: Split, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    whole = jax.ShapeDtypeStruct((rows,), jnp.int32)
    return {
        "image": jax.ShapeDtypeStruct((rows, *split.image_shape), split.dtype),
        "label": whole,
        "position": whole,
        "index": whole,
        "mask": jax.ShapeDtypeStruct((rows,), jnp.bool_),
    }


def _row_bytes(split: Split) -> int:
    return int(np.prod(split.image_shape)) * split.dtype.itemsize
