"""The work on cells: claimed by one launcher, trained by one program where they may be, test read for each alone."""

import contextlib
import functools
import pathlib
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import filelock

from tl_jax import console, files
from tl_jax.ablation import states
from tl_jax.ablation.cells import Cell
from tl_jax.ablation.record import Record, claims
from tl_jax.reporting import tables
from tl_jax.runs import together, training
from tl_jax.runs.skeleton import alone
from tl_jax.training.loops import NonFiniteLoss, Stopped

# Between looks at cells that another launcher works on.
_WAIT_SECONDS = 1.0


def each_done(
    what: str,
    record: Record,
    units: Iterable[Sequence[Cell]],
    work: Callable[[Sequence[Cell], Record, Callable[[], bool]], None],
    is_done: Callable[[Cell, pathlib.Path], bool],
    stop_requested: Callable[[], bool],
    wait: bool = True,
) -> None:
    """Does the work of every unit, called `what`, or waits until other launchers have, where it is to `wait`."""
    left: list[Sequence[Cell]] = list(units)
    pace, done = _Pace(what, sum(map(len, left))), 0
    while left:
        others: list[Sequence[Cell]] = []
        worked = False
        for unit in left:
            with contextlib.ExitStack() as claimed:
                mine, theirs = [], []
                for cell in unit:
                    folder = record.cell(cell)
                    if is_done(cell, folder):
                        continue
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    try:
                        claimed.enter_context(claims(folder))
                    except filelock.Timeout:
                        theirs.append(cell)
                        continue
                    if not is_done(cell, folder):
                        mine.append(cell)
                if mine:
                    began = time.perf_counter()
                    try:
                        work(mine, record, stop_requested)
                    finally:
                        seconds = time.perf_counter() - began
                        record.took(what, mine, seconds)
                    pace.say(len(mine), done + len(unit) - len(theirs), seconds)
                    worked = True
            done += len(unit) - len(theirs)
            if theirs:
                others.append(theirs)
            if stop_requested():
                raise Stopped(0)
        if others and not worked:
            if not wait:
                return
            time.sleep(_WAIT_SECONDS)
        left = others


class _Pace:
    """Says how far the work of this launcher is, and about how long it takes at its pace so far."""

    def __init__(self, what: str, cells: int):
        self._what, self._cells, self._made, self._seconds = what, cells, 0, 0.0

    def say(self, made: int, done: int, seconds: float) -> None:
        """Takes how many cells were made in so many seconds, and how many are done with now."""
        self._made, self._seconds = self._made + made, self._seconds + seconds
        left = (self._cells - done) * self._seconds / self._made
        time_left = f", about {tables.duration(left)} left" if left else ""
        console.say(f"{self._what}: {done} of {self._cells} cells{time_left}")


def train(cells: Sequence[Cell], record: Record, stop_requested: Callable[[], bool]) -> None:
    """Makes the updates of cells, by one program where there are several; what keeps one from ending is written."""
    left = list(cells) if len(cells) == 1 else _train_together(cells, record, stop_requested)
    if len(left) == len(cells) > 2:  # such as too many for the memory
        half = len(left) // 2
        train(left[:half], record, stop_requested)
        train(left[half:], record, stop_requested)
        return
    for cell in left:
        end = None
        with alone(str(cell)):
            try:
                _made(cell, record, stop_requested)
            except Stopped:
                raise
            except Exception as error:
                end = error
        _trained(cell, record, end)
        if stop_requested():
            raise Stopped(0)


def _train_together(
    cells: Sequence[Cell], record: Record, stop_requested: Callable[[], bool]
) -> list[Cell]:
    """Makes the updates of cells by one program; returns those that failed in company, which may not when alone."""
    group = together.Group([cell.config for cell in cells])
    jobs = [functools.partial(_made, cell, record, stop_requested) for cell in cells]
    with alone(f"{len(cells)} cells in one program: {cells[0]}, ..."):
        ends = group.run(jobs)
    left = []
    for cell, end in zip(cells, ends, strict=True):
        if isinstance(end, Exception) and not isinstance(end, Stopped | OSError | NonFiniteLoss):
            left.append(cell)
        elif not isinstance(end, Stopped):
            _trained(cell, record, end)
    if any(isinstance(end, Stopped) for end in ends):
        raise Stopped(0)
    return left


def _trained(cell: Cell, record: Record, end: Any) -> None:
    """Says how the training of a cell ended; an error is written beside its folder."""
    if not isinstance(end, BaseException):
        console.say(f"{cell}: trained")
        return
    if isinstance(end, OSError) or not isinstance(end, Exception):
        raise end
    failure = states.failure(record.cell(cell))
    status = "diverged" if isinstance(end, NonFiniteLoss) else "failed"
    console.say(f"{cell}: {status}: {end}; delete {failure} to have it run again")
    content = {
        "status": status,
        "error": f"{type(end).__name__}: {end}",
        "traceback": "".join(traceback.format_exception(end)),
    }
    files.write(failure, files.to_json(content))


def _made(
    cell: Cell,
    record: Record,
    stop_requested: Callable[[], bool],
    member: together.Member | None = None,
) -> dict[str, Any]:
    """Makes the updates of a cell."""
    return training.run(
        cell.config,
        record.cell(cell),
        stop_requested,
        sources=record.sources,
        sealed=True,
        member=member,
    )


def open_test(cells: Sequence[Cell], record: Record, stop_requested: Callable[[], bool]) -> None:
    """Reads the test split for a cell."""
    for cell in cells:
        with alone(str(cell)):
            training.run(cell.config, record.cell(cell), stop_requested, sources=record.sources)
