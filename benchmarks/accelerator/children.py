"""The processes that measure: started when first asked, ended when they fail, each with a share of the memory."""

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks import record

NAMES = ("jax", "torch_eager", "torch_compile")
# Of what a process wrote before it failed.
_LINES_KEPT = 12
_SECONDS_TO_END = 5.0


class ChildFailed(Exception):
    """A process gave no answer, or said that a command failed.

    Attributes:
        child: its name.
        alive: whether it still answers.
        facts: what is recorded of it.
    """

    def __init__(self, child: str, error: str, *, alive: bool = False, **facts: Any):
        super().__init__(f"{child}: {error}")
        self.child, self.alive = child, alive
        self.facts = {"error": error, "child": child, **facts}


class Child:
    """A process that answers commands, a line of JSON each.

    Attributes:
        started: when, on the clock of `time.monotonic`.
    """

    def __init__(self, name: str, command: list[str], environment: dict[str, str] | None = None):
        """Starts it.

        Args:
            name: see `NAMES`.
            command: reads {"command": ..., ARGUMENT: ...} from its input and writes {"result": ...} or {"error":
                ...} to its output, line by line.
            environment: None for that of this process.
        """
        self._name = name
        self._errors = tempfile.TemporaryFile("a+", errors="replace")  # noqa: SIM115  closed by `end`
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            command,
            cwd=record.REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, command: str, seconds: float, arguments: dict[str, Any]) -> Any:
        """Returns the answer to a command.

        Raises:
            ChildFailed: if it says that the command failed, does not answer in time, or ends.
        """
        with contextlib.suppress(OSError):  # It has ended, which its answer says.
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            error = f"no answer to {command!r} within {seconds:.1f} s; its process was ended"
            raise self._failed(error, command) from None
        if line is None:
            raise self._failed(f"{self._how_it_ended()} during {command!r}", command)
        try:
            answer = json.loads(line)
        except ValueError:
            raise self._failed(f"answered {line[:80]!r}, which is no JSON", command) from None
        if "error" in answer:
            raise self._failed(answer["error"], command, alive=True)
        return answer["result"]

    def end(self, *, at_once: bool = False) -> None:
        """Ends the process and all that it started."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # It ends by itself where it waits for a command.
        if not at_once:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_SECONDS_TO_END)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(_SECONDS_TO_END)
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        with contextlib.suppress(ValueError):  # Closed meanwhile.
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put(None)

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def _failed(self, error: str, command: str, *, alive: bool = False) -> ChildFailed:
        code = self._process.poll()
        number = -code if code is not None and code < 0 else None
        return ChildFailed(
            self._name,
            error,
            alive=alive,
            command=command,
            signal=number and signal.Signals(number).name,
            last_lines=self._last_lines(),
        )

    def _last_lines(self) -> list[str]:
        """Returns the end of what it wrote, without the folders of this machine."""
        self._errors.seek(0)
        lines = self._errors.read().splitlines()[-_LINES_KEPT:]
        folders = {str(record.REPOSITORY): ".", str(pathlib.Path.home()): "~", sys.prefix: "PYTHON"}
        for folder, short in folders.items():
            lines = [line.replace(folder, short)[:300] for line in lines]
        return lines


class Children:
    """The processes by name; to be used as a context manager, which ends them."""

    def __init__(self, start: Callable[[str], Child]):
        """Takes what starts a process of some name."""
        self._start = start
        self._running: dict[str, Child] = {}
        self._failed: set[str] = set()

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._running):
            self.end(name)

    def ask(self, name: str, command: str, until: float, /, **arguments: Any) -> Any:
        """Returns the answer of a process, started if need be.

        Args:
            name: see `NAMES`.
            command: that it knows.
            until: when it must have answered, on the clock of `time.monotonic`.
            **arguments: of the command.

        Raises:
            ChildFailed: as `Child.ask`.
        """
        if time.monotonic() >= until:
            raise ChildFailed(name, f"no time is left for {command!r}", alive=name in self._running)
        if name not in self._running:
            self._running[name] = self._start(name)
        try:
            return self._running[name].ask(command, until - time.monotonic(), arguments)
        except ChildFailed as failure:
            self._failed.add(name)
            if not failure.alive:
                self.end(name, at_once=True)
            raise

    def renew(self) -> None:
        """Ends the processes that failed, whatever else they hold: the next row gets new ones."""
        for name in self._failed:
            self.end(name, at_once=True)
        self._failed.clear()

    def end(self, name: str, *, at_once: bool = False) -> None:
        """Ends a process; the next command starts another."""
        if name in self._running:
            self._running.pop(name).end(at_once=at_once)

    def seconds(self, name: str) -> float:
        """Returns for how long a process has been running."""
        return time.monotonic() - self._running[name].started


def starter(scratch: pathlib.Path, share: float) -> Callable[[str], Child]:
    """Returns what starts the processes of `child`.

    Args:
        scratch: a folder that they share.
        share: of the accelerator's memory that each may take.
    """

    def start(name: str) -> Child:
        command = [
            sys.executable,
            "-m",
            "benchmarks.accelerator.child",
            name,
            str(scratch),
            str(share),
        ]
        return Child(name, command, environment(name, share))

    return start


def environment(name: str, share: float) -> dict[str, str]:
    """Returns the variables of a process."""
    found = dict(os.environ)
    if name == "jax":
        # Of the two names of this variable, JAX refuses to be given both.
        found.pop("XLA_CLIENT_MEM_FRACTION", None)
        found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{share:.3f}"
    else:
        # What it takes from this library imports JAX, which must not take the accelerator.
        found["JAX_PLATFORMS"] = "cpu"
    return found
