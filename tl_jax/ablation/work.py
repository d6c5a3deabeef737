"""The work on cells: claimed by one launcher, trained by one program where they may be, test read for each alone."""

import contextlib
import functools
import math
import pathlib
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import filelock
import jax

from tl_jax import console, files
from tl_jax.ablation import states
from tl_jax.ablation.cells import Cell
from tl_jax.ablation.live_table import LiveTable
from tl_jax.ablation.record import Record, claims
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.reporting import tables
from tl_jax.runs import together, training
from tl_jax.runs.skeleton import alone
from tl_jax.runs.together import NotTogether
from tl_jax.training.loops import NonFiniteLoss, Stopped

# Between looks at cells that another launcher works on.
_WAIT_SECONDS = 1.0
# Between two lines that say how far it is.
_PACE_SECONDS = 10.0
# What a launcher finds of a cell.
_DONE, _MINE, _THEIRS = range(3)


def asked_to_stop(stop_requested: Callable[[], bool]) -> bool:
    """Returns whether any of the processes that share their runs was asked to stop, the same in each."""
    return any(sharding.each(int(stop_requested())))


def first_says(answer: bool) -> bool:
    """Returns the answer of the first of the processes that share their runs: others may see files a moment later."""
    return bool(sharding.each(int(answer))[0])


def each_done(
    pace: "Pace",
    record: Record,
    units: Iterable[Sequence[Cell]],
    work: Callable[[Sequence[Cell], Record, Callable[[], bool]], None],
    is_done: Callable[[Cell, pathlib.Path], bool],
    stop_requested: Callable[[], bool],
    wait: bool = True,
    waiting: Callable[[], object] = lambda: None,
) -> None:
    """Does the work of every unit, or waits until other launchers have.

    Args:
        pace: of this work, which says how far it is.
        record: of the ablation.
        units: cells that are worked on together.
        work: given claimed cells of a unit, the record and `stop_requested`.
        is_done: whether nothing is to be done for a cell, given its folder.
        stop_requested: whether to stop.
        wait: whether to wait for what others have claimed.
        waiting: is called while all that is left is worked on by others.
    """
    left: list[Sequence[Cell]] = list(units)
    done = pace.already
    while left:
        others: list[Sequence[Cell]] = []
        worked = False
        for unit in left:
            with contextlib.ExitStack() as claimed:
                mine, theirs = [], []
                for cell in unit:
                    found = _claim(cell, record.cell(cell), is_done, claimed)
                    if found == _MINE:
                        mine.append(cell)
                    elif found == _THEIRS:
                        theirs.append(cell)
                if mine:
                    began = time.perf_counter()
                    try:
                        work(mine, record, stop_requested)
                    finally:
                        if jax.process_index() == 0:
                            record.took(pace.what, mine, time.perf_counter() - began)
                    worked = True
            done += len(unit) - len(theirs)
            if len(theirs) < len(unit):
                pace.say(done)
            if theirs:
                others.append(theirs)
            if asked_to_stop(stop_requested):
                raise Stopped(0)
        if others and not worked:
            if not wait:
                return
            waiting()
            time.sleep(_WAIT_SECONDS)
        left = others


def _claim(
    cell: Cell,
    folder: pathlib.Path,
    is_done: Callable[[Cell, pathlib.Path], bool],
    claimed: contextlib.ExitStack,
) -> int:
    """Returns whether a cell is done, another launcher's or, claimed now, this one's.

    The first of several processes that share their runs looks and claims for all of them.
    """
    found = _DONE
    with sharding.together():
        if jax.process_index() == 0 and not is_done(cell, folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                claimed.enter_context(claims(folder))
            except filelock.Timeout:
                found = _THEIRS
            else:
                found = _DONE if is_done(cell, folder) else _MINE
        return sharding.each(found)[0]


class Pace:
    """Says how far the work on cells is, and about how long the rest takes at the pace of all launchers."""

    def __init__(
        self,
        what: str,
        cells: int,
        already: int = 0,
        tell: Callable[[str, str], None] = lambda *said: console.say(", ".join(filter(None, said))),
    ):
        """Says nothing yet.

        Args:
            what: the work is called.
            cells: of all the work.
            already: cells for which it was done before.
            tell: is given how far it is, and how much time is left; "" where none is.
        """
        self.what, self.already = what, already
        self._cells, self._tell = cells, tell
        self._began, self._told = time.perf_counter(), -math.inf

    def say(self, done: int) -> None:
        """Takes how many cells are done with now."""
        seconds = time.perf_counter() - self._began
        if done == self.already or (done < self._cells and seconds - self._told < _PACE_SECONDS):
            return
        self._told = seconds
        left = (self._cells - done) * seconds / (done - self.already)
        time_left = f"about {tables.duration(left)} left" if done < self._cells else ""
        self._tell(f"{self.what}: {done} of {self._cells} cells", time_left)


def train(
    cells: Sequence[Cell], record: Record, stop_requested: Callable[[], bool], shown: LiveTable
) -> None:
    """Makes the updates of cells, by one program where there are several; what keeps one from ending is written."""
    left: list[Cell] = [*cells]
    why: set[type] = set()
    if len(cells) > 1:
        left, why = _train_together(cells, record, stop_requested, shown)
    if len(left) == len(cells) > 2 and why != {NotTogether}:  # such as too many for the memory
        half = len(left) // 2
        train(left[:half], record, stop_requested, shown)
        train(left[half:], record, stop_requested, shown)
        return
    for cell in left:
        with alone(str(cell)):
            try:
                end: Any = _made(cell, record, stop_requested, shown)
            except Stopped:
                raise
            except Exception as error:
                end = error
        _trained(cell, record, end, shown)
        if asked_to_stop(stop_requested):
            raise Stopped(0)


def _train_together(
    cells: Sequence[Cell], record: Record, stop_requested: Callable[[], bool], shown: LiveTable
) -> tuple[list[Cell], set[type]]:
    """Makes the updates of cells by one program.

    Returns:
        Those that failed in company, which may not when alone, and the kinds of their errors.
    """
    group = together.Group([cell.config for cell in cells])
    jobs = [functools.partial(_made, cell, record, stop_requested, shown) for cell in cells]
    with alone(f"{len(cells)} cells in one program: {cells[0]}, ..."):
        ends = group.run(jobs)
    left, why = [], set()
    for cell, end in zip(cells, ends, strict=True):
        if isinstance(end, Exception) and not isinstance(end, Stopped | OSError | NonFiniteLoss):
            left.append(cell)
            why.add(type(end))
        elif not isinstance(end, Stopped):
            _trained(cell, record, end, shown)
    if any(isinstance(end, Stopped) for end in ends):
        raise Stopped(0)
    return left, why


def _trained(cell: Cell, record: Record, end: Any, shown: LiveTable) -> None:
    """Says why the training of a cell ended in an error, which is written beside its folder.

    Raises:
        InputError: if data, weights or config do not fit, and no cell was trained before.
    """
    if not isinstance(end, BaseException):
        return
    if isinstance(end, OSError) or not isinstance(end, Exception):
        raise end
    if isinstance(end, InputError) and not first_says(record.has_trained()):
        raise InputError(f"{cell}: {end}") from end  # likely so in all others
    content = {
        "status": "diverged" if isinstance(end, NonFiniteLoss) else "failed",
        "error": f"{type(end).__name__}: {end}",
        "traceback": "".join(traceback.format_exception(end)),
    }
    if jax.process_index() == 0:
        folder = record.cell(cell)
        files.write(states.failure(folder), files.to_json(content))
        shown.say(states.why_failed(cell, folder))


def _made(
    cell: Cell,
    record: Record,
    stop_requested: Callable[[], bool],
    shown: LiveTable,
    member: together.Member | None = None,
) -> dict[str, Any]:
    """Makes the updates of a cell."""
    with shown.run(cell) as seen:
        result = training.run(
            cell.config,
            record.cell(cell),
            stop_requested,
            callbacks=[seen.logged],
            sources=record.sources,
            sealed=True,
            member=member,
        )
        seen.finished(result)
    return result


def open_test(cells: Sequence[Cell], record: Record, stop_requested: Callable[[], bool]) -> None:
    """Reads the test split for a cell."""
    for cell in cells:
        with alone(str(cell)):
            training.run(cell.config, record.cell(cell), stop_requested, sources=record.sources)
