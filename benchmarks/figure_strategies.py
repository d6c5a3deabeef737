"""The tables of strategies, each a function from the folder results/ to Markdown."""

import pathlib

from benchmarks.figure_cells import table
from tl_jax.strategies import page


@table
def strategies(results: pathlib.Path) -> str:
    """What each strategy does, and who proposed it."""
    del results  # From the code.
    return page().rstrip()
