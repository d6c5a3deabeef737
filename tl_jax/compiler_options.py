"""Options of XLA's compiler by platform: which are known, which are in use, which the installed version refuses.

Options are given to each program (`compiler_options` of `jax.jit`), not to the process as `XLA_FLAGS` are: what a
user sets there counts for every option that is not in use here.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Value = bool | int | str

DETERMINISTIC = "deterministic"
# Of `XLA_FLAGS`, for CPUs: keeps the order of a program's operations, and so of its collectives.
ORDERED_FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
# Of `XLA_FLAGS`, those that change no number: when operations run, and on how many simulated devices.
_WITHOUT_EFFECT = (ORDERED_FLAG.partition("=")[0], "--xla_force_host_platform_device_count")
# What XLA records as CUDA graphs by default (`debug_options_flags.cc`).
_RECORDED = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION"

# {platform: {name of a set: {option: value}}}; a name is that of a field of `DebugOptions` in XLA's `xla.proto`.
SETS: dict[str, dict[str, dict[str, Value]]] = {
    "cpu": {},
    "gpu": {
        # The first one implies the second, and turns off autotuning: the kernels chosen are the same in every
        # process. An operation without a deterministic kernel is an error of the compiler.
        # Source: openxla/xla pull requests 12520 (what each does) and 15229 (determinism.md).
        DETERMINISTIC: {
            "xla_gpu_deterministic_ops": True,
            "xla_gpu_exclude_nondeterministic_ops": True,
        },
        # CUDA graphs: by default convolutions and loops are launched one kernel after the other. A loop is recorded
        # where all of its body is, so that it needs convolutions too, and CUDA 12.3.
        # Source: `CommandBufferCmdType` in `xla.proto`, `command_buffer_conversion_pass.cc`.
        "command_buffers": {"xla_gpu_enable_command_buffer": f"{_RECORDED},CONVOLUTION"},
        "command_buffers_and_loops": {
            "xla_gpu_enable_command_buffer": f"{_RECORDED},CONVOLUTION,CONDITIONAL,WHILE"
        },
        # cuDNN's graphs for convolutions and what follows them, in place of fixed patterns.
        # Source: `ConvFusionRewriter` in XLA's `fusion_pipeline.cc`.
        "convolution_fusion": {"xla_gpu_experimental_enable_conv_fusion": True},
        # cuDNN among the candidates for matrix products with element-wise parts, on Hopper and newer; 0, none, is the
        # default.
        # Source: `gemm_fusion_autotuner.cc`.
        "gemm_fusion": {"xla_gpu_cudnn_gemm_fusion_level": 2},
    },
    "tpu": {},
}

# The sets that every run uses.
_IN_USE: dict[str, tuple[str, ...]] = {"cpu": (), "gpu": (), "tpu": ()}


def of_numbers(flags: str) -> str:
    """Returns `XLA_FLAGS` without those that change no number."""
    return " ".join(flag for flag in flags.split() if flag.partition("=")[0] not in _WITHOUT_EFFECT)


def chosen(platform: str, deterministic: bool = False) -> dict[str, Value]:
    """Returns the options that the programs of a run are compiled with; {} on an unknown platform.

    None of the sets that are there for speed: which of them pay is to be measured on a card, and nothing was measured
    yet. Experimental ones can also be wrong for a program that no one tried. On CPUs and TPUs determinism needs no
    option.

    Args:
        platform: of the devices, as `jax.Device.platform` says: "cpu", "gpu" or "tpu".
        deterministic: whether the same program and input must give the same bits, in another process too.

    Example:
        >>> chosen("cpu", deterministic=True)
        {}
    """
    sets = SETS.get(platform, {})
    names = list(_IN_USE.get(platform, ()))
    if deterministic and DETERMINISTIC in sets:
        names.append(DETERMINISTIC)
    return {option: value for name in names for option, value in sets[name].items()}


def persisted_autotuning(folder: pathlib.Path) -> dict[str, Value]:
    """Returns the options with which a GPU's autotuning is read from a folder, and written where it is not there yet.

    A later process then compiles faster, and chooses the same kernels. JAX sets the same options by itself where
    `jax_compilation_cache_dir` is set (`--compilation_cache` of the commands), so that a run needs them only without.

    Args:
        folder: made where missing; one for each version of jaxlib and kind of card, which XLA does not compare.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "xla_gpu_per_fusion_autotune_cache_dir": str(folder),
        "xla_gpu_experimental_autotune_cache_mode": "AUTOTUNE_CACHE_MODE_UPDATE",
    }


def refused(options: Mapping[str, Value]) -> dict[str, str]:
    """Returns what the compiler of the default backend says against each option that it does not take.

    Each is tried alone, on a program of one addition, once a process. A name that is not known is noticed and so is a
    value of another type; an option of another platform is taken, and has no effect.

    Args:
        options: {option: value}.
    """
    messages = {
        option: _message(jax.default_backend(), option, value) for option, value in options.items()
    }
    return {option: message for option, message in messages.items() if message}


@functools.cache
def _message(backend: str, option: str, value: Value) -> str:
    """Returns why an option is refused, in one line; "" where it is taken."""
    lowered: Any = jax.jit(lambda x: x + 1).lower(np.float32(0))
    try:
        lowered.compile(compiler_options={option: value})
    except Exception as error:  # Of a plugin's own type, where there is one.
        return str(error).partition("\n")[0] or type(error).__name__
    return ""
