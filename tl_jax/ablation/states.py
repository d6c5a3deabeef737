"""What is known of a cell from its run folder: whether it is trained, opened, failed, and what came of it."""

import math
import pathlib
from typing import Any

from tl_jax.ablation import analysis, costs
from tl_jax.ablation.cells import Cell
from tl_jax.ablation.record import CELLS
from tl_jax.ablation.spec import Spec
from tl_jax.config import identity_of, of_command
from tl_jax.runs import results
from tl_jax.runs.run_folder import SEALED, read_json

_FAILED = "failed.json"


def failure(folder: pathlib.Path) -> pathlib.Path:
    """Returns the file, beside a run folder, that says why its run did not end."""
    return folder.with_name(f"{folder.name}.{_FAILED}")


def why_failed(cell: Cell, folder: pathlib.Path) -> str:
    """Returns what a message says of a cell that failed or diverged."""
    path = failure(folder)
    found = read_json(path)
    return f"{cell}: {found['status']}: {found['error']}; delete {path} to have it run again"


def sealed(cell: Cell, folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns the result of a cell without the test split; None where it is not trained."""
    return results.read_sealed(folder, of_command(cell.config), identity_of(cell.config))


def is_trained(cell: Cell, folder: pathlib.Path) -> bool:
    """Returns whether all updates of a cell are made, or it failed."""
    return failure(folder).is_file() or sealed(cell, folder) is not None


def has_ended(folder: pathlib.Path) -> bool:
    """Returns whether something says how a cell ended, whatever it says: one that has not need not be looked at."""
    ends = (failure(folder), folder / SEALED, folder / "result.json")
    return any(path.is_file() for path in ends)


def is_open(cell: Cell, folder: pathlib.Path) -> bool:
    """Returns whether the test split was read for a cell."""
    return (folder / "result.json").is_file()


def state(cell: Cell, folder: pathlib.Path) -> str:
    """Returns the status of a cell for a plan, which tells those whose test split was read from the others."""
    status = _status(folder, sealed(cell, folder))
    if status != "finished":
        return status
    return "test read" if is_open(cell, folder) else "trained"


def _status(folder: pathlib.Path, found: dict[str, Any] | None) -> str:
    """Returns "finished", "failed", "diverged" or that it is to be run, given what is known of the cell."""
    if found is not None:
        return "finished"
    path = failure(folder)
    return str(read_json(path)["status"]) if path.is_file() else analysis.TO_BE_RUN


def row(spec: Spec, cell: Cell, folder: pathlib.Path, seconds: float | None) -> dict[str, Any]:
    """Returns what is known of a cell, which took so many seconds as far as anybody noted them.

    Its metric on validation is None where it failed, or has none.
    """
    found = sealed(cell, folder)
    return {
        "variant": cell.variant,
        "shots": cell.shots,
        "trial": cell.trial,
        "values": dict(cell.values),
        "seed": cell.seed,
        "run": str(pathlib.PurePosixPath(CELLS, cell.name)),
        "status": _status(folder, found),
        "held_out": found is not None and "validation" in found["splits"],
        "validation": metric(found, "validation", spec),
        "steps": None if found is None else found["steps"],
        **costs.of_result(found, seconds),
        "protocol": None if found is None else found.get("protocol"),
        "error": _error(folder) if found is None else None,
    }


def of_test(spec: Spec, folder: pathlib.Path) -> dict[str, Any]:
    """Returns what a row has more where test was read: the metric, and those that are shown beside it."""
    result = results.read_result(folder / "result.json")
    further = {name: result["splits"]["test"].get(name) for name in spec.further_metrics}
    return {"test": metric(result, "test", spec), **({"further": further} if further else {})}


def _error(folder: pathlib.Path) -> str | None:
    path = failure(folder)
    return str(read_json(path)["error"]) if path.is_file() else None


def metric(result: dict[str, Any] | None, split: str, spec: Spec) -> float | None:
    """Returns the spec's metric on a split of a result; None where there is none, or it is not finite."""
    of_split = None if result is None else result["splits"].get(split)
    value = None if of_split is None else of_split.get(spec.metric)
    return value if value is None or math.isfinite(value) else None
