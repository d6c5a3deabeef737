"""Whole passes over splits with one compiled evaluation step."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Self

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
from tl_jax.training.busy_time import BusyTime
from tl_jax.training.stored_splits import StoredSplits, make_pass

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
        eval_step = steps.make_eval_step(forward, transform)
        self._step = sharding.compile_eval_step(eval_step, mesh, compilation)
        self._compilation = compilation
        self._counting_step = steps.make_counting_step(eval_step)
        self._stored: StoredSplits | None = None
        self._at_once = False
        self._programs: dict[tuple[int, int], Any] = {}
        self._passes: dict[tuple[Any, ...], Pass] = {}
        # Values of an image as the network sees it.
        self._pixels: dict[jax.ShapeDtypeStruct, int] = {}
        self._busy: BusyTime | None = None

    def watched(self, busy: BusyTime) -> Self:
        """Returns this evaluator, its programs shared, whose passes count in `busy`."""
        evaluator = copy.copy(self)
        evaluator._busy = busy
        return evaluator

    def store(self, splits: Sequence[Split], layout: str, *, at_once: bool) -> int:
        """Keeps splits on the devices from their first pass on; returns the bytes that they take on each.

        Their passes then are programs that the host only starts: it sends which rows, once, and receives sums.

        Args:
            splits: in memory, of one shape and type; none: those that were kept no longer are.
            layout: of their images, one of `placement.LAYOUTS`.
            at_once: whether a program loops over the batches; else it makes one, for what a compiler runs
                slower inside a loop.
        """
        # Phases share an evaluator, and what is placed on the devices.
        if not splits:
            if self._stored is not None:
                self._stored, self._programs, self._passes = None, {}, {}
            return 0
        stored = StoredSplits(splits, self._mesh, layout)
        if self._stored is None or not self._stored.equals(stored) or self._at_once != at_once:
            self._stored, self._at_once, self._programs, self._passes = stored, at_once, {}, {}
        return self._stored.num_bytes

    def own_rows(self, split: Split) -> np.ndarray:
        """Returns which images of a split this process reads: int64, of one that is not stored all."""
        if self._is_stored(split):
            return self._stored_splits.own_rows(split)
        return np.arange(len(split))

    def __call__(
        self, params: dict[str, Any], batch_stats: dict[str, Any], split: Split
    ) -> tuple[dict[str, float], np.ndarray]:
        """Returns the metrics of `split` and its logits, float32 [N, K].

        The metrics are those of `metrics.finalize` and `metrics.class_averages`.

        Raises:
            InputError: if the devices have no room for a batch of one row each.
        """
        if self._is_stored(split):
            measured, parts = self._pass_over_stored(params, batch_stats, split)
            return measured, evaluation.together(parts, len(split))
        size = self._fitted(params, batch_stats, split, None).rows
        rows = sharding.local_rows(self._mesh, size)
        batches = stream.eval_batches(split, size, rows, workers=self._workers)
        step = self._watched(self._step)
        measured, logits = evaluation.evaluate(step, params, batch_stats, batches, len(split))
        predicted = metrics.predictions(logits)
        averages = metrics.class_averages(split.labels, predicted, logits.shape[-1])
        return {**measured, **averages}, logits

    def measure(
        self, params: dict[str, Any], batch_stats: dict[str, Any], split: Split
    ) -> dict[str, float]:
        """Returns the metrics of `split` alone: of one that is stored on the devices no logits are fetched."""
        if self._is_stored(split):
            return self._pass_over_stored(params, batch_stats, split)[0]
        return self(params, batch_stats, split)[0]

    def _pass_over_stored(
        self, params: dict[str, Any], batch_stats: dict[str, Any], split: Split
    ) -> tuple[dict[str, float], list[jax.Array]]:
        """Returns the metrics of a stored split, and its logits on the devices, padded at the end."""
        rows = self._fitted(params, batch_stats, split, None).rows
        of_a_call = rows * self._batches(split, rows)
        program = self._watched(self._program(params, batch_stats, split, rows))
        params, batch_stats = sharding.put_whole(self._mesh, (params, batch_stats))
        first, end = self._stored_splits.span(split)
        sums, logits = [], []
        for start in range(first, end, of_a_call):
            span = self._stored_splits.placed_span(start, end)
            part = program(params, batch_stats, *self._stored_splits.arrays, span)
            sums.append(part[0])
            logits.append(part[1])
        batches = -(-len(split) // rows)  # those beyond have no example
        stacked = jax.tree.map(
            lambda *parts: np.concatenate(parts)[:batches], *jax.device_get(sums)
        )
        hits, predicted = (stacked.pop(name).sum(0) for name in ("hits", "predicted"))
        averages = metrics.averages_of_counts(hits, predicted, split.labels)
        return {**evaluation.measured(stacked, len(split)), **averages}, logits

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a call that counts in the busy time, where there is one: once its sums are there."""
        return call if self._busy is None else self._busy.watch(call, lambda found: found[0])

    def _is_stored(self, split: Split) -> bool:
        return self._stored is not None and split in self._stored

    @property
    def _stored_splits(self) -> StoredSplits:
        assert self._stored is not None
        return self._stored

    def _batches(self, split: Split, rows: int) -> int:
        """Returns the batches of one program: splits whose batches are alike share it."""
        if not self._at_once:
            return 1
        alike = [one for one in self._stored_splits.splits if self.rows(one) == self.rows(split)]
        return min(-(-len(one) // rows) for one in alike)

    def _program(self, params: Any, batch_stats: Any, split: Split, rows: int) -> Any:
        """Returns the compiled pass over stored splits in batches of `rows`."""
        key = (rows, self._batches(split, rows))
        if key not in self._programs:
            whole = sharding.replicated(self._mesh)
            stored = self._stored_splits
            images = whole if stored.layout == "replicated" else sharding.batch_sharding(self._mesh)
            program = self._compilation.jit(
                make_pass(self._counting_step, stored, self._mesh, *key),
                in_shardings=(whole, whole, images, whole, whole),
                out_shardings=whole,
            )
            shapes = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (params, batch_stats)
            )
            span = jax.ShapeDtypeStruct((2,), jnp.int32)
            lowered = program.lower(*shapes, *stored.shapes, span)
            self._programs[key] = self._compilation.compile(lowered)
        return self._programs[key]

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
        workspace = memory.Item(
            f"evaluation: {fitted.rows} images at once, activations and workspace",
            fitted.bytes,
            "device",
            _PHASE,
        )
        if self._is_stored(split):
            program = self._program(params, batch_stats, split, fitted.rows)
            calls = -(-len(split) // (fitted.rows * self._batches(split, fitted.rows)))
            return [
                workspace,
                memory.Item(
                    "evaluation: logits",
                    calls * memory.tree_bytes(program.out_info),
                    "device",
                    _PHASE,
                ),
                memory.Item(
                    "evaluation: images, copied", self._stored_splits.host_bytes, "host", _PHASE
                ),
            ]
        batches = -(-len(split) // fitted.rows)
        on_device = min(batches, evaluation.BATCHES_IN_FLIGHT + 1)
        made = stream.AHEAD + 1
        if self._workers and isinstance(split, LazySplit):
            made *= self._workers
        share = fitted.rows * _row_bytes(split)
        return [
            workspace,
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
        stored = self._is_stored(split)
        key = (rows, tuple(split.image_shape), split.dtype, stored)

        def compiled(rows: int) -> Any:
            if stored:
                return self._program(params, batch_stats, split, rows)
            return self._step.compiled(params, batch_stats, _batch(split, rows))

        if key not in self._passes:
            if room is None:
                room = sharding.least(memory.available(jax.local_devices()[0]))
            self._passes[key] = fit(compiled, rows, self._mesh.size, room, "evaluation")
        return self._passes[key]

    def _whole(self, rows: int) -> int:
        return -(-rows // self._mesh.size) * self._mesh.size

    def _most(self, split: Split) -> int:
        """Returns the rows whose pixels or activations are `BATCH_BYTES` on each device."""
        image = jax.ShapeDtypeStruct((1, *split.image_shape), split.dtype)
        if image not in self._pixels:
            self._pixels[image] = int(np.prod(jax.eval_shape(self._transform, image).shape))
        pixels = 0 if isinstance(split, ActivationSplit) else self._pixels[image]
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
