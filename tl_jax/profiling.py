"""Where the time of a compiled program goes, against what the device was measured to reach.

FLOPs are counted by `flops`. Bytes are those that XLA's cost analysis counts in the compiled program, on one device,
and 0 where it says nothing; they count every operand and result of every fusion, so that what stays in a CPU's caches
counts like what does not.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from tl_jax import flops
from tl_jax.compilation import PLAIN, Compilation

# Large enough to fill the device, small enough to take a moment: side of the matrices, elements copied.
_SIDES = {"cpu": 1536, "gpu": 8192, "tpu": 8192}
_ELEMENTS = {"cpu": 2**25, "gpu": 2**28, "tpu": 2**28}


@dataclasses.dataclass(frozen=True)
class Measured:
    """A compiled program that was run.

    Attributes:
        seconds: the median of the calls.
        flops: of one call, on one device.
        bytes: likewise, that its parts read and write.
    """

    seconds: float
    flops: float
    bytes: float

    def beyond(self, earlier: "Measured") -> "Measured":
        """Returns what this program takes beyond one that it contains."""
        return Measured(
            self.seconds - earlier.seconds, self.flops - earlier.flops, self.bytes - earlier.bytes
        )


def measure(
    function: Callable, *args: Any, seconds: float = 2.0, compilation: Compilation = PLAIN
) -> Measured:
    """Compiles `function`, calls it for about so long (three times at least), and returns the figures."""
    traced = compilation.jit(function).trace(*args)
    compiled = traced.lower().compile()
    arrays = [leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array)]
    devices = max((len(array.sharding.device_set) for array in arrays), default=1)
    return Measured(
        time_call(lambda: compiled(*args), seconds),
        flops.count(traced.jaxpr) / devices,
        (compiled.cost_analysis() or {}).get("bytes accessed", 0.0),
    )


def time_call(call: Callable[[], Any], seconds: float = 2.0) -> float:
    """Returns the median seconds of a call, its result waited for, after one that does not count."""
    jax.block_until_ready(call())
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_rate(dtype: DTypeLike = jnp.float32, seconds: float = 2.0) -> float:
    """Returns the FLOP/s of a product of two square matrices, at JAX's default precision for `dtype`."""
    side = _SIDES.get(jax.default_backend(), 4096)
    left, right = (
        jax.random.normal(jax.random.key(seed), (side, side)).astype(dtype) for seed in (0, 1)
    )
    product = jax.jit(jnp.matmul)
    return 2 * side**3 / time_call(lambda: product(left, right), seconds)


def copy_rate(seconds: float = 2.0) -> float:
    """Returns the bytes/s, read and written, of scaling an array far larger than a CPU's caches."""
    size = _ELEMENTS.get(jax.default_backend(), 2**26)
    values = jnp.ones(size, jnp.float32)
    scale = jax.jit(lambda values: values * 1.5)
    return 2 * values.nbytes / time_call(lambda: scale(values), seconds)


def table(
    programs: Mapping[str, Measured], flop_rate: float, byte_rate: float
) -> list[dict[str, Any]]:
    """Returns a row for each part of a step, and one for the whole.

    Args:
        programs: by part, each containing the one before it, the last one the whole step. A part's
            figures are the difference: parts that the compiler merges are told apart only so far, and a
            part that costs nothing can come out slightly below zero.
        flop_rate: what the device reaches in matrix products, FLOP/s.
        byte_rate: what it reaches in copies, bytes/s.

    Example:
        >>> table({"forward": Measured(1.0, 6.0, 2.0)}, 12.0, 4.0)[-1]["of_matrix_rate"]
        0.5
    """
    names = list(programs)
    whole = programs[names[-1]]
    parts = {
        name: programs[name].beyond(programs[names[place - 1]]) if place else programs[name]
        for place, name in enumerate(names)
    }
    return [
        {
            "part": name,
            "milliseconds": 1e3 * part.seconds,
            "share": part.seconds / whole.seconds,
            "gflop": part.flops / 1e9,
            "gflop_per_second": part.flops / part.seconds / 1e9 if part.seconds > 0 else None,
            "of_matrix_rate": part.flops / part.seconds / flop_rate if part.seconds > 0 else None,
            "gigabytes": part.bytes / 1e9,
            "of_copy_rate": part.bytes / part.seconds / byte_rate if part.seconds > 0 else None,
        }
        for name, part in {**parts, "step": whole}.items()
    ]
