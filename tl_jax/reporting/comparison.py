"""Methods compared over seeds: means and paired differences with their intervals, validation beside test."""

import math
import os
import pathlib
import statistics as python_statistics
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax import files, statistics
from tl_jax.errors import InputError
from tl_jax.reporting import intervals, pages, plots, tables
from tl_jax.reporting.report import REPORT_FILE
from tl_jax.reporting.tables import duration, number
from tl_jax.training.metrics import CLASS_AVERAGES

INTERVALS = (
    "In parentheses: 95% t-intervals over seeds. A difference is the mean over pairs of runs of the same "
    "seed, n pairs in all, and its interval is that of the paired differences; an interval that contains "
    "0 does not tell the two methods apart."
)
# Before the name of the metric: its value on the validation split.
VALIDATION = "validation_"
_NONE = intervals.NONE
# Summarised as the metric that is compared: in comparison.json and on the page, as columns where asked for.
_FURTHER = CLASS_AVERAGES
# Fields of a result that are shown separately.
_PLACED = ("method", "seed", "run", "wall_seconds", "git_revision")


def write_comparison(
    folder: str | os.PathLike[str],
    title: str,
    results: Sequence[Mapping[str, Any]],
    *,
    metric: str = "top1_accuracy",
    shown: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Writes `comparison.json`, `.md` and `.html` and `plots/comparison.png` into `folder`.

    Args:
        folder: where to write; created if missing.
        title: of the page.
        results: one mapping per run: `method`, `seed`, `run` (its folder, relative to `folder` or
            to the working directory), the `metric` on the test split, where images were held out
            `validation_<metric>` too, and any of `wall_seconds`, `trainable_parameters` and further
            fields. Methods keep their order; the others are compared with the first. A further field
            is named above the table where it is the same in all runs; else the table shows its value
            where it is the same in all runs of each method, else its mean, and nothing if it is text.
        metric: the field to compare; printed in percent if its name ends with "accuracy" or it is one of
            `metrics.CLASS_AVERAGES`.
        shown: of `metrics.CLASS_AVERAGES`, those with a column of their own, on test. All that the results
            have are in the JSON file and on the page, with means and intervals over seeds.

    Returns:
        The table of `comparison.md` as rows for `print_table`.

    Raises:
        InputError: if there are no results, a field is missing, or a method has a seed twice.
    """
    _check(results, metric)
    folder = pathlib.Path(folder)
    methods = summarise(results, metric)
    advice, warning = choice(methods, metric)
    rows = _rows(methods, results, metric, shown)
    further = _further_rows(methods)
    common = _common_fields(results, metric)
    runs = [{**result, "report": report_link(folder, result["run"])} for result in results]
    figure = plots.comparison(
        f"test {tables.label(metric)}" + (" (%)" if _in_percent(metric) else ""),
        [
            plots.ComparedMethod(
                method["method"],
                *_drawn(metric, method),
                *_drawn(metric, method["difference"] or {"values": {}, "interval": None}),
            )
            for method in methods
        ],
    )
    png = plots.to_png(figure)
    files.write(folder / "plots" / "comparison.png", png)
    content = {
        "title": title,
        "metric": metric,
        "intervals": INTERVALS,
        "choice": advice,
        "chosen_on_test": warning,
        "methods": methods,
        "runs": runs,
    }
    files.write(folder / "comparison.json", files.to_json(content))
    files.write(folder / "comparison.md", _markdown(title, rows, runs, metric, advice, common))
    page = pages.render(
        "comparison.html",
        title=title,
        intervals=INTERVALS,
        choice=advice,
        warning=warning,
        common=common,
        rows=rows,
        columns=tables.columns(rows),
        further=further,
        further_columns=tables.columns(further),
        plot_picture={
            "src": pages.png_uri(png),
            "alt": f"Test {tables.label(metric)} of every run, with mean and interval: "
            + "; ".join(f"{row['method']} {row[_test_column(metric)]}" for row in rows)
            + ".",
        },
        listed=[
            {
                **_run_row(run, metric),
                "report": run["report"],
                "name": pathlib.Path(run["run"]).name,
            }
            for run in runs
        ],
        run_columns=tables.columns([_run_row(run, metric) for run in runs]),
    )
    files.write(folder / "comparison.html", page)
    return rows


def summarise(results: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Returns one entry per method, in order of appearance.

    Each has `method`; of the metric on test `n`, `mean`, `sample_std`, `interval` (see
    `statistics.Mean`) and `values` {seed: value}; `validation`, the same five of the metric on the
    validation split, or None where a run has none; `wall_seconds` (mean over its runs, None if
    unknown); `further`, {name: {"test", "validation"}}, the same of each of `metrics.CLASS_AVERAGES` that
    all runs of the method have; and `difference`, None for the first method and otherwise `to` and the
    fields of `statistics.PairedDifference`, on test.

    Example:
        >>> runs = [{"method": "a", "seed": 0, "run": "a0", "loss": 1.0},
        ...         {"method": "a", "seed": 1, "run": "a1", "loss": 3.0}]
        >>> entry = summarise(runs, "loss")[0]
        >>> entry["mean"], round(entry["sample_std"], 4), entry["n"]
        (2.0, 1.4142, 2)
    """
    methods = list(dict.fromkeys(result["method"] for result in results))
    test = {method: _by_seed(results, method, metric) for method in methods}
    first = methods[0]
    entries = []
    for method in methods:
        own = [result for result in results if result["method"] == method]
        seconds = [
            number(result["wall_seconds"])
            for result in own
            if result.get("wall_seconds") is not None
        ]
        further = {
            name: {
                split: _summary_if_measured(own, prefix + name)
                for split, prefix in (("test", ""), ("validation", VALIDATION))
            }
            for name in _FURTHER
            if all(result.get(name) is not None for result in own)
        }
        difference = None
        if method != first:
            paired = statistics.paired_difference(test[method], test[first])
            difference = {"to": first, **paired.to_json()}
        entries.append(
            {
                "method": method,
                **_summary(test[method]),
                "validation": _summary_if_measured(own, VALIDATION + metric),
                "wall_seconds": python_statistics.fmean(seconds) if seconds else None,
                "further": further,
                "difference": difference,
            }
        )
    return entries


def choice(methods: Sequence[Mapping[str, Any]], metric: str) -> tuple[str, bool]:
    """Returns what may be chosen by the table, and whether choosing would mean choosing on test.

    Args:
        methods: see `summarise`.
        metric: the field that is compared; of several methods the one with the highest validation
            mean is best, or the lowest if its name ends with "loss".
    """
    without = [method["method"] for method in methods if method["validation"] is None]
    if without:
        of = "" if len(without) == len(methods) else f" of {', '.join(without)}"
        return (
            f"Nothing was held out of train in the runs{of}: choosing a method by this table means "
            "choosing on the test split, and the test result of the chosen one is then too good. Hold "
            "images out with data.validation_fraction or data.validation_split.",
            True,
        )
    finite = [method for method in methods if math.isfinite(method["validation"]["mean"])]
    if not finite:
        return "No method has finite validation results.", False
    sign = -1 if metric.endswith("loss") else 1
    best = max(finite, key=lambda method: sign * method["validation"]["mean"])
    text = (
        f"Choose by validation, report test: the best mean on validation is that of {best['method']}, "
        f"{_mean(metric, best['validation'])}; on test it has {_mean(metric, best)}."
    )
    return text, False


def _by_seed(results: Sequence[Mapping[str, Any]], method: str, field: str) -> dict[int, float]:
    return {
        result["seed"]: number(result[field]) for result in results if result["method"] == method
    }


def _summary_if_measured(own: Sequence[Mapping[str, Any]], field: str) -> dict[str, Any] | None:
    """Returns the summary of a field over the runs of a method; None where a run does not have it."""
    if any(result.get(field) is None for result in own):
        return None
    return _summary({result["seed"]: number(result[field]) for result in own})


def _summary(by_seed: Mapping[int, float]) -> dict[str, Any]:
    return {**statistics.mean_over_seeds(list(by_seed.values())).to_json(), "values": by_seed}


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
    methods: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    metric: str,
    shown: Sequence[str],
) -> list[dict[str, Any]]:
    rows = []
    extra = _extra_columns(results, metric)
    for method in methods:
        row = {"method": method["method"]}
        if any(entry["validation"] for entry in methods):
            row[_validation_column(metric)] = _mean(metric, method["validation"])
        row[_test_column(metric)] = _mean(metric, method)
        row |= {_test_column(name): _of_further(method, name, "test") for name in shown}
        row["seeds"] = method["n"]
        if len(methods) > 1:
            row[f"test, against {methods[0]['method']} (95%)"] = _difference(
                metric, method["difference"]
            )
        row["wall time of a run"] = _seconds(method["wall_seconds"])
        row.update({name: column[method["method"]] for name, column in extra.items()})
        rows.append(row)
    return rows


def _further_rows(methods: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the means over seeds of the averages over classes, a row for each; [] where none were measured."""
    measured = [name for name in _FURTHER if any(name in method["further"] for method in methods)]
    rows = []
    for method in methods:
        for split in ("validation", "test"):
            cells = {name: _of_further(method, name, split) for name in measured}
            if any(cell != _NONE for cell in cells.values()):
                labelled = {f"{tables.label(name)} (95%)": cell for name, cell in cells.items()}
                rows.append({"method": method["method"], "split": split, **labelled})
    return rows


def _of_further(method: Mapping[str, Any], name: str, split: str) -> str:
    return _mean(name, method["further"].get(name, {}).get(split))


def _further_fields(results: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """Returns the fields that have no column yet."""
    summarised = (metric, *_FURTHER)
    placed = (*_PLACED, *summarised, *(VALIDATION + name for name in summarised))
    return [name for name in tables.columns(results) if name not in placed]


def _common_fields(results: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Returns the further fields that are the same in all runs."""
    return {
        name: results[0].get(name)
        for name in _further_fields(results, metric)
        if all(result.get(name) == results[0].get(name) for result in results)
    }


def _extra_columns(results: Sequence[Mapping[str, Any]], metric: str) -> dict[str, dict[str, Any]]:
    """Returns {heading: {method: cell}} for the further fields that differ between runs."""
    columns = {}
    common = _common_fields(results, metric)
    for name in _further_fields(results, metric):
        if name in common:
            continue
        found: dict[str, list[Any]] = {}
        for result in results:
            found.setdefault(result["method"], []).append(result.get(name))
        if all(all(value == values[0] for value in values) for values in found.values()):
            columns[tables.label(name)] = {method: values[0] for method, values in found.items()}
        elif tables.is_numeric(results, name):
            columns[f"{tables.label(name)} (mean)"] = {
                method: _formatted(name, python_statistics.fmean(known)) if known else None
                for method, values in found.items()
                for known in [[float(value) for value in values if value is not None]]
            }
    return columns


def _run_row(run: Mapping[str, Any], metric: str) -> dict[str, Any]:
    validation = run.get(VALIDATION + metric)
    return {
        "method": run["method"],
        "seed": run["seed"],
        **(
            {}
            if validation is None
            else {f"validation {_short(metric)}": _formatted(metric, number(validation))}
        ),
        f"test {_short(metric)}": _formatted(metric, number(run[metric])),
        "wall time": _seconds(run.get("wall_seconds")),
    }


def _markdown(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    metric: str,
    advice: str,
    common: Mapping[str, Any],
) -> str:
    listed = [
        {
            **_run_row(run, metric),
            "report": f"[{run['run']}]({run['report']})" if run["report"] else str(run["run"]),
        }
        for run in runs
    ]
    parts = [
        f"# {title}",
        *([_listed(common)] if common else []),
        tables.format_markdown(rows),
        advice,
        INTERVALS,
        f"![Test {tables.label(metric)} of every run](plots/comparison.png)",
        "## Runs",
        tables.format_markdown(listed),
    ]
    return "\n\n".join(parts) + "\n"


def report_link(folder: pathlib.Path, run: str | os.PathLike[str]) -> str | None:
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
    return metric.endswith("accuracy") or metric in _FURTHER


def _scaled(metric: str, value: float) -> float:
    return 100 * value if _in_percent(metric) else value


def _formatted(metric: str, value: float | None) -> str:
    if value is None:
        return _NONE
    if not math.isfinite(value):
        return "not finite"
    return f"{100 * value:.2f}%" if _in_percent(metric) else f"{value:.4g}"


def _listed(fields: Mapping[str, Any]) -> str:
    """Returns "test examples 500, device cpu"."""
    return ", ".join(
        f"{tables.label(name)} {tables.format_value(value)}" for name, value in fields.items()
    )


def _test_column(metric: str) -> str:
    return f"test {_short(metric)} (95%)"


def _validation_column(metric: str) -> str:
    return f"validation {_short(metric)} (95%)"


def _short(metric: str) -> str:
    """Returns "top-1" for "top1_accuracy"."""
    return tables.label(metric).removesuffix(" accuracy")


def _mean(metric: str, entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return _NONE
    estimate = statistics.Mean(entry["n"], entry["mean"], entry["sample_std"], entry["interval"])
    return intervals.mean(estimate, percent=_in_percent(metric))


def _difference(metric: str, entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return _NONE
    fields = {name: value for name, value in entry.items() if name != "to"}
    return intervals.difference(statistics.PairedDifference(**fields), percent=_in_percent(metric))


def _drawn(metric: str, entry: Mapping[str, Any]) -> tuple[list[float], tuple[float, float] | None]:
    """Returns the values and the interval of a mean or a difference in the unit of the plot."""
    interval = entry["interval"]
    if interval is not None:
        interval = _scaled(metric, interval[0]), _scaled(metric, interval[1])
    return [_scaled(metric, value) for value in entry["values"].values()], interval
