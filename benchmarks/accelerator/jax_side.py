"""What the process of JAX answers: this library's steps as runs make them, checks, and whole runs."""

import contextlib
import dataclasses
import functools
import importlib
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks import record, throughput_sides
from benchmarks.accelerator.prepared import IMAGES, Prepared, first_losses, weights_file
from benchmarks.networks import Network
from tl_jax import compilation, compiler_options, flops, models, porting, profiling
from tl_jax.models import cpu
from tl_jax.parallel import sharding
from tl_jax.parallel.device_dataset import ResidentStep


def commands(scratch: pathlib.Path, began: float) -> dict[str, Callable[..., Any]]:
    """Returns the commands by name.

    Args:
        scratch: a folder that the processes share.
        began: when this process did, on the clock of `time.perf_counter`.
    """
    prepared = Prepared()
    return {
        "describe": describe,
        "options": options,
        "rates": rates,
        "prepare": functools.partial(prepare, prepared, scratch),
        "turn": prepared.turn,
        "drop": prepared.drop,
        "reference": _later("jax_checks", "reference"),
        "reference_training": _later("jax_checks", "reference_training"),
        "scan_equals_step": _later("jax_checks", "scan_equals_step"),
        "resumed_bits": _later("jax_checks", "resumed_bits", scratch),
        "linear_probe": _later("jax_runs", "linear_probe", scratch),
        "fine_tune": _later("jax_runs", "fine_tune", scratch, began),
        "sweep": _later("jax_runs", "sweep", scratch),
        "stem_channels": _later("jax_parts", "stem_channels"),
    }


def _later(module: str, name: str, *given: Any) -> Callable[..., Any]:
    """Returns a function of another module, imported when called: a package it misses fails its rows alone."""

    def call(**arguments: Any) -> Any:
        found = importlib.import_module(f"benchmarks.accelerator.{module}")
        return getattr(found, name)(*given, **arguments)

    return call


def describe() -> dict[str, Any]:
    """Returns device, versions, memory and the sets of compiler options."""
    facts = record.facts_of_environment()
    return {
        "device": facts["device"],
        "versions": facts["versions"],
        "memory": memory_in_use(),
        "option_sets": option_sets(),
    }


def option_sets() -> dict[str, Any]:
    """Returns the sets of compiler options for this platform, {"sets": {name: {option: value}}, "chosen": {...}}."""
    platform = jax.default_backend()
    sets = compiler_options.SETS.get(platform, {})
    if not sets:
        return {"not_run": f"no option sets for {platform}"}
    return {
        "sets": {name: dict(of) for name, of in sets.items()},
        "chosen": dict(compiler_options.chosen(platform)),
    }


def options() -> dict[str, Any]:
    """Returns what this compiler refuses of each set, with its messages."""
    found = option_sets()
    if "sets" not in found:
        return found
    refused = {name: compiler_options.refused(of) for name, of in found["sets"].items()}
    accepted = {name: sorted(set(of) - set(refused[name])) for name, of in found["sets"].items()}
    return {**found, "accepted": accepted, "refused": refused}


def rates(seconds: float) -> dict[str, float]:
    """Returns what the device reaches: FLOP/s of products of matrices, bytes/s of copies."""
    return {
        **{
            f"{dtype}_flop": profiling.matrix_rate(dtype, seconds)
            for dtype in ("float32", "bfloat16")
        },
        "copied_bytes": profiling.copy_rate(seconds),
    }


def memory_in_use() -> dict[str, int]:
    """Returns what the device says of its memory, in bytes; empty where it says nothing.

    The peak is that of this process so far, rows before this one included; see `program_bytes` for one program's.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    names = ("bytes_in_use", "peak_bytes_in_use", "bytes_limit", "largest_free_block_bytes")
    return {name: int(stats[name]) for name in names if name in stats}


@contextlib.contextmanager
def precision_of(precision: str):
    """Traces inside compute products at this precision; yields the dtype of the computation."""
    if precision == "highest":
        with jax.default_matmul_precision("highest"):
            yield "float32"
    else:
        yield precision


def prepare(
    prepared: Prepared,
    scratch: pathlib.Path,
    label: str,
    network: dict[str, Any],
    mode: str,
    batch_size: int,
    **settings: Any,
) -> dict[str, Any]:
    """Compiles the steps of a row, makes the first, and returns outputs, times and memory.

    The first to measure a network leaves its weights in `scratch`, from which the other processes start.

    Args:
        prepared: keeps the side.
        scratch: folder that the processes share.
        label: of the side.
        network: fields of a `Network`.
        mode: of `networks.MODES`.
        batch_size: B.
        **settings: `precision`; `updates` in a dispatch; `compiler_options`.
    """
    described = Network(**network)
    variables = throughput_sides.random_variables(described)
    share_weights(scratch, described, variables)
    batch = throughput_sides.random_batch(described, batch_size)
    began = time.perf_counter()
    precision = settings.get("precision", "float32")
    dtype = "float32" if precision == "highest" else precision
    make = _inference if mode == "forward" else _training(mode, settings.get("updates", 1))
    made = make(described, variables, batch, dtype, compiled_as(**settings))
    outputs = made.outputs()
    made.wait()
    seconds = time.perf_counter() - began
    prepared.keep(label, made)
    return {
        "outputs": outputs,
        "compile_seconds": made.compile_seconds,
        "seconds_to_first_step": seconds,
        "images_per_step": made.images,
        "flops_per_step": made.flops,
        "program_bytes": program_bytes(made.program),
        "memory": memory_in_use(),
    }


@dataclasses.dataclass
class Compiled:
    """Steps that can be timed.

    Attributes:
        step: begins one; returns losses [U], or logits.
        held: the state, or the logits, that the last step left, in a list of one.
        program: compiled.
        images: of a step.
        flops: of a step.
        compile_seconds: tracing, lowering and compiling.
    """

    step: Callable[[], jax.Array]
    held: list[Any]
    program: Any
    images: int
    flops: float
    compile_seconds: float
    is_forward: bool = False

    def wait(self) -> None:
        """Returns when all steps that were begun are done."""
        jax.block_until_ready(self.held[0])

    def outputs(self) -> list[float]:
        """Returns what sides are compared by, having made steps."""
        if self.is_forward:
            return np.asarray(self.step(), np.float32)[:IMAGES].reshape(-1).tolist()
        return first_losses(self, lambda losses: np.asarray(losses, np.float32).tolist())


def compiled_as(
    precision: str = "default",
    compiler_options: Mapping[str, Any] | None = None,
    **_: Any,
) -> compilation.Compilation:
    """Returns how runs compile their programs on this platform, with more options where some are given."""
    products = "highest" if precision == "highest" else "default"
    made = compilation.make(jax.default_backend(), products, deterministic=False)
    return dataclasses.replace(made, options={**made.options, **(compiler_options or {})})


def _inference(network, variables, batch, dtype, how: compilation.Compilation) -> Compiled:
    began = time.perf_counter()
    infer = throughput_sides.make_inference(network, dtype)
    arguments = (
        *throughput_sides.copied(variables),
        jax.device_put(batch["image"], jax.devices()[0]),
    )
    traced = how.jit(infer).trace(*arguments)
    program = how.compile(traced.lower())
    seconds = time.perf_counter() - began
    held: list[Any] = [None]

    def step():
        held[0] = program(*arguments)
        return held[0]

    counted = flops.count(traced.jaxpr)
    return Compiled(step, held, program, len(batch["image"]), counted, seconds, is_forward=True)


def _training(mode: str, updates: int) -> Callable[..., Compiled]:
    def make(network, variables, batch, dtype, how: compilation.Compilation) -> Compiled:
        began = time.perf_counter()
        training = throughput_sides.make_training(network, mode, variables, dtype)
        images, labels = batch["image"], batch["label"]
        step, state = resident(training, how, images.shape[1:])
        counted = flops.count(step.trace(state, 1, len(images), images, labels).jaxpr)
        program = how.compile(step.trace(state, updates, len(images), images, labels).lower())
        step.use(updates, program)
        seconds = time.perf_counter() - began
        step.put(images, labels)
        rows = np.tile(np.arange(len(images), dtype=np.int32), (updates, 1))
        held = [state]

        def update():
            held[0], measured = step(held[0], rows)
            return measured["loss"]

        return Compiled(update, held, program, updates * len(images), updates * counted, seconds)

    return make


def resident(
    training: throughput_sides.Training, how: compilation.Compilation, shape: tuple[int, ...]
) -> tuple[ResidentStep, Any]:
    """Returns the step on images of `shape` stored on the first device, as runs make it, and the state there."""
    mesh = sharding.make_mesh(1)
    platform = jax.default_backend()
    step = ResidentStep(
        training.step,
        mesh,
        "replicated",
        shape=shape,
        one_by_one=cpu.slow_in_loops(
            training.frozen_mask,
            grouped=models.own_convolutions(training.model),
            platform=platform,
        ),
        fewer=platform != "cpu",
        compilation=how,
    )
    return step, sharding.replicate(mesh, training.state)


def share_weights(scratch: pathlib.Path, network: Network, variables: dict[str, Any]) -> None:
    """Leaves weights for the other processes, under PyTorch's names."""
    path = weights_file(scratch, network)
    if not path.exists():
        naming = "cifar" if network.model.endswith("_cifar") else "torchvision"
        porting.save_state_dict(path, porting.export_state_dict(variables, naming=naming))


def program_bytes(program: Any) -> dict[str, int]:
    """Returns the memory of a compiled program; empty where the compiler does not say."""
    analysis = program.memory_analysis()
    names = ("temp", "argument", "output", "alias")
    found = {name: getattr(analysis, f"{name}_size_in_bytes", None) for name in names}
    return {name: int(size) for name, size in found.items() if size is not None}
