"""What every command shares: flags, exit codes, several processes, the compilation cache.

Exit codes: 0 done; 2 the user's input is wrong; 75 stopped on request with a checkpoint saved; 1
anything else.
"""

import functools
import os
import pathlib
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from absl import app as absl_app
from absl import flags, logging
from ml_collections import config_flags

from experiments import config_fields
from tl_jax import errors
from tl_jax.errors import InputError
from tl_jax.loops import NonFiniteLoss, Stopped

EXIT_INPUT, EXIT_STOPPED, EXIT_FAILURE = 2, 75, 1

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
        raise InputError(f"--{flag.name} must be given; --help says how")
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
    if set(sys.argv[1:]) & {"--help", "-help", "--h", "-h", "-?"}:
        print(help_text(main))
        sys.exit(0)
    try:
        _parse_flags(sys.argv)
        logging.set_verbosity(logging.WARNING)
        _start_jax()
        with STOP:
            main()
        if not jax.distributed.is_initialized() or jax.process_index() == 0:
            print(f"{process_seconds():.1f} s in all, from the start of the command")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    except NonFiniteLoss as error:
        print(
            f"error: {error}; try a lower --config.optim.learning_rate, or --config.optim.clip_norm=1",
            file=sys.stderr,
        )
        sys.exit(EXIT_FAILURE)
    except OSError as error:
        # OSError is a full disk more often than not; its message says what is safe.
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILURE)


def help_text(main: Callable[[], object]) -> str:
    """Returns what --help prints: what the command does, its flags and fields of most use, its exit codes."""
    name = pathlib.Path(main.__globals__["__file__"]).stem
    purpose = (main.__globals__["__doc__"] or "").strip().splitlines()[0]
    lines = [f"experiments.{name}: {purpose}", ""]
    if name == "prepare_data":
        rows = _PREPARE_DATA_HELP
        where = "All flags: --helpfull."
    else:
        rows = [("--config=FILE", "the experiment, such as configs/quickstart.py")]
        if name == "evaluate":
            rows.append(("--checkpoint=RUN", "or the folder of a run, which brings its own config"))
        rows.append(("--workdir=DIR", "the run folder: new, or one to resume"))
        rows += [
            (f"--config.{field}", text) for field, text in _HELP_FIELDS.get(name, _FINETUNE_FIELDS)
        ]
        where = "--config.FIELD=VALUE sets any field; configs/base.py lists all of them. All flags: --helpfull."
    width = max(len(flag) for flag, _ in rows)
    lines += [f"  {flag.ljust(width)}  {text}" for flag, text in rows]
    lines += ["", where, _EXIT_CODES]
    return "\n".join(lines)


_DATA_FIELD = ("data.name=folder:photos", "the data; or digits, tfds:NAME, npz:FILE")
_WEIGHTS_FIELD = ("init.weights=resnet18.tv_in1k", "a registered name, a file or a run folder")
_RATE_FIELD = ("optim.learning_rate=0.01", "the peak learning rate")
_FINETUNE_FIELDS = (_DATA_FIELD, _WEIGHTS_FIELD, _RATE_FIELD)
_HELP_FIELDS = {
    "pretrain": (
        _DATA_FIELD,
        ("model.name=resnet18", "the network, trained from random weights"),
        ("train.epochs=90", "the length (--config.train.steps=0 with it)"),
    ),
    "evaluate": (
        _DATA_FIELD,
        ("data.test_split=test", "the split that is evaluated"),
        ("init.weights=FILE", "with --config and --config.init.head=keep: these weights"),
    ),
    "compare": (
        _DATA_FIELD,
        ("compare.seeds=0,1,2", "the seeds of every method"),
        ("train.steps=80", "the length of every run, in updates"),
    ),
    "sweep": (
        _DATA_FIELD,
        (
            "sweep.learning_rate=0.1,1.0",
            "its values; also weight_decay, label_smoothing and l2_sp",
        ),
        ("sweep.seed=0,1,2", "the seeds of every combination"),
    ),
    "probe": (
        _DATA_FIELD,
        _WEIGHTS_FIELD,
        ("data.validation_fraction=0.2", "held out of train, to choose the L2 strength"),
    ),
    "profile": (
        ("model.name=resnet50", "the network"),
        ("data.batch_size=64", "images in a batch"),
        ("model.dtype=bfloat16", "the precision"),
    ),
}
_PREPARE_DATA_HELP = [
    ("--dataset=cifar10", "or cifar100"),
    ("--data_dir=DIR", "where prepared data sets are kept"),
    ("--archive=FILE", "the publisher's archive, where it is not to be downloaded"),
]
_EXIT_CODES = (
    "Exit codes: 0 done; 2 the input is wrong, the message says what to change; 75 stopped on request with a\n"
    "checkpoint saved, the same command resumes; 1 anything else."
)


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


def checkpoint_overrides() -> list[str]:
    """Returns the assignments of `--config.FIELD=VALUE` that were given with --checkpoint."""
    return [f"{name}={text}" for name, text in config_fields.overrides(sys.argv)]


def _parse_flags(argv: list[str]) -> None:
    if "checkpoint" in flags.FLAGS:
        argv = _without_overrides(argv)
    if "config" in flags.FLAGS:
        config_fields.check_arguments(argv)
    absl_app.define_help_flags()
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise InputError(_flag_message(str(error))) from error
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; flags look like --config.seed=1")


def _without_overrides(argv: list[str]) -> list[str]:
    """Returns the arguments without fields of the config where --checkpoint brings the config.

    absl knows the fields of the file in --config alone.
    """
    names = [argument.lstrip("-").partition("=")[0] for argument in argv[1:] if argument[:1] == "-"]
    if "checkpoint" not in names or "config" in names:
        return argv
    for name, text in config_fields.overrides(argv):
        if text is None:
            raise InputError(f"--config.{name}: expected a value, as in --config.{name}=VALUE")
    kept, arguments = argv[:1], iter(argv[1:])
    for argument in arguments:
        if not argument.startswith("-") or not argument.lstrip("-").startswith("config."):
            kept.append(argument)
        elif "=" not in argument:
            next(arguments)  # its value
    return kept


def _flag_message(text: str) -> str:
    """Returns absl's message about a flag in the words of ours."""
    unknown_flag = re.search(r"Unknown command line flag '([^']*)'", text)
    if unknown_flag:
        return f"{errors.unknown('flag', f'--{unknown_flag[1]}', _own_flags())}; --help says more"
    illegal = re.match(r"flag --([\w.]+)=(.*?): ", text, re.DOTALL)
    if illegal and illegal[1] in flags.FLAGS:
        name, value = illegal[1], illegal[2]
        choices = getattr(flags.FLAGS[name].parser, "enum_values", None)
        if choices:
            return str(errors.unknown(f"--{name}", value, choices))
        kind = flags.FLAGS[name].parser.flag_type()
        expected = {"int": "an integer", "bool": "true or false", "float": "a number"}
        return f"--{name}={value}: expected {expected.get(kind, kind)}"
    missing = re.match(r"Missing value for flag (\S+)", text)
    if missing:
        return f"{missing[1]}: expected a value, as in {missing[1]}=VALUE"
    return text


def _own_flags() -> list[str]:
    """Returns the flags that this project defines, without the fields of the config."""
    modules = flags.FLAGS.flags_by_module_dict()
    names = [
        flag.name
        for module, defined in modules.items()
        if module.startswith("experiments") or module == sys.argv[0] or module == "__main__"
        for flag in defined
    ]
    return sorted(f"--{name}" for name in names if not name.startswith("config."))


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

    XLA's default scheduler for CPU optimises for concurrency: all-reduces that do not depend on each other run
    at the same time, on one Gloo connection without tags, and can be paired with those of other tensors in the
    other process. Both processes end then ("Received data size doesn't match expected size"): ResNet-20 on two
    processes of one device did so in seven runs of seven, one under jaxlib 0.10 and six under 0.12, and in no
    run since with this flag. GPUs and TPUs do not read it.
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
