"""Starting commands as a user does, and reading what they leave."""

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

from tl_jax import checkpointing
from tl_jax.config import load as load_config
from tl_jax.models import registry, vgg

# Of a command, or a stretch of it; those of the tests take 2 to 30 s on two cores.
SECONDS = 240
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
TINY = {
    "init.weights": "",
    "data.name": "digits",
    "data.train_split": "train",
    "data.test_split": "test",
    "data.validation_fraction": 0.0,
    "data.examples_per_class": 2,
    "data.batch_size": 10,
    "data.eval_batch_size": 256,
    "data.image_size": 8,
    "preprocess.resize": 8,
    "optim.warmup_steps": 0,
    "optim.warmup_epochs": 0.0,
    "train.epochs": 0.0,
    "train.steps": 6,
    "train.log_every_steps": 1,
    "report.html": False,
    "report.tensorboard": False,
    "parallel.devices": 1,
    "data.cache_dir": "",
    "cache.dir": "",
}


def tiny_config(name: str = "quickstart", **fields):
    """Returns configs/NAME.py shrunk to a few updates on a few digits; fields as `optim__name`."""
    config = load_config(REPOSITORY / "configs" / f"{name}.py")
    changes = TINY | {field.replace("__", "."): value for field, value in fields.items()}
    config.update_from_flattened_dict(changes)
    return config


def small_architectures(stages: int | None = None) -> dict[str, registry.Architecture]:
    """Returns the registered networks with one block (VGG: convolution) a stage and a few channels.

    Args:
        stages: how many; None for as many as the network has.
    """
    return {
        name: known if name == "small_cnn" else _small(known, stages)  # which is small
        for name, known in registry.ARCHITECTURES.items()
    }


def _small(known: registry.Architecture, stages: int | None) -> registry.Architecture:
    fields = {"stage_sizes": (1,) * (stages or len(known.stage_sizes)), "width": 4}
    if isinstance(known, vgg.VGGArchitecture):
        fields["hidden_width"] = 16
    elif known.groups > 1:
        fields |= {
            "groups": 2,
            "base_width": 64,
        }  # 32 groups of 4 / 64 of the width have no channels
    return dataclasses.replace(known, **fields)


def arguments(**fields) -> list[str]:
    """Returns the flags that set these fields, `optim__name` for `optim.name`."""
    return [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]


def tree_of(folder: pathlib.Path) -> dict[str, str]:
    """Returns {relative path: digest} of everything below a folder, but for the lock's last holder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


def metric_lines(run: pathlib.Path) -> list[dict]:
    """Returns the complete lines of metrics.jsonl, without those that measure time."""
    path = run / "metrics.jsonl"
    texts = path.read_text().split("\n")[:-1] if path.exists() else []
    timings = ("seconds", "images_per_second", "waiting_seconds")
    return [{k: v for k, v in json.loads(t).items() if k not in timings} for t in texts]


def wait_for_steps(run: pathlib.Path, steps: int, *commands: "Started") -> None:
    """Returns when `metrics.jsonl` has a line of the given step or a later one.

    Raises:
        AssertionError: if that takes longer than `SECONDS`, or one of the commands ends before; with what
            they printed.
    """
    deadline = time.monotonic() + SECONDS
    while not any(line["step"] >= steps for line in metric_lines(run)):
        late = time.monotonic() > deadline
        if late or any(command.has_ended() for command in commands):
            # A last look: a command may have ended since the one before.
            if any(line["step"] >= steps for line in metric_lines(run)):
                return
            printed = "\n".join(command.output() for command in commands)
            why = f"after {SECONDS} s" if late else "and a command has ended"
            raise AssertionError(f"{run} has not reached step {steps} {why}\n{printed}")
        time.sleep(0.005)


def assert_same_bits(run: pathlib.Path, expected: pathlib.Path) -> None:
    """Asserts that two finished runs ended with the same weights, checkpoint and predictions."""
    exported = [folder / "weights.safetensors" for folder in (run, expected)]
    assert exported[0].read_bytes() == exported[1].read_bytes()
    for which in ("latest", "best"):
        given, wanted = (
            checkpointing.restore_params(folder / "checkpoints", which)
            for folder in (run, expected)
        )
        assert _bytes(given) == _bytes(wanted), which
    with np.load(run / "predictions.npz") as a, np.load(expected / "predictions.npz") as b:
        assert sorted(a) == sorted(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def _bytes(tree) -> dict:
    if isinstance(tree, dict):
        return {name: _bytes(value) for name, value in tree.items()}
    return {"shape": tree.shape, "dtype": str(tree.dtype), "bytes": np.asarray(tree).tobytes()}


class Started:
    """A command under way.

    Attributes:
        pid: of its process.
    """

    def __init__(self, launcher: "Launcher", pid: int, files: tuple[pathlib.Path, pathlib.Path]):
        self.pid = pid
        self._launcher, self._files = launcher, files
        self._code: int | None = None

    def signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self._code is None:
            os.kill(self.pid, number)

    def has_ended(self, seconds: float = 0) -> bool:
        """Returns whether it has ended, after waiting so long at most."""
        if self._code is None:
            self._code = self._launcher.ask({"wait": self.pid, "seconds": seconds})
        return self._code is not None

    def wait(self) -> tuple[int, str, str]:
        """Returns exit code (minus the signal that killed it), standard output and error.

        Raises:
            AssertionError: if it takes longer than `SECONDS`; it is killed then, and what it printed is
                in the message.
        """
        if not self.has_ended(SECONDS):
            self.kill()
            raise AssertionError(f"killed after {SECONDS} s:\n{self.output()}")
        out, err = (path.read_text() for path in self._files)
        return self._code, out, err

    def kill(self) -> None:
        """Ends it and all that it started, unless it has ended."""
        if not self.has_ended():
            self._launcher.ask({"kill": self.pid})
            self.has_ended(60)

    def output(self) -> str:
        """Returns what it has printed so far."""
        kinds = ("output", "error")
        return "\n".join(
            f"-- {kind} of process {self.pid}:\n{path.read_text()}"
            for kind, path in zip(kinds, self._files, strict=True)
        )


class Launcher:
    """Starts commands in forks of one process that has imported everything: seconds saved each."""

    def __init__(self, compiled_programs: pathlib.Path):
        self._folder = compiled_programs
        self._commands: list[Started] = []
        self._count = 0
        environment = {
            **os.environ,
            "NPROC": "16",
            "JAX_PLATFORMS": "cpu",
            "PYTHONWARNINGS": "",
            "PYTHONPATH": str(REPOSITORY),
            # Threads that NumPy and SciPy start when imported would make forks unsafe.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env=environment,
            text=True,
        )

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask(self, request: dict):
        """Returns the fork server's answer."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the fork server ended with exit code {self._process.wait()}"
        return json.loads(answer)

    def start(self, module: str, *argv: str, devices: int = 1, small: bool = False) -> Started:
        """Starts `python -m experiments.MODULE ARGV` with so many simulated devices.

        With `small`, the registered networks are those of `small_architectures`.
        """
        self._count += 1
        name = f"{self._process.pid}-{self._count}"
        files = tuple(self._folder / f"{name}.{kind}" for kind in ("out", "err"))
        for path in files:
            path.touch()
        request = {
            "module": f"experiments.{module}",
            "argv": [*argv, f"--compilation_cache={self._folder}"],
            "devices": devices,
            "small": small,
            "files": [str(path) for path in files],
        }
        command = Started(self, self.ask(request), files)
        self._commands.append(command)
        return command

    def run(
        self, module: str, *argv: str, devices: int = 1, small: bool = False
    ) -> tuple[int, str, str]:
        """Starts a command and waits: exit code, standard output and error."""
        return self.start(module, *argv, devices=devices, small=small).wait()

    def kill_all(self) -> None:
        """Ends the commands that a test left behind."""
        while self._commands:
            self._commands.pop().kill()
