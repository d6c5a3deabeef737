"""What is seen of the cells of an ablation while they are trained: one table on a terminal, lines elsewhere."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Self

from tl_jax import reporting
from tl_jax.ablation import states
from tl_jax.ablation.cells import Cell
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
        self._cells = cells
        self._table = reporting.RunTable(title, rows, seeds)
        self.say, self.pace = self._table.say, self._table.pace

    def __enter__(self) -> Self:
        self._table.__enter__()
        return self

    def __exit__(self, *given: object) -> None:
        self._table.__exit__(*given)

    def there(self, record: Record) -> None:
        """Shows what is trained already, or failed."""
        for cell in self._cells:
            found = states.sealed(cell, record.cell(cell))
            if found is not None or states.failure(record.cell(cell)).is_file():
                self._table.ended_before(self._rows[cell.name], cell.seed, found)

    @contextlib.contextmanager
    def run(self, cell: Cell) -> Iterator[Run]:
        """Shows that a cell is trained inside; see `RunTable.run`."""
        lengths = [phase.train.steps for phase in phase_configs(cell.config)]
        updates = sum(lengths) if all(lengths) else 0  # unknown where a length is in epochs
        with self._table.run(self._rows[cell.name], cell.seed, updates) as run:
            yield run


def _row(cell: Cell, several: bool) -> str:
    """Returns the name of a row: what a cell is, but for its seed, and for labels where all have as many."""
    few = cell.config.data.examples_per_class
    labels = [f"{few} per class" if few else "all labels"] if several else []
    values = [f"{name.rpartition('.')[2]}={value}" for name, value in cell.values.items()]
    return ", ".join([cell.variant, *labels, *values])
