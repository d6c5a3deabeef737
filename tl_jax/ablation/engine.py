"""Runs an ablation: all cells without the test split, the choice by validation, then test for what was chosen."""

import contextlib
import functools
import math
import pathlib
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import filelock

from tl_jax import console, files
from tl_jax.ablation import analysis, costs, outlook, planner, report
from tl_jax.ablation.cells import Cell, expand
from tl_jax.ablation.record import CELLS, Record, claims
from tl_jax.ablation.spec import Spec
from tl_jax.compilation import programs_kept
from tl_jax.config import identity_of, of_command
from tl_jax.errors import InputError
from tl_jax.runs import results, together, training
from tl_jax.runs.run_folder import read_json
from tl_jax.runs.setup import check_config
from tl_jax.runs.skeleton import alone
from tl_jax.training.loops import NonFiniteLoss, Stopped

# Between looks at cells that another launcher works on.
_WAIT_SECONDS = 1.0
FAILED = "failed.json"


def plan(spec: Spec, workdir: pathlib.Path | None = None) -> list[dict[str, Any]]:
    """Returns a row for each cell: what it is, and whether it is done, failed or to be run; trains nothing.

    Args:
        spec: of the ablation.
        workdir: of the ablation; None: none yet.

    Raises:
        InputError: if a cell's config does not fit.
    """
    cells = _checked(spec)
    record = Record(workdir or pathlib.Path("-"))
    return [
        {
            "variant": cell.variant,
            "shots": cell.shots,
            "trial": cell.trial,
            "values": report.assigned(cell.values),
            "seed": cell.seed,
            "run": str(record.cell(cell)),
            "state": analysis.TO_BE_RUN if workdir is None else _state(cell, record.cell(cell)),
        }
        for cell in cells
    ]


def look_ahead(spec: Spec, workdir: pathlib.Path | None = None) -> list[dict[str, Any]]:
    """Returns a row for each variant and number of labels: what is done, what is left, and what that takes.

    Trains nothing. Time and memory are those of its runs so far; see `outlook.rows`.

    Args:
        spec: of the ablation.
        workdir: of the ablation; None: none yet.

    Raises:
        InputError: if a cell's config does not fit.
    """
    cells = _checked(spec)
    states = [row["state"] for row in plan(spec, workdir)]
    return outlook.rows(spec, Record(workdir or pathlib.Path("-")), cells, states)


def run(
    spec: Spec,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
    *,
    peek: bool = False,
    train_only: bool = False,
    amend: str = "",
    width: int = planner.WIDTH,
) -> dict[str, Any]:
    """Runs all cells of a spec that are not done, chooses by validation, opens test, and writes the tables.

    Several launchers may work on one folder: none runs a cell that another has claimed. What failed or diverged is
    reported, and the others go on.

    Args:
        spec: of the ablation.
        workdir: of the ablation.
        stop_requested: whether to stop; asked between updates.
        peek: whether to show validation as far as it is known, train nothing and open nothing.
        train_only: whether to end when all cells are trained or claimed by others; nothing is chosen or opened.
        amend: see `Record.begin`.
        width: cells that one program trains, at most.

    Returns:
        What `ablation.json` holds.

    Raises:
        InputError: before anything is trained, if the spec or the folder does not fit.
        loops.Stopped: when asked to stop; the same call goes on.
    """
    record, cells = begin(spec, workdir, amend)
    with programs_kept():
        if not peek:
            _train_all(record, cells, stop_requested, width, wait=not train_only)
        return {} if train_only else _conclude(spec, record, cells, stop_requested, peek)


def _train_all(
    record: Record,
    cells: Sequence[Cell],
    stop_requested: Callable[[], bool],
    width: int,
    wait: bool,
) -> None:
    left = [cell for cell in cells if not _is_trained(cell, record.cell(cell))]
    units = [unit.cells for unit in planner.plan(planner.sharing_activations(left), width)]
    _each_done(outlook.TRAINED, record, units, _train, _is_trained, stop_requested, wait)


def _conclude(
    spec: Spec,
    record: Record,
    cells: Sequence[Cell],
    stop_requested: Callable[[], bool],
    peek: bool,
) -> dict[str, Any]:
    """Chooses, reads test unless it is a peek, and writes the tables; returns what `ablation.json` holds."""
    rows = [_row(spec, cell, record.cell(cell)) for cell in cells]
    chosen = analysis.choose(spec, rows)
    if not peek:
        opened = [
            cell
            for cell, row in zip(cells, rows, strict=True)
            if cell.variant in spec.opened
            and cell.trial == chosen[cell.variant, cell.shots]
            and row["status"] == "finished"
        ]
        record.opening(opened)
        readings = [[cell] for cell in opened]
        _each_done(outlook.READ, record, readings, _open, _is_open, stop_requested)
        for cell in opened:
            row = rows[cells.index(cell)]
            row["test"] = _metric(read_json(record.cell(cell) / "result.json"), "test", spec)
    return report.write(spec, record, rows, chosen, peek=peek)


def begin(spec: Spec, workdir: pathlib.Path, amend: str = "") -> tuple[Record, list[Cell]]:
    """Returns the folder of an ablation, its spec written, and its cells, checked to fit.

    Raises:
        InputError: if the spec or the folder does not fit.
    """
    cells = _checked(spec)
    record = Record(workdir)
    record.begin(spec, cells, amend)
    record.note_openings_outside(cells)
    return record, cells


def _checked(spec: Spec) -> list[Cell]:
    """Returns the cells of a spec, one of each variant, number of labels and trial checked as a run would be."""
    cells = expand(spec)
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    for cell in cells:
        if cell.seed == spec.seeds[0]:
            try:
                check_config(cell.config)
            except InputError as error:
                raise InputError(f"{cell}: {error}") from error
    return cells


def _each_done(
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
                    work(mine, record, stop_requested)
                    record.took(what, mine, time.perf_counter() - began)
                    worked = True
            if theirs:
                others.append(theirs)
            if stop_requested():
                raise Stopped(0)
        if others and not worked:
            if not wait:
                return
            time.sleep(_WAIT_SECONDS)
        left = others


def _train(cells: Sequence[Cell], record: Record, stop_requested: Callable[[], bool]) -> None:
    """Makes the updates of cells, by one program where there are several; what keeps one from ending is written."""
    left = list(cells) if len(cells) == 1 else _train_together(cells, record, stop_requested)
    if len(left) == len(cells) > 2:  # such as too many for the memory
        half = len(left) // 2
        _train(left[:half], record, stop_requested)
        _train(left[half:], record, stop_requested)
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
    failure = _failure(record.cell(cell))
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


def _open(cells: Sequence[Cell], record: Record, stop_requested: Callable[[], bool]) -> None:
    """Reads the test split for a cell."""
    for cell in cells:
        with alone(str(cell)):
            training.run(cell.config, record.cell(cell), stop_requested, sources=record.sources)


def _failure(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f"{folder.name}.{FAILED}")


def _sealed(cell: Cell, folder: pathlib.Path) -> dict[str, Any] | None:
    return results.read_sealed(folder, of_command(cell.config), identity_of(cell.config))


def _is_trained(cell: Cell, folder: pathlib.Path) -> bool:
    return _failure(folder).is_file() or _sealed(cell, folder) is not None


def _is_open(cell: Cell, folder: pathlib.Path) -> bool:
    return (folder / "result.json").is_file()


def _state(cell: Cell, folder: pathlib.Path) -> str:
    """Returns the status of a cell for a plan, which tells those whose test split was read from the others."""
    status = _status(folder, _sealed(cell, folder))
    if status != "finished":
        return status
    return "test read" if _is_open(cell, folder) else "trained"


def _status(folder: pathlib.Path, sealed: dict[str, Any] | None) -> str:
    """Returns "finished", "failed", "diverged" or that it is to be run, given what is known of the cell."""
    if sealed is not None:
        return "finished"
    failure = _failure(folder)
    return str(read_json(failure)["status"]) if failure.is_file() else analysis.TO_BE_RUN


def _row(spec: Spec, cell: Cell, folder: pathlib.Path) -> dict[str, Any]:
    """Returns what is known of a cell; its metric on validation is None where it failed, or has none."""
    found = _sealed(cell, folder)
    return {
        "variant": cell.variant,
        "shots": cell.shots,
        "trial": cell.trial,
        "values": dict(cell.values),
        "seed": cell.seed,
        "run": str(pathlib.PurePosixPath(CELLS, cell.name)),
        "status": _status(folder, found),
        "validation": _metric(found, "validation", spec),
        "steps": None if found is None else found["steps"],
        **costs.of_result(found),
        "error": _error(folder) if found is None else None,
    }


def _error(folder: pathlib.Path) -> str | None:
    failure = _failure(folder)
    return str(read_json(failure)["error"]) if failure.is_file() else None


def _metric(result: dict[str, Any] | None, split: str, spec: Spec) -> float | None:
    of_split = None if result is None else result["splits"].get(split)
    value = None if of_split is None else of_split.get(spec.metric)
    return value if value is None or math.isfinite(value) else None
