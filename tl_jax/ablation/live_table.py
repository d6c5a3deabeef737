"""What is seen of the cells of an ablation while they are trained: one table on a terminal, lines elsewhere."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from tl_jax import reporting
from tl_jax.ablation import states
from tl_jax.ablation.cells import Cell
from tl_jax.ablation.outlook import TRAINED
from tl_jax.ablation.record import Record
from tl_jax.config import phase_configs
from tl_jax.reporting.run_table import Run


class LiveTable:
    """The cells, a row for each variant, number of labels and trial, and a column for each seed."""

    def __init__(self, title: str, cells: Sequence[Cell]):
        """Shows nothing yet.

        Args:
            title: above the table.
            cells: all of the ablation.
        """
        several = len({cell.config.data.examples_per_class for cell in cells}) > 1
        self._shown = {cell.name: _Shown(cell, _row(cell, several)) for cell in cells}
        rows = list(dict.fromkeys(shown.row for shown in self._shown.values()))
        seeds = list(dict.fromkeys(cell.seed for cell in cells))
        self._table = reporting.RunTable(title, rows, seeds)
        self.say, self.pace = self._table.say, self._table.pace

    def __enter__(self) -> Self:
        self._table.__enter__()
        return self

    def __exit__(self, *given: object) -> None:
        self._table.__exit__(*given)

    def there(self, record: Record) -> int:
        """Shows what is trained already, or failed, and returns how many cells that is."""
        return self._look(record, before=True)

    def look(self, record: Record) -> int:
        """Shows how far other launchers are, and returns how many cells are done with."""
        return self._look(record, before=False)

    def _look(self, record: Record, before: bool) -> int:
        took = record.seconds(TRAINED)
        for shown in self._shown.values():
            cell, folder = shown.cell, record.cell(shown.cell)
            if shown.has_ended:
                continue
            if not states.has_ended(folder):
                lines = reporting.read_metrics(folder)
                new_lines, shown.logged = lines[shown.logged :], len(lines)
                if new_lines and not before:
                    self._log(shown, new_lines)
                continue
            result = states.sealed(cell, folder)
            if result is None and not states.failure(folder).is_file():
                continue  # The run in the folder has fewer updates than the cell.
            shown.has_ended = True
            seconds = took.get(str(cell.name), 0.0)
            self._table.ended(shown.row, cell.seed, result, seconds, before=before)
            if result is None and not before:
                self.say(states.why_failed(cell, folder))
        return sum(shown.has_ended for shown in self._shown.values())

    def _log(self, shown: "_Shown", lines: Sequence[Mapping[str, Any]]) -> None:
        """Shows the lines that another launcher has logged of a cell since the last look."""
        if shown.elsewhere is None:
            cell = shown.cell
            shown.elsewhere = self._table.elsewhere(shown.row, cell.seed, _updates(cell))
        for line in lines:
            shown.elsewhere.logged(line["step"], line["split"], line)

    @contextlib.contextmanager
    def run(self, cell: Cell) -> Iterator[Run]:
        """Shows that a cell is trained inside; see `RunTable.run`."""
        shown = self._shown[cell.name]
        try:
            with self._table.run(shown.row, cell.seed, _updates(cell)) as run:
                yield run
        finally:
            shown.has_ended = True


@dataclasses.dataclass
class _Shown:
    """A cell in the table: its row, whether it has ended, and the state of a cell that another launcher trains."""

    cell: Cell
    row: str
    has_ended: bool = False
    logged: int = 0  # lines in its log at the last look
    elsewhere: Run | None = None


def _updates(cell: Cell) -> int:
    """Returns the updates of a cell; 0 where a length is in epochs, or the head is solved."""
    if cell.config.solver.name:
        return 0
    lengths = [phase.train.steps for phase in phase_configs(cell.config)]
    return sum(lengths) if all(lengths) else 0


def _row(cell: Cell, several: bool) -> str:
    """Returns the name of a row: what a cell is, but for its seed, and for labels where all have as many."""
    few = cell.config.data.examples_per_class
    labels = [f"{few} per class" if few else "all labels"] if several else []
    values = [f"{name.rpartition('.')[2]}={value}" for name, value in cell.values.items()]
    return ", ".join([cell.variant, *labels, *values])
