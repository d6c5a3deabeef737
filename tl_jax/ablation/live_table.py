"""What is seen of the cells of an ablation while they are trained: one table on a terminal, lines elsewhere."""

import contextlib
import pathlib
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
        self._rows = {cell.name: _row(cell, several) for cell in cells}
        rows = list(dict.fromkeys(self._rows.values()))
        seeds = list(dict.fromkeys(cell.seed for cell in cells))
        self._cells, self._ended = cells, set[pathlib.PurePosixPath]()
        self._logged: dict[
            pathlib.PurePosixPath, int
        ] = {}  # lines that were there at the last look
        self._elsewhere: dict[pathlib.PurePosixPath, Run] = {}
        self._table = reporting.RunTable(title, rows, seeds)
        self.say, self.pace = self._table.say, self._table.pace

    def __enter__(self) -> Self:
        self._table.__enter__()
        return self

    def __exit__(self, *given: object) -> None:
        self._table.__exit__(*given)

    def there(self, record: Record) -> int:
        """Shows what is trained already, or failed, and returns how many cells that is."""
        self._look(record, before=True)
        return len(self._ended)

    def look(self, record: Record) -> int:
        """Shows how far other launchers are, and returns how many cells are done with."""
        self._look(record, before=False)
        return len(self._ended)

    def _look(self, record: Record, before: bool) -> None:
        took = record.seconds(TRAINED)
        for cell in self._cells:
            folder, place = record.cell(cell), (self._rows[cell.name], cell.seed)
            if cell.name in self._ended:
                continue
            if not states.has_ended(folder):
                lines = reporting.read_metrics(folder)
                known = self._logged.get(cell.name, 0)
                self._logged[cell.name] = len(lines)
                if not before and lines[known:]:
                    self._seen(cell, lines[known:])
                continue
            found = states.sealed(cell, folder)
            if found is None and not states.failure(folder).is_file():
                continue  # what is there is to be made longer
            self._ended.add(cell.name)
            seconds = took.get(str(cell.name), 0.0)
            self._table.ended(*place, found, seconds, before=before)
            if found is None and not before:
                self.say(states.why_failed(cell, folder))

    def _seen(self, cell: Cell, lines: Sequence[Mapping[str, Any]]) -> None:
        """Shows what another launcher has logged of a cell since the last look."""
        if cell.name not in self._elsewhere:
            place = (self._rows[cell.name], cell.seed)
            self._elsewhere[cell.name] = self._table.elsewhere(*place, _updates(cell))
        run = self._elsewhere[cell.name]
        for line in lines:
            run.logged(line["step"], line["split"], line)

    @contextlib.contextmanager
    def run(self, cell: Cell) -> Iterator[Run]:
        """Shows that a cell is trained inside; see `RunTable.run`."""
        try:
            with self._table.run(self._rows[cell.name], cell.seed, _updates(cell)) as run:
                yield run
        finally:
            self._ended.add(cell.name)


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
