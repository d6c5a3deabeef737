"""What an ablation still has to do, and about how long that takes, from what its cells took so far."""

from collections.abc import Sequence
from typing import Any

from tl_jax.ablation import analysis, planner
from tl_jax.ablation.cells import Cell
from tl_jax.ablation.record import Record
from tl_jax.ablation.spec import Spec
from tl_jax.parallel import memory
from tl_jax.reporting import intervals, tables
from tl_jax.runs.run_folder import read_json

# What cells have done to them, in this order.
TRAINED, READ = "trained", "test read"


def rows(
    spec: Spec, record: Record, cells: Sequence[Cell], states: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns a row for each variant and number of labels, and one of all.

    A run takes as long as the mean of those of its variant and number of labels that are trained, test takes as long
    to read as the mean of all readings, and memory is the most that one of these runs planned.

    Args:
        spec: of the ablation.
        record: its folder.
        cells: all of them.
        states: of the cells, see `engine.plan`.
    """
    reasons = {
        id(cell): f"by themselves: {unit.why_alone}"
        if unit.why_alone
        else f"{len(unit.cells)} at once"
        for unit in planner.plan(cells)
        for cell in unit.cells
    }
    trained, read = record.seconds(TRAINED), record.seconds(READ)
    reading = _mean([*read.values()])
    found: list[dict[str, Any]] = []
    whole: list[float | None] = []
    for shots in spec.labelled:
        for variant in spec.variants:
            own = [cell for cell in cells if (cell.variant, cell.shots) == (variant, shots)]
            of_states = [state for cell, state in zip(cells, states, strict=True) if cell in own]
            to_be_run = of_states.count(analysis.TO_BE_RUN)
            opened = of_states.count("test read")
            ended = sum(of_states.count(state) for state in ("failed", "diverged"))
            chosen = min(len(spec.seeds), len(own) - ended) if variant in spec.opened else 0
            readings = chosen - opened
            of_a_run = _mean(
                [
                    trained[str(one.name)]
                    for one, state in zip(own, of_states, strict=True)
                    if state != analysis.TO_BE_RUN and str(one.name) in trained
                ]
            )
            whole.append(_sum(to_be_run, of_a_run, max(0, readings), reading))
            found.append(
                {
                    **({"labels per class": shots or "all"} if len(spec.labelled) > 1 else {}),
                    "variant": variant,
                    "runs": len(own),
                    "trained": len(own) - to_be_run - ended,
                    "failed": ended,
                    "test read": opened,
                    "updates": ", ".join(dict.fromkeys(reasons[id(cell)] for cell in own)),
                    "time of a run": _shown(of_a_run),
                    "time left": _shown(whole[-1]),
                    "memory": _memory(record, own),
                }
            )
    known = [seconds for seconds in whole if seconds is not None]
    left = tables.duration(sum(known)) if any(known) or len(known) == len(whole) else intervals.NONE
    at_least = "more than " if any(known) and len(known) < len(whole) else ""
    counted = ("runs", "trained", "failed", "test read")
    total = {name: sum(row[name] for row in found) for name in counted}
    found.append({"variant": "in all", **total, "time left": at_least + left})
    return found


def _sum(runs: int, of_a_run: float | None, readings: int, reading: float | None) -> float | None:
    """Returns the seconds of runs and readings; None where one of them was not measured yet."""
    if (runs and of_a_run is None) or (readings and reading is None):
        return None
    return runs * (of_a_run or 0.0) + readings * (reading or 0.0)


def _memory(record: Record, cells: Sequence[Cell]) -> str:
    """Returns the most that one of the cells' runs planned for each place; "-" where none has."""
    most: dict[str, int] = {}
    for cell in cells:
        path = record.cell(cell) / "memory.json"
        for row in read_json(path) if path.is_file() else ():
            if row["what"] in memory.TOTALS:
                most[row["where"]] = max(most.get(row["where"], 0), row["bytes"])
    shown = [f"{memory.format_bytes(count)} ({where})" for where, count in most.items()]
    return ", ".join(shown) or intervals.NONE


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _shown(seconds: float | None) -> str:
    return intervals.NONE if seconds is None else tables.duration(seconds)
