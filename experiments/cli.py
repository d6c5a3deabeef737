"""What every command shares: flags, exit codes, several processes, the compilation cache.

Exit codes: 0 done; 2 the user's input is wrong; 75 stopped on request with a checkpoint saved; 1
anything else.
"""

import functools
import os
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from absl import app as absl_app
from absl import flags, logging
from ml_collections import config_flags

from experiments import config_fields
from tl_jax.errors import InputError
from tl_jax.loops import NonFiniteLoss, Stopped

EXIT_INPUT, EXIT_STOPPED, EXIT_FAILURE = 2, 75, 1

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
_CACHE = flags.DEFINE_string(
    "compilation_cache",
    os.environ.get(
        "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache" / "tl_jax" / "xla")
    ),
    "Folder of compiled programs, reused by later runs; empty: none.",
)


# Cached: a process that imports several commands defines the flags they share once.
@functools.cache
def define_config() -> flags.FlagHolder[ml_collections.ConfigDict]:
    """Defines --config, the file of a config whose fields are flags too."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "The experiment, such as configs/quickstart.py; --config.FIELD=VALUE changes it.",
    )


@functools.cache
def define_workdir() -> flags.FlagHolder[str]:
    """Defines --workdir, the run folder."""
    return flags.DEFINE_string("workdir", None, "The run folder: made, or resumed where it exists.")


def required(flag: flags.FlagHolder) -> Any:
    """Returns the value of a flag.

    Raises:
        InputError: if it was not given.
    """
    if not flag.value:
        raise InputError(f"--{flag.name} must be given; --helpfull lists all flags")
    return flag.value


def required_path(flag: flags.FlagHolder[str]) -> pathlib.Path:
    """Returns the path that a flag names; raises InputError if it was not given."""
    return pathlib.Path(required(flag)).expanduser()


class StopRequest:
    """Whether SIGTERM or SIGINT has come; a second one ends the process at once. A context manager."""

    def __init__(self):
        self.requested = False

    def __enter__(self) -> "StopRequest":
        self._before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number, _):
        if self.requested:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.requested = True


STOP = StopRequest()  # of this process; listens while `run` does


def run(main: Callable[[], object]) -> None:
    """Parses the flags, calls `main()` and exits with the code that its outcome stands for."""
    try:
        _parse_flags(sys.argv)
        logging.set_verbosity(logging.WARNING)
        _start_jax()
        with STOP:
            main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    except (NonFiniteLoss, OSError) as error:
        # OSError is a full disk more often than not; its message says what is safe.
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILURE)


def _parse_flags(argv: list[str]) -> None:
    if "config" in flags.FLAGS:
        config_fields.check_arguments(argv)
    absl_app.define_help_flags()
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise InputError(str(error)) from error
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; flags look like --config.seed=1")


def _start_jax() -> None:
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
        # All of them: a start compiles dozens of small programs, 10 to 30 ms each.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    by_hand = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if any(value is not None for value in by_hand):
        if any(value is None for value in by_hand):
            raise InputError("--coordinator, --num_processes and --process_id: give all or none")
        _order_collectives()
        jax.distributed.initialize(*by_hand)
    elif _DISTRIBUTED.value == "on" or (_DISTRIBUTED.value == "auto" and _one_of_several()):
        _order_collectives()
        jax.distributed.initialize()


def _order_collectives() -> None:
    """Keeps the collectives of a program in the same order in every process, on CPUs.

    XLA's default scheduler for CPU optimises for concurrency: all-reduces that do not depend on each other are
    under way together, on one Gloo connection without tags, and meet those of other tensors in the other
    process. Both processes end then ("Received data size doesn't match expected size"): ResNet-20 on two
    processes always, under jaxlib 0.10.2 and 0.12.0; never with this flag. GPUs and TPUs do not read it.
    """
    flag = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    # First, so that a value given by the user counts.
    os.environ["XLA_FLAGS"] = f"{flag} {os.environ.get('XLA_FLAGS', '')}"


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
