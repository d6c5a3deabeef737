"""Planting a mutant in a copy of the tree and running the tests that should notice it."""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
_LEFT_OUT_OF_ROOT = {"build", "runs"}
CAUGHT, SURVIVED, NOT_PLANTED, NO_ANSWER = "caught", "survived", "not planted", "no answer"


class NotPlanted(Exception):
    """The text that a mutant replaces does not occur exactly once."""


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Returns which names of a folder no test of a mutant needs."""
    left_out = set(_LEFT_OUT(folder, names))
    return left_out | (_LEFT_OUT_OF_ROOT if pathlib.Path(folder) == ROOT else set())


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One deliberate bug.

    Attributes:
        name: unique, such as "optim-nesterov".
        file: that it changes, from the root of the repository.
        old: text that occurs exactly once in the file.
        new: what it becomes.
        tests: files or node ids of pytest that should fail.
        survivor: whether the suite did not notice it when such bugs were first planted.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survivor: bool = False

    def planted(self, root: pathlib.Path) -> str:
        """Returns the text of the file below `root` with the bug in it.

        Raises:
            NotPlanted: if `old` is not there exactly once.
        """
        path = root / self.file
        if not path.is_file():
            raise NotPlanted(f"{self.name}: there is no file {self.file}")
        text = path.read_text()
        count = text.count(self.old)
        if count != 1:
            raise NotPlanted(
                f"{self.name}: {self.file} has {self.old!r} {count} times, expected once"
            )
        return text.replace(self.old, self.new)


@dataclasses.dataclass(frozen=True)
class Result:
    """The result for one mutant.

    Attributes:
        mutant: the mutant.
        outcome: "caught", "survived", "not planted", or "no answer" where pytest neither passed nor
            failed: it ran past the time limit or could not collect.
        seconds: that its tests took.
        detail: the first failing test, or what went wrong.
    """

    mutant: Mutant
    outcome: str
    seconds: float
    detail: str


class Runner:
    """Runs pytest in copies of the tree; to be used as a context manager, which ends what still runs.

    Args:
        jobs: copies, and mutants at a time.
        seconds: the time limit of a mutant's tests.
    """

    def __init__(self, jobs: int = 1, seconds: float = 300.0):
        self._jobs, self._seconds = jobs, seconds
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._copies: queue.Queue[pathlib.Path] = queue.Queue()

    def __enter__(self) -> "Runner":
        self._folder = tempfile.TemporaryDirectory(prefix="mutants-")
        for number in range(self._jobs):
            copy = pathlib.Path(self._folder.name) / f"tree{number}"
            shutil.copytree(ROOT, copy, ignore=_left_out)
            self._copies.put(copy)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            running = list(self._running)
        for process in running:
            _end(process)
        self._folder.cleanup()

    def run(self, mutants: Sequence[Mutant], show: Callable[[Result], None]) -> list[Result]:
        """Returns the result of each mutant, in order; `show` receives them as they come."""

        def one(mutant: Mutant) -> Result:
            with self._copy() as tree:
                result = self._try(mutant, tree)
            show(result)
            return result

        with ThreadPoolExecutor(self._jobs) as pool:
            return list(pool.map(one, mutants))

    def without_mutants(self, mutants: Sequence[Mutant]) -> str:
        """Returns what fails in the tree as it is: "" if every test that mutants name passes."""
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        # A file stands for all that is in it.
        tests = [test for test in tests if "::" not in test or test.split("::")[0] not in tests]
        several = self._jobs > 1 and importlib.util.find_spec("xdist") is not None
        options = [f"--numprocesses={self._jobs}", "--dist=loadfile"] if several else []
        with self._copy() as tree:
            code, output = self._pytest(tree, [*options, *tests], 10 * self._seconds)
        return "" if code == 0 else output or "the time limit was reached"

    def _try(self, mutant: Mutant, tree: pathlib.Path) -> Result:
        began = time.perf_counter()
        try:
            mutated = mutant.planted(tree)
        except NotPlanted as error:
            return Result(mutant, NOT_PLANTED, 0.0, str(error))
        path = tree / mutant.file
        original = path.read_text()
        path.write_text(mutated)
        try:
            code, output = self._pytest(tree, list(mutant.tests), self._seconds)
        finally:
            path.write_text(original)
        outcome = {0: SURVIVED, 1: CAUGHT}.get(code, NO_ANSWER)
        return Result(mutant, outcome, time.perf_counter() - began, _detail(code, output))

    def _pytest(
        self, tree: pathlib.Path, arguments: list[str], seconds: float
    ) -> tuple[int | None, str]:
        """Returns pytest's exit code, None past the time limit, and what it wrote."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(tree),
            # A file of the same size and second would be taken from the cache of compiled files.
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(tree.parent),
        }
        environment.pop("PYTEST_ADDOPTS", None)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=line"]
        process = subprocess.Popen(
            [*command, "-p", "no:cacheprovider", *arguments],
            cwd=tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        with self._lock:
            self._running.add(process)
        try:
            output, _ = process.communicate(timeout=seconds)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            # What the tests started too: it is of the same group.
            _end(process)
            with self._lock:
                self._running.discard(process)

    @contextlib.contextmanager
    def _copy(self) -> Iterator[pathlib.Path]:
        tree = self._copies.get()
        try:
            yield tree
        finally:
            self._copies.put(tree)


def _end(process: subprocess.Popen) -> None:
    """Ends a process and all of its group, which may outlive it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _detail(code: int | None, output: str) -> str:
    if code is None:
        return "the time limit was reached"
    if code == 0:
        return ""
    lines = output.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return (failed or lines[-1:] or ["pytest said nothing"])[0]
