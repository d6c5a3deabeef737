"""Runs an ablation: all cells without the test split, the choice by validation, then test for what was chosen."""

import math
import pathlib
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import filelock

from tl_jax import console, files
from tl_jax.ablation import analysis, report
from tl_jax.ablation.cells import Cell, expand
from tl_jax.ablation.record import CELLS, Record, claims
from tl_jax.ablation.spec import Spec
from tl_jax.config import identity_of, of_command
from tl_jax.errors import InputError
from tl_jax.runs import results, training
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


def run(
    spec: Spec,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
    *,
    peek: bool = False,
    train_only: bool = False,
    amend: str = "",
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

    Returns:
        What `ablation.json` holds.

    Raises:
        InputError: before anything is trained, if the spec or the folder does not fit.
        loops.Stopped: when asked to stop; the same call goes on.
    """
    record, cells = begin(spec, workdir, amend)
    if not peek:
        _each_done(record, cells, _train, _is_trained, stop_requested, wait=not train_only)
    if train_only:
        return {}
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
        _each_done(record, opened, _open, _is_open, stop_requested)
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
    record: Record,
    cells: Iterable[Cell],
    work: Callable[[Cell, pathlib.Path, Callable[[], bool]], None],
    is_done: Callable[[Cell, pathlib.Path], bool],
    stop_requested: Callable[[], bool],
    wait: bool = True,
) -> None:
    """Does the work of every cell, or waits until another launcher has, where it is to `wait`."""
    left = list(cells)
    while left:
        others = []
        for cell in left:
            folder = record.cell(cell)
            if is_done(cell, folder):
                continue
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                with claims(folder):
                    if not is_done(cell, folder):
                        work(cell, folder, stop_requested)
            except filelock.Timeout:
                others.append(cell)
            if stop_requested():
                raise Stopped(0)
        if len(others) == len(left):
            if not wait:
                return
            time.sleep(_WAIT_SECONDS)
        left = others


def _train(cell: Cell, folder: pathlib.Path, stop_requested: Callable[[], bool]) -> None:
    """Makes the updates of a cell; what keeps it from ending is written beside its folder."""
    try:
        _make(cell, folder, stop_requested, sealed=True)
        console.say(f"{cell}: trained")
    except (Stopped, OSError):
        raise
    except Exception as error:
        status = "diverged" if isinstance(error, NonFiniteLoss) else "failed"
        console.say(f"{cell}: {status}: {error}; delete {_failure(folder)} to have it run again")
        content = {
            "status": status,
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
        files.write(_failure(folder), files.to_json(content))


def _open(cell: Cell, folder: pathlib.Path, stop_requested: Callable[[], bool]) -> None:
    """Reads the test split for a cell."""
    _make(cell, folder, stop_requested, sealed=False)


def _make(
    cell: Cell, folder: pathlib.Path, stop_requested: Callable[[], bool], sealed: bool
) -> None:
    sources = folder.parents[len(cell.name.parts)] / "sources"  # of the ablation, beside its cells
    with alone(str(cell)):
        training.run(cell.config, folder, stop_requested, sources=sources, sealed=sealed)


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
        "seconds": None if found is None else found["wall_seconds"],
        "steps": None if found is None else found["steps"],
    }


def _metric(result: dict[str, Any] | None, split: str, spec: Spec) -> float | None:
    of_split = None if result is None else result["splits"].get(split)
    value = None if of_split is None else of_split.get(spec.metric)
    return value if value is None or math.isfinite(value) else None
