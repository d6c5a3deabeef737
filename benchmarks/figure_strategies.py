"""The tables of strategies and protocols, each a function from the folder results/ to Markdown."""

import pathlib

from benchmarks.figure_cells import table
from tl_jax import protocols as published
from tl_jax import strategies as adapting


@table
def strategies(results: pathlib.Path) -> str:
    """What each strategy does, and who proposed it."""
    del results  # From the code.
    return adapting.page().rstrip()


@table
def protocols(results: pathlib.Path) -> str:
    """The terms of each protocol, and the numbers of its source."""
    del results  # From the code.
    return published.page().rstrip()
