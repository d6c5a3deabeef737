"""What the processes of PyTorch answer: its steps, its linear probe, and a network trained from scratch.

What is taken from this library (data sets, names of networks) imports JAX, which is kept to the CPU.
"""

import functools
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import torch
from safetensors.numpy import load_file

from benchmarks import linear_probe_torch, throughput_sides, throughput_torch
from benchmarks.accelerator import airbench, synthetic
from benchmarks.accelerator.prepared import IMAGES, Prepared, first_losses, weights_file
from benchmarks.networks import Network
from tl_jax import data as data_sets


def commands(
    scratch: pathlib.Path, began: float, share: float, compiled: bool
) -> dict[str, Callable[..., Any]]:
    """Returns the commands by name.

    Args:
        scratch: a folder that the processes share.
        began: when this process did, on the clock of `time.perf_counter`.
        share: of the accelerator's memory.
        compiled: whether steps go through `torch.compile`.
    """
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)
    prepared = Prepared()
    return {
        "prepare": functools.partial(prepare, prepared, scratch, compiled),
        "turn": prepared.turn,
        "drop": functools.partial(drop, prepared),
        "linear_probe": linear_probe,
        "airbench": functools.partial(from_scratch, began),
    }


def prepare(
    prepared: Prepared,
    scratch: pathlib.Path,
    compiled: bool,
    label: str,
    network: dict[str, Any],
    mode: str,
    batch_size: int,
    precision: str,
) -> dict[str, Any]:
    """Makes the first steps of a row; returns outputs, times and memory, see `jax_side.prepare`."""
    described = Network(**network)
    weights = weights_file(scratch, described)
    if not weights.exists():
        raise FileNotFoundError(
            "no weights: the process of JAX, which leaves them, did not get so far"
        )
    throughput_torch.configure(os.cpu_count() or 1, tf32=precision != "highest")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    batch = throughput_sides.random_batch(described, batch_size)
    began = time.perf_counter()
    dtype = "float32" if precision == "highest" else precision
    side = throughput_torch.make_with(
        described, mode, load_file(weights), batch, dtype, "default" if compiled else ""
    )
    made = time.perf_counter()
    if mode == "forward":
        outputs = side.step()[:IMAGES].float().cpu().reshape(-1).tolist()
    else:
        outputs = first_losses(side, lambda loss: [float(loss)])
    side.wait()
    seconds = time.perf_counter() - began
    prepared.keep(label, side)
    return {
        "outputs": outputs,
        # The first step compiles; without `torch.compile` it chooses the algorithms of convolutions.
        "compile_seconds": time.perf_counter() - made,
        "seconds_to_first_step": seconds,
        "images_per_step": batch_size,
        "memory": memory_in_use(),
    }


def drop(prepared: Prepared, label: str) -> None:
    """Forgets a side and gives its memory back."""
    prepared.drop(label)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_in_use() -> dict[str, int]:
    """Returns what PyTorch says of the accelerator's memory, in bytes; empty without one."""
    if not torch.cuda.is_available():
        return {}
    return {
        "bytes_in_use": torch.cuda.memory_allocated(),
        "peak_bytes_in_use": torch.cuda.max_memory_allocated(),
        "peak_bytes_reserved": torch.cuda.max_memory_reserved(),
    }


def linear_probe(data: str, data_dir: str, epochs: int, form: str) -> dict[str, Any]:
    """Returns times and accuracies of `linear_probe_torch` on the splits of the probe in JAX."""
    began = time.perf_counter()
    found = linear_probe_torch.probe(_splits(data, data_dir), form, epochs)
    return {**found, "data": data.partition(":")[0], "seconds": time.perf_counter() - began}


def from_scratch(
    began: float, data: str, data_dir: str, epochs: int, batch_size: int
) -> dict[str, Any]:
    """Returns the accuracy of `airbench` on held-out images after each epoch.

    Args:
        began: when this process did, on the clock of `time.perf_counter`.
        data: name of a data set, whose splits are those of `jax_runs.fine_tune`.
        data_dir: of tfds.
        epochs: of training.
        batch_size: B.
    """
    splits = _splits(data, data_dir)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipe = airbench.Recipe(epochs, batch_size, flip=not data.startswith("digits"))
    found = airbench.train(splits, recipe, device, began)
    return {**found, "data": data.partition(":")[0], "batch_size": batch_size, "device": device}


def _splits(data: str, data_dir: str) -> dict[str, Any]:
    synthetic.register()
    selection = data_sets.Selection(validation_fraction=0.1)
    return data_sets.load_splits(data, selection, data_dir=data_dir or None)
