"""Runs commands in forks of itself; requests and answers are lines of JSON.

A fork behaves like `python -m MODULE ARGV`, without the seconds that the imports take: no JAX backend
exists before the fork.
"""

import importlib
import json
import os
import sys
import traceback
import warnings

from running import small_architectures

from experiments import cli
from tl_jax.models import registry

MODULES = ("compare", "evaluate", "finetune", "pretrain", "probe", "sweep")
COMMANDS = {
    f"experiments.{name}": importlib.import_module(f"experiments.{name}") for name in MODULES
}


def start(request: dict) -> int:
    """Forks; returns the process id of the command."""
    pid = os.fork()
    if pid:
        return pid
    for target, path in zip((1, 2), request["files"], strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
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


def wait(pid: int) -> int:
    """Returns the exit code of a command, minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Answers requests until there are no more."""
    warnings.filterwarnings("ignore", message="os.fork")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        answer = wait(request["wait"]) if "wait" in request else start(request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
