"""Methods compared over seeds: means, their spread, and paired differences."""

import math
import os
import pathlib
import statistics
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax import files
from tl_jax.errors import InputError
from tl_jax.reporting import pages, plots, tables
from tl_jax.reporting.report import REPORT_FILE
from tl_jax.reporting.tables import duration, number

SPREAD = (
    "The spread is the sample standard deviation over seeds (divisor n - 1); with one seed there "
    "is none. Differences are to the first method, between runs of the same seed, and their spread "
    "is the sample standard deviation of those paired differences."
)
_NONE = "-"
# Fields of a result that have a place of their own.
_PLACED = ("method", "seed", "run", "wall_seconds")


def write_comparison(
    folder: str | os.PathLike[str],
    title: str,
    results: Sequence[Mapping[str, Any]],
    *,
    metric: str = "top1_accuracy",
) -> list[dict[str, Any]]:
    """Writes `comparison.json`, `.md` and `.html` and `plots/comparison.png` into `folder`.

    Args:
        folder: where to write; made if need be.
        title: of the page.
        results: one mapping per run: `method`, `seed`, `run` (its folder, relative to `folder` or
            to the working directory), the `metric` to compare, and any of `wall_seconds`,
            `trainable_parameters` and further fields. Methods keep their order; the others are
            compared with the first. Of a further field the table shows the value where it is the
            same in all runs of each method, else the mean, and nothing if it is text that differs.
        metric: the field to compare; printed in percent if its name ends with "accuracy".

    Returns:
        The table of `comparison.md` as rows for `print_table`.

    Raises:
        InputError: if there are no results, a field is missing, or a method has a seed twice.
    """
    _check(results, metric)
    folder = pathlib.Path(folder)
    methods = summarise(results, metric)
    rows = _rows(methods, results, metric)
    runs = [{**result, "report": _link(folder, result["run"])} for result in results]
    figure = plots.comparison(
        tables.label(metric) + (" (%)" if _in_percent(metric) else ""),
        {
            method["method"]: {
                seed: _scaled(metric, value) for seed, value in method["values"].items()
            }
            for method in methods
        },
        {
            method["method"]: [_scaled(metric, value) for value in method["difference"]["values"]]
            for method in methods[1:]
        },
        methods[0]["method"],
    )
    png = plots.to_png(figure)
    files.write(folder / "plots" / "comparison.png", png)
    content = {"title": title, "metric": metric, "spread": SPREAD, "methods": methods, "runs": runs}
    files.write(folder / "comparison.json", files.to_json(content))
    files.write(folder / "comparison.md", _markdown(title, rows, runs, metric))
    page = pages.render(
        "comparison.html",
        title=title,
        spread=SPREAD,
        rows=rows,
        columns=tables.columns(rows),
        plot_picture={
            "src": pages.png_uri(png),
            "alt": f"{tables.label(metric)} of every run, with mean and spread: "
            + "; ".join(f"{row['method']} {row[tables.label(metric)]}" for row in rows)
            + ".",
        },
        metric=tables.label(metric),
        runs=[
            {
                "method": run["method"],
                "seed": run["seed"],
                "value": _formatted(metric, number(run[metric])),
                "seconds": _seconds(run.get("wall_seconds")),
                "report": run["report"],
                "name": pathlib.Path(run["run"]).name,
            }
            for run in runs
        ],
    )
    files.write(folder / "comparison.html", page)
    return rows


def summarise(results: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Returns one entry per method, in order of appearance.

    Each has `method`, `n`, `mean`, `sample_std` (None with one seed), `values` {seed: value},
    `wall_seconds` (mean over its runs, None if unknown) and `difference`, None for the first method
    and otherwise {"to", "n", "mean", "sample_std", "values"} over the seeds that both have.

    Example:
        >>> runs = [{"method": "a", "seed": 0, "run": "a0", "loss": 1.0},
        ...         {"method": "a", "seed": 1, "run": "a1", "loss": 3.0}]
        >>> entry = summarise(runs, "loss")[0]
        >>> entry["mean"], round(entry["sample_std"], 4)
        (2.0, 1.4142)
    """
    values: dict[str, dict[int, float]] = {}
    for result in results:
        values.setdefault(result["method"], {})[result["seed"]] = number(result[metric])
    first = next(iter(values))
    entries = []
    for method, by_seed in values.items():
        seconds = [
            number(result["wall_seconds"])
            for result in results
            if result["method"] == method and result.get("wall_seconds") is not None
        ]
        difference = None
        if method != first:
            paired = [
                by_seed[seed] - values[first][seed] for seed in by_seed if seed in values[first]
            ]
            difference = {"to": first, **_moments(paired), "values": paired}
        entries.append(
            {
                "method": method,
                **_moments(list(by_seed.values())),
                "values": by_seed,
                "wall_seconds": sum(seconds) / len(seconds) if seconds else None,
                "difference": difference,
            }
        )
    return entries


def _moments(values: Sequence[float]) -> dict[str, Any]:
    finite = all(map(math.isfinite, values))
    mean = (statistics.fmean(values) if finite else math.nan) if values else None
    deviation = (statistics.stdev(values) if finite else math.nan) if len(values) > 1 else None
    return {"n": len(values), "mean": mean, "sample_std": deviation}


def _check(results: Sequence[Mapping[str, Any]], metric: str) -> None:
    problems, seen = [], set()
    for place, result in enumerate(results):
        missing = [name for name in ("method", "seed", "run", metric) if name not in result]
        if missing:
            problems.append(
                f"result {place} has no {', '.join(missing)}; it has {', '.join(result)}"
            )
            continue
        identity = (result["method"], result["seed"])
        if identity in seen:
            problems.append(f"result {place}: method {identity[0]!r} has seed {identity[1]} twice")
        seen.add(identity)
    if not results:
        problems.append("there is no result to compare")
    if problems:
        raise InputError("\n".join(problems))


def _rows(
    methods: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]], metric: str
) -> list[dict[str, Any]]:
    rows = []
    extra = _extra_columns(results, metric)
    for method in methods:
        row = {
            "method": method["method"],
            tables.label(metric): _plus_minus(metric, method),
            "seeds": method["n"],
        }
        if len(methods) > 1:
            difference = method["difference"]
            row["difference to the first"] = (
                _NONE if difference is None else _difference(metric, difference)
            )
        row["wall time of a run"] = _seconds(method["wall_seconds"])
        row.update({name: column[method["method"]] for name, column in extra.items()})
        rows.append(row)
    return rows


def _extra_columns(results: Sequence[Mapping[str, Any]], metric: str) -> dict[str, dict[str, Any]]:
    """Returns {heading: {method: cell}} for the fields without a place of their own."""
    columns = {}
    for name in tables.columns(results):
        if name in _PLACED or name == metric:
            continue
        found: dict[str, list[Any]] = {}
        for result in results:
            found.setdefault(result["method"], []).append(result.get(name))
        if all(all(value == values[0] for value in values) for values in found.values()):
            columns[name] = {method: values[0] for method, values in found.items()}
        elif tables.is_numeric(results, name):
            columns[f"{name} (mean)"] = {
                method: _formatted(name, statistics.fmean(known)) if known else None
                for method, values in found.items()
                for known in [[float(value) for value in values if value is not None]]
            }
    return columns


def _markdown(
    title: str, rows: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], metric: str
) -> str:
    listed = [
        {
            "method": run["method"],
            "seed": run["seed"],
            tables.label(metric): _formatted(metric, number(run[metric])),
            "wall time": _seconds(run.get("wall_seconds")),
            "report": f"[{run['run']}]({run['report']})" if run["report"] else str(run["run"]),
        }
        for run in runs
    ]
    parts = [
        f"# {title}",
        tables.format_markdown(rows),
        SPREAD,
        f"![{tables.label(metric)} of every run](plots/comparison.png)",
        "## Runs",
        tables.format_markdown(listed),
    ]
    return "\n\n".join(parts) + "\n"


def _link(folder: pathlib.Path, run: str | os.PathLike[str]) -> str | None:
    """Returns the relative URL of a run's report; None if there is no such file."""
    for path in (folder / run, pathlib.Path(run)):
        if (path / REPORT_FILE).is_file():
            relative = os.path.relpath((path / REPORT_FILE).resolve(), folder.resolve())
            return urllib.parse.quote(pathlib.Path(relative).as_posix())
    return None


def _seconds(value: Any) -> str:
    seconds = number(value)
    return duration(seconds) if math.isfinite(seconds) else _NONE


def _in_percent(metric: str) -> bool:
    return metric.endswith("accuracy")


def _scaled(metric: str, value: float) -> float:
    return 100 * value if _in_percent(metric) else value


def _formatted(metric: str, value: float | None) -> str:
    if value is None:
        return _NONE
    if not math.isfinite(value):
        return "not finite"
    return f"{100 * value:.2f}%" if _in_percent(metric) else f"{value:.4g}"


def _plus_minus(metric: str, entry: Mapping[str, Any]) -> str:
    """Returns "93.10 ± 0.21%", the part after the mean only where there is a spread."""
    mean, deviation = entry["mean"], entry["sample_std"]
    if deviation is None or not math.isfinite(deviation):
        return _formatted(metric, mean)
    if _in_percent(metric):
        return f"{100 * mean:.2f} ± {100 * deviation:.2f}%"
    return f"{mean:.4g} ± {deviation:.2g}"


def _difference(metric: str, entry: Mapping[str, Any]) -> str:
    """Returns "+0.52 ± 0.11 points" (percentage points) or, for another metric, "+0.02 ± 0.01"."""
    mean, deviation = entry["mean"], entry["sample_std"]
    if mean is None or not math.isfinite(mean):
        return _formatted(metric, mean)
    if _in_percent(metric):
        spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
        return f"{100 * mean:+.2f}{spread} points"
    return f"{mean:+.4g}" + ("" if deviation is None else f" ± {deviation:.2g}")
