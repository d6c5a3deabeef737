"""Runs commands in forks of itself; requests and answers are lines of JSON.

A fork behaves like `python -m MODULE ARGV`, without the seconds that the imports take. Only a process
without threads is forked: importing JAX starts none, and the BLAS of NumPy and SciPy is kept to one
(`OPENBLAS_NUM_THREADS` in the environment of this process). Where that cannot be checked, or importing does
start threads, each command is an interpreter of its own.

Requests:
    {"module", "argv", "devices", "small", "files"}: starts a command; answers its process id.
    {"wait": PID, "seconds": S}: answers its exit code, minus the signal that killed it, or null if it has
        not ended after that time.
    {"kill": PID}: ends it and all that it started.

When the requests end, commands that still run are killed.
"""

import contextlib
import importlib
import json
import os
import pathlib
import signal
import sys
import time
import traceback
import warnings

from running import small_architectures

from experiments import cli
from tl_jax.models import registry

MODULES = (
    "ablate",
    "compare",
    "evaluate",
    "extend_data",
    "finetune",
    "inspect_data",
    "predict",
    "pretrain",
    "preview_augment",
    "probe",
    "sweep",
)
COMMANDS = {
    f"experiments.{name}": importlib.import_module(f"experiments.{name}") for name in MODULES
}


def num_threads() -> int:
    """Returns the threads of this process, or 0 where the system does not say."""
    tasks = pathlib.Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 0


def start(request: dict) -> int:
    """Starts a command; returns its process id."""
    if num_threads() != 1:
        argv = [sys.executable, __file__, json.dumps(request)]
        return os.posix_spawn(sys.executable, argv, os.environ)
    pid = os.fork()
    if not pid:
        run(request)
    return pid


def run(request: dict) -> None:
    """Runs a command in this process, and ends it."""
    os.setsid()  # a group of its own, to be killed with all that it starts
    for target, path in zip((1, 2), request["files"], strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, target)
    devices = request["devices"]
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    if request["small"]:
        registry.ARCHITECTURES = small_architectures()
    sys.argv = [request["module"], *request["argv"]]
    code = 1
    try:
        cli.run(COMMANDS[request["module"]].main)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def wait(pid: int, seconds: float) -> int | None:
    """Returns the exit code of a command, minus the signal that killed it; None if it goes on."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)


def kill(pid: int) -> None:
    """Ends a command and all that it started."""
    # On its own too, for it may not have made its group yet.
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


def main() -> None:
    """Answers requests until there are no more."""
    warnings.filterwarnings(
        "ignore", message="os.fork"
    )  # JAX says so whether it has threads or not
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    running = set()
    try:
        for line in sys.stdin:
            request = json.loads(line)
            answer: int | None = None
            if "kill" in request:
                kill(request["kill"])
            elif "wait" in request:
                answer = wait(request["wait"], request["seconds"])
                if answer is not None:
                    running.discard(request["wait"])
            else:
                answer = start(request)
                running.add(answer)
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        for pid in running:
            kill(pid)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(json.loads(sys.argv[1]))
    main()
