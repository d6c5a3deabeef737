"""Several runs while they are made: one table on a terminal, a plain line a run elsewhere."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TextIO

import rich.box
import rich.console
import rich.live
import rich.table
import rich.text

from tl_jax import console
from tl_jax.reporting.tables import duration
from tl_jax.training.loops import Stopped

_PLAIN_SECONDS = 10.0
_WAITING, _RUNNING, _DONE, _FAILED = "·", "▸", "✓", "✗"
# Lines of the terminal that are left for what stands above and below the rows.
_AROUND = 8


class RunTable:
    """Shows the runs of a comparison, a row for each method and a column for each seed.

    On a terminal that is high enough it is one table that changes in place: runs that wait, the one that
    runs, with its step below the table, and the validation accuracy of those that are done. Elsewhere a line for
    each run when it is done, and one every ten seconds at most while it trains. Nothing where the process is
    silent, or tells of each run itself (`console.verbosity("verbose")`).

    Example:
        >>> with RunTable("digits", ["probe"], [0], stream=sys.stdout) as table:
        ...     with table.run("probe", 0, total_steps=20) as run:
        ...         run.logged(20, "validation", {"top1_accuracy": 0.75})
        1/1  probe, seed 0: validation top-1 75.00%, 20 steps, 0.0 s
    """

    def __init__(
        self,
        title: str,
        methods: Sequence[str],
        seeds: Sequence[int],
        *,
        column: str = "seed",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the table; it is shown from the `with` block on.

        Args:
            title: the line above it.
            methods: its rows.
            seeds: its columns.
            column: what a column is.
            stream: where to write; standard error by default, as progress of one run.
            clock: returns seconds.
        """
        self._title, self._methods, self._seeds = title, methods, seeds
        self._column = column
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._runs: dict[tuple[str, int], Run] = {}
        self._began = self._shared = clock()
        self._live: rich.live.Live | None = None
        self._shows = console.shows() and not console.shows("verbose")
        terminal = rich.console.Console(file=self._stream)
        self._note, self._told = "", -math.inf
        fits = len(methods) + _AROUND <= terminal.height  # the table is written over as a whole
        if self._shows and terminal.is_terminal and not terminal.is_dumb_terminal and fits:
            self._live = rich.live.Live(
                console=terminal,
                get_renderable=self._table,
                redirect_stdout=False,  # it may be a file
                vertical_overflow="visible",
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @contextlib.contextmanager
    def run(self, method: str, seed: int, total_steps: int = 0) -> Iterator["Run"]:
        """Shows that a run is made inside, and that it is done at the end; of one that raises, that it is not.

        Args:
            method: of the rows.
            seed: of the columns.
            total_steps: updates of the run; 0 where they are not known yet.
        """
        self._share()
        run = self._runs[method, seed] = Run(self, method, seed, total_steps)
        try:
            yield run
        except Exception as error:
            self._share()
            if not isinstance(error, Stopped):
                run.state = _FAILED
            raise
        self._share()
        run.state = _DONE
        self._line(run, _summary(run))

    def elsewhere(self, method: str, seed: int, total_steps: int = 0) -> "Run":
        """Returns a run that another process makes, to be told what that logs."""
        run = self._runs[method, seed] = Run(self, method, seed, total_steps)
        run.is_elsewhere = True
        return run

    def ended(
        self,
        method: str,
        seed: int,
        result: Mapping[str, Any] | None,
        seconds: float = 0.0,
        *,
        before: bool = False,
    ) -> None:
        """Shows a run that another process has ended; a line is printed unless it failed.

        Args:
            method: of the rows.
            seed: of the columns.
            result: see `Run.finished`; None of one that failed.
            seconds: that it took, as far as is known.
            before: whether that was before this command: no line is printed.
        """
        run = self._runs.get((method, seed)) or self.elsewhere(method, seed)
        run.state, run.seconds = (_FAILED if result is None else _DONE), seconds
        if result is not None:
            run.finished(result)
        run.was_there = before
        if not before and result is not None:
            self._line(run, _summary(run))

    def _share(self) -> None:
        """Shares the time since the last call among the runs that this process makes: their times make up its own."""
        now = self._clock()
        running = [
            run for run in self._runs.values() if run.state == _RUNNING and not run.is_elsewhere
        ]
        for run in running:
            run.seconds += (now - self._shared) / len(running)
        self._shared = now

    def say(self, line: str) -> None:
        """Prints a line, above a table that changes in place."""
        if self._live is None:
            console.say(line)
        else:
            self._live.console.print(rich.text.Text(line))

    def pace(self, how_far: str, time_left: str) -> None:
        """Shows how long it takes: the line below a table says already how far it is; elsewhere both are printed."""
        if self._live is None:
            console.say(", ".join(filter(None, (how_far, time_left))))
        else:
            self._note = time_left

    def changed(self, run: "Run") -> None:
        """Shows the step of a run, where lines are printed and the last one is a while ago."""
        now = self._clock()
        if now - max(run.told, self._told) >= _PLAIN_SECONDS:
            run.told = self._told = now
            self._line(run, _where(run))

    def _line(self, run: "Run", text: str) -> None:
        if self._shows and self._live is None:
            begun = sum(run.state == _RUNNING for run in self._runs.values())
            number = len(self._runs) - begun + (run.state == _RUNNING)
            count = len(self._methods) * len(self._seeds)
            line = f"{number}/{count}  {self._name(run)}: {text}"
            print(line, file=self._stream, flush=True)

    def _name(self, run: "Run") -> str:
        """Returns what a run is called; a table of one row says only in which column it is."""
        place = f"{self._column} {run.seed}"
        return place if self._column == run.method else f"{run.method}, {place}"

    def _table(self) -> rich.console.Group:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
        table.add_column(self._column)
        for seed in self._seeds:
            table.add_column(str(seed), justify="right", no_wrap=True)
        table.add_column("mean", justify="right", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        for method in self._methods:
            runs = [self._runs.get((method, seed)) for seed in self._seeds]
            done = [run for run in runs if run is not None and run.state == _DONE]
            measured = [run.accuracy for run in done if run.accuracy is not None]
            table.add_row(
                rich.text.Text(method),
                *map(_cell, runs),
                f"{100 * sum(measured) / len(measured):.1f}" if measured else "",
                duration(sum(run.seconds for run in done)) if done else "",
            )
        title = rich.text.Text(f"{self._title}: validation top-1 (%)")
        # Neither wraps: the lines of the table are counted to be written over.
        title.no_wrap, title.overflow = True, "ellipsis"
        status = rich.text.Text(self._status(), no_wrap=True, overflow="ellipsis")
        return rich.console.Group(title, table, status)

    def _status(self) -> str:
        """Returns the line below the table: how many are done, and where the one that runs is."""
        runs = list(self._runs.values())  # another thread draws
        done = sum(run.state == _DONE for run in runs)
        count = len(self._methods) * len(self._seeds)
        text = f"{done} of {count} runs done in {duration(self._clock() - self._began)}"
        failed = sum(run.state == _FAILED for run in runs)
        text += f", {failed} failed" if failed else ""
        running = [run for run in runs if run.state == _RUNNING]
        if len(running) == 1:
            text += f"; {self._name(running[0])}: {_where(running[0])}"
        elif running:
            text += f"; {len(running)} at once: {_where(max(running, key=lambda run: run.step))}"
        return f"{text}; {self._note}" if self._note else text


class Run:
    """One run of a table.

    Attributes:
        method: its row.
        seed: its column.
        state: of those that a cell shows.
        step: completed updates.
        total_steps: of the run; 0 where not known.
        accuracy: the last top-1 accuracy on validation, in [0, 1]; None without one.
        seconds: that it took; of runs that are made at once, its share.
        was_there: whether it was finished before: nothing was logged.
        is_elsewhere: whether another process makes it.
        told: when its step was last printed.
    """

    def __init__(self, table: RunTable, method: str, seed: int, total_steps: int):
        self._table = table
        self.method, self.seed, self.total_steps = method, seed, total_steps
        self.state, self.step = _RUNNING, 0
        self.accuracy: float | None = None
        self.told = table._clock()
        self.seconds = 0.0
        self.was_there = self.is_elsewhere = self._has_logged = False

    def logged(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Takes metrics as a callback of a run gets them."""
        self.step, self._has_logged = step, True
        if split == "validation":
            self.accuracy = metrics["top1_accuracy"]
        self._table.changed(self)

    def finished(self, result: Mapping[str, Any]) -> None:
        """Takes `result.json`: what is shown is then of the step that was chosen."""
        self.was_there = not self._has_logged
        validation = result["splits"].get("validation")
        self.step = self.total_steps = result["steps"]
        self.accuracy = None if validation is None else validation["top1_accuracy"]


def _cell(run: Run | None) -> str:
    if run is None:
        return _WAITING
    if run.state == _DONE and run.accuracy is not None:
        return f"{100 * run.accuracy:.1f}"
    return run.state


def _where(run: Run) -> str:
    if not run.step:
        return "preparing"
    of_total = f"/{run.total_steps:,}" if run.total_steps else ""
    measured = "" if run.accuracy is None else f", validation top-1 {100 * run.accuracy:.2f}%"
    return f"step {run.step:,}{of_total}{measured}"


def _summary(run: Run) -> str:
    measured = "done" if run.accuracy is None else f"validation top-1 {100 * run.accuracy:.2f}%"
    took = "finished before" if run.was_there else duration(run.seconds)
    if run.is_elsewhere:
        took = f"{took} elsewhere" if run.seconds else "elsewhere"
    steps = f"{run.step:,} steps" if run.step else "no updates"  # of a head that was solved
    return f"{measured}, {steps}, {took}"
