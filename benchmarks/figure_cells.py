"""What the tables of README.md and docs/ are made of: numbers with intervals, captions, Markdown."""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tl_jax import statistics

Table = Callable[[pathlib.Path], str]
TABLES: dict[str, Table] = {}


def table(function: Table) -> Table:
    """Registers a table under the name of its function."""
    TABLES[function.__name__] = function
    return function


def interval(values: Sequence[float], *, signed: bool = False) -> str:
    """Returns "mean ± half width" in percent, of the 95% t-interval; no width for a single value.

    Example:
        >>> interval([0.5, 0.6, 0.7])
        '60.0 ± 24.8'
    """
    mean = statistics.mean_over_seeds(values)
    assert mean.mean is not None
    text = f"{100 * mean.mean:{'+' if signed else ''}.1f}"
    if mean.interval is None:
        return text
    return f"{text} ± {50 * (mean.interval[1] - mean.interval[0]):.1f}"


def wilson(split: Mapping[str, Any]) -> str:
    """Returns Wilson's 95% interval of an accuracy in percent, "low to high"."""
    correct = round(split["top1_accuracy"] * split["examples"])
    low, high = statistics.wilson_interval(correct, split["examples"])
    return f"{100 * low:.1f} to {100 * high:.1f}"


def by_variant(
    results: pathlib.Path,
    name: str,
    body: Callable[[Mapping[str, Any]], str],
    *,
    timed: bool = True,
    torch: bool = False,
) -> str:
    """Returns the table of each `PLATFORM-jaxVERSION/NAME.json`, below what it was measured with."""
    folders = sorted(results.glob("*-jax*"), key=_variant_order)
    runs = [
        read(folder / f"{name}.json") for folder in folders if (folder / f"{name}.json").exists()
    ]
    if not runs:
        return missing(name)
    return "\n\n".join(f"{caption(run, timed=timed, torch=torch)}\n\n{body(run)}" for run in runs)


def _variant_order(folder: pathlib.Path) -> tuple[Any, ...]:
    platform, _, version = folder.name.partition("-jax")
    return platform, [int(part) for part in version.split(".") if part.isdigit()]


def missing(name: str) -> str:
    return f"Not measured yet: `python -m benchmarks.all --only={name}`."


def caption(run: Mapping[str, Any], *, timed: bool = True, torch: bool = False) -> str:
    """Returns a line: versions, device, date, revision and command of a measurement.

    Args:
        run: the JSON.
        timed: whether it matters what else the machine did.
        torch: whether PyTorch took part.
    """
    revision = run.get("revision") or run.get("git_revision") or "unknown"
    commit = revision.removesuffix("+dirty")[:10]
    dirty = " with changed files" if revision.endswith("+dirty") else ""
    parts = [
        versions(run, torch=torch),
        device(run),
        run.get("date"),
        f"revision `{commit}`{dirty}",
    ]
    if timed and run.get("busy_elsewhere", 0.0) >= 0.05:
        parts.append(
            f"other programs took {run['busy_elsewhere']:.0%} of the cores at the same time"
        )
    parts.append(f"`{run['command']}`")
    return "; ".join(part for part in parts if part) + "."


def versions(run: Mapping[str, Any], *, torch: bool = False) -> str:
    names = {"python": "Python", "jax": "JAX", "flax": "Flax"}
    if torch:
        names["torch"] = "PyTorch"
    versions = run["versions"]
    return ", ".join(
        f"{word} {versions[name]}" for name, word in names.items() if versions.get(name)
    )


def device(run: Mapping[str, Any]) -> str:
    device = run["device"]
    if device["platform"] != "cpu":
        return f"{device['count']} x {device['kind']}"
    machine = f" ({run['machine']})" if run.get("machine") else ""
    return f"{run['cores']} CPU cores{machine}" if run.get("cores") else "CPU"


def error(value: float) -> str:
    """Returns two digits and the power of ten.

    Example:
        >>> figure_cells.error(1.44e-06)
        '1.4e-6'
    """
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 600 else f"{seconds:.0f} s"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """Returns a Markdown table; `align` has an l or r for each column."""
    align = align or "l" * len(head)
    line = "|".join("---:" if side == "r" else "---" for side in align)
    lines = [f"| {' | '.join(head)} |", f"|{line}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def read(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
