"""The process of a command: JAX, other processes, the compilation cache, time, requests to stop."""

import os
import pathlib
import re
import signal
import sys
import time

import jax
from absl import flags

from tl_jax.compiler_options import ORDERED_FLAG
from tl_jax.errors import InputError
from tl_jax.runs.stopping import StopRequest

_IMPORTED = time.perf_counter()

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where processes are started by hand."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes, with --coordinator."
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process's number, with --coordinator.")
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "on", "off"],
    "Whether processes find each other through JAX's runtime; auto: on SLURM, TPU pods and Kubernetes.",
)
_VERBOSE = flags.DEFINE_bool(
    "verbose", False, "Prints tables, too, that otherwise are in the run folder and its report."
)
_CACHE = flags.DEFINE_string(
    "compilation_cache",
    os.environ.get(
        "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache" / "tl_jax" / "xla")
    ),
    "Folder of compiled programs, reused by later runs; empty: none.",
)


def level() -> str:
    """Returns how much this process tells: one of several processes tells for all."""
    if jax.distributed.is_initialized() and jax.process_index() > 0:
        return "silent"
    return "verbose" if _VERBOSE.value else "normal"


# Of this process; listens while `run` does. A second signal ends the process at once.
STOP = StopRequest(signal.SIGTERM, signal.SIGINT, raises=False)


def stop_requested() -> bool:
    """Returns whether this process was asked to stop."""
    return STOP.requested


def process_seconds() -> float:
    """Returns the seconds since this process was started, its imports among them."""
    since_import = time.perf_counter() - _IMPORTED
    try:
        stat = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(stat[19]) / os.sysconf("SC_CLK_TCK")
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, ValueError, IndexError):  # No Linux.
        return since_import
    # Some containers do not say when a process started.
    return seconds if 0 < seconds < since_import + 600 else since_import


def start_jax() -> None:
    """Starts JAX as the flags say."""
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
        # All of them: a start compiles dozens of small programs, 10 to 30 ms each.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    by_hand = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if any(value is not None for value in by_hand):
        if any(value is None for value in by_hand):
            raise InputError("--coordinator, --num_processes and --process_id: give all or none")
        if not re.fullmatch(r".+:\d+", _COORDINATOR.value):
            raise InputError(
                f"--coordinator={_COORDINATOR.value}: expected HOST:PORT of the first process, such as node1:2345"
            )
        if not 0 <= _PROCESS_ID.value < _NUM_PROCESSES.value:
            raise InputError(
                f"--process_id={_PROCESS_ID.value} with --num_processes={_NUM_PROCESSES.value}: expected 0 for the "
                f"first process, and each of 0 to {_NUM_PROCESSES.value - 1} once"
            )
        _order_collectives()
        print(
            f"process {_PROCESS_ID.value} of {_NUM_PROCESSES.value}: waiting for the others at "
            f"{_COORDINATOR.value}, five minutes at most",
            file=sys.stderr,
        )
        jax.distributed.initialize(*by_hand)
    elif _DISTRIBUTED.value == "on" or (_DISTRIBUTED.value == "auto" and _one_of_several()):
        _order_collectives()
        jax.distributed.initialize()
    if jax.distributed.is_initialized() and jax.process_index() > 0:
        print(
            f"process {jax.process_index()} of {jax.process_count()}: process 0 says what happens",
            file=sys.stderr,
        )


def leave() -> None:
    """Waits until all processes have come to their end, where there are several.

    The first one holds what connects them: those that still write when it exits would be ended with it. To be called
    only where all have come to the same end; one that failed must not wait for others.
    """
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def _order_collectives() -> None:
    """Keeps the collectives of a program in the same order in every process, on CPUs.

    XLA's default scheduler for CPU optimises for concurrency: all-reduces that do not depend on each other run
    at the same time, on one Gloo connection without tags, and can be paired with those of other tensors in the
    other process. Both processes end then ("Received data size doesn't match expected size"): ResNet-20 on two
    processes of one device did so in seven runs of seven, one under jaxlib 0.10 and six under 0.12, and in no
    run since with this flag. GPUs and TPUs do not read it.
    """
    # First, so that a value given by the user counts.
    os.environ["XLA_FLAGS"] = f"{ORDERED_FLAG} {os.environ.get('XLA_FLAGS', '')}"


def _one_of_several() -> bool:
    """Returns whether the environment says that this is one of several processes of a job.

    SLURM_STEP_NUM_TASKS is that of `srun`; in a batch script that calls no `srun` only SLURM_NTASKS
    speaks of several, and none but this process runs.
    """
    env = os.environ
    slurm = int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    pod = "," in env.get("TPU_WORKER_HOSTNAMES", "") or "," in env.get("TPU_PROCESS_ADDRESSES", "")
    kubernetes = "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env
    return slurm or pod or kubernetes
