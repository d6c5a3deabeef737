"""Runs an ablation: all cells without the test split, the choice by validation, then test for what was chosen."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from tl_jax import console
from tl_jax.ablation import analysis, outlook, planner, report, states, work
from tl_jax.ablation.cells import Cell, expand
from tl_jax.ablation.live_table import LiveTable
from tl_jax.ablation.record import Record
from tl_jax.ablation.spec import Spec
from tl_jax.compilation import programs_kept
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.runs.setup import check_config
from tl_jax.runs.splits import check_data


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What an ablation is about to do.

    Attributes:
        cells: a row for each cell: its variant, labels, values and seed, its folder, and whether it is done, failed
            or to be run.
        left: a row for each variant and number of labels: cells that are done and left, with their time and memory;
            see `outlook.rows`.
    """

    cells: list[dict[str, Any]]
    left: list[dict[str, Any]]


def look_ahead(spec: Spec, workdir: pathlib.Path | None = None, amend: str = "") -> Outlook:
    """Returns the cells of an ablation and what is left of it; trains, writes and downloads nothing.

    Args:
        spec: of the ablation.
        workdir: of the ablation; None: none yet.
        amend: as of `run`.

    Raises:
        InputError: as `run`.
    """
    cells = _checked(spec)
    record = Record(workdir or pathlib.Path("-"))
    if workdir is not None:
        record.check(spec, cells, amend, writes=False)
    _check_data(record, cells, download=False)
    cell_states = [
        analysis.TO_BE_RUN if workdir is None else states.state(cell, record.cell(cell))
        for cell in cells
    ]
    rows = [
        {
            "variant": cell.variant,
            "shots": cell.shots,
            "trial": cell.trial,
            "values": report.assigned(cell.values),
            "seed": cell.seed,
            "run": str(record.cell(cell)),
            "state": state,
        }
        for cell, state in zip(cells, cell_states, strict=True)
    ]
    return Outlook(rows, outlook.rows(spec, record, cells, cell_states))


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

    Several launchers may work on one folder: none runs a cell that another has claimed. Several processes that share
    their runs (`jax.distributed`) are one launcher. What failed or diverged is reported, and the others go on; what
    does not fit ends it where no run was trained before.

    Args:
        spec: of the ablation.
        workdir: of the ablation.
        stop_requested: whether to stop; asked between updates.
        peek: whether to show validation as far as it is known, train nothing and open nothing.
        train_only: whether to end when all cells are trained or claimed by others; nothing is chosen or opened.
        amend: see `Record.begin`.
        width: cells that one program trains, at most.

    Returns:
        What `ablation.json` holds; nothing with `train_only`, and of several processes but in the first.

    Raises:
        InputError: before anything is trained, if the spec, the folder, data or weights do not fit.
        loops.Stopped: when asked to stop; the same call goes on.
    """
    record, cells = _peeked(spec, workdir) if peek else begin(spec, workdir, amend)
    with programs_kept():
        if not peek:
            _train_all(spec, record, cells, stop_requested, width, wait=not train_only)
        return {} if train_only else _conclude(spec, record, cells, stop_requested, peek)


def _train_all(
    spec: Spec,
    record: Record,
    cells: Sequence[Cell],
    stop_requested: Callable[[], bool],
    width: int,
    wait: bool,
) -> None:
    left = [
        cell for cell in cells if not work.first_says(states.is_trained(cell, record.cell(cell)))
    ]
    units = [unit.cells for unit in planner.plan(planner.sharing_activations(left), width)]
    if not left:
        return
    with LiveTable(report.title(spec), cells) as shown:
        shown.there(record)
        work.each_done(
            work.Pace(outlook.TRAINED, len(cells), len(cells) - len(left), shown.pace),
            record,
            units,
            functools.partial(work.train, shown=shown),
            states.is_trained,
            stop_requested,
            wait,
            waiting=lambda: shown.look(record),
        )
        shown.look(record)


def _conclude(
    spec: Spec,
    record: Record,
    cells: Sequence[Cell],
    stop_requested: Callable[[], bool],
    peek: bool,
) -> dict[str, Any]:
    """Chooses, reads test unless it is a peek, and writes the tables; returns what `ablation.json` holds."""
    took = record.seconds(outlook.TRAINED)
    rows = [states.row(spec, cell, record.cell(cell), took.get(str(cell.name))) for cell in cells]
    chosen = analysis.choose(spec, rows)
    if not peek:
        opened = [
            cell
            for cell, row in zip(cells, rows, strict=True)
            if work.first_says(
                cell.variant in spec.opened
                and cell.trial == chosen[cell.variant, cell.shots]
                and row["status"] == "finished"
            )
        ]
        with sharding.together():
            if jax.process_index() == 0:
                record.opening(opened)
        readings = [[cell] for cell in opened]
        pace = work.Pace(outlook.READ, len(opened))
        work.each_done(pace, record, readings, work.open_test, states.is_open, stop_requested)
        for cell in opened:
            of_test = states.of_test(spec, record.cell(cell))
            rows[cells.index(cell)].update(of_test)
    with sharding.together():
        if not peek and jax.process_index() > 0:
            return {}  # the first of several processes writes
        return report.write(spec, record, rows, chosen, peek=peek)


def _peeked(spec: Spec, workdir: pathlib.Path) -> tuple[Record, list[Cell]]:
    """Returns the folder of an ablation and its cells, for a look, which changes nothing and opens nothing."""
    cells = _checked(spec)
    record = Record(workdir)
    if not record.holds(spec, cells):
        console.note(
            f"{workdir} holds another spec: of its cells only those that are the same are shown"
        )
    return record, cells


def begin(spec: Spec, workdir: pathlib.Path, amend: str = "") -> tuple[Record, list[Cell]]:
    """Returns the folder of an ablation, its spec written, and its cells, checked to fit.

    Raises:
        InputError: if the spec or the folder does not fit.
    """
    cells = _checked(spec)
    record = Record(workdir)
    with sharding.together():
        record.check(spec, cells, amend)
        _check_data(record, cells, download=True)
        if jax.process_index() == 0:
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


def _check_data(record: Record, cells: Sequence[Cell], *, download: bool) -> None:
    """Opens the data of each variant and number of labels, where no cell is trained yet: else they were there.

    Raises:
        InputError: if there are no such data, or not as many labels.
    """
    if record.has_trained():
        return
    of_one_seed = [cell for cell in cells if cell.seed == cells[0].seed]
    different = {str(cell.config.data): cell for cell in reversed(of_one_seed)}
    for cell in reversed(different.values()):
        try:
            check_data(cell.config, download=download)
        except InputError as error:
            raise InputError(f"{cell}: {error}") from error
