"""The report of a run: one page that opens from disk, made from the files of its folder alone."""

import math
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tl_jax import console, files, trees
from tl_jax.reporting import analysis, intervals, pages, plots, run_files, scatter, tables
from tl_jax.training import metrics

# The first curves of the report, and which validation value is marked as the best; any other metric
# of metrics.jsonl follows.
_CURVES: dict[str, str | None] = {
    "loss": "min",
    "top1_accuracy": "max",
    "top5_accuracy": None,
    "learning_rate": None,
    "grad_norm": None,
}
_NO_CURVE = ("step", "split", "examples", "seconds", "waiting_seconds", *metrics.CLASS_AVERAGES)
# Columns of the splits, where they were measured.
_BESIDE_TOP1 = ("balanced_accuracy", "macro_f1")
_MOST_CURVES = 8
# With more classes the table shows the worst ones and folds the others.
_CLASSES_SHOWN = 20


def write_report(
    folder: str | os.PathLike[str], *, result: Mapping[str, Any] | None = None
) -> pathlib.Path:
    """Writes `report.html` and `plots/*.png` from the files of a run folder; returns the page.

    The page holds everything it shows: it loads nothing from anywhere. A file of the folder that is
    missing or broken costs the sections that need it, and the page says so.

    Args:
        folder: the run folder.
        result: what result.json is going to hold, for a run that has still to write it.

    Raises:
        InputError: if there is no such folder.
    """
    folder = pathlib.Path(folder)
    run = run_files.read_run(folder)
    notes = list(run.notes)
    if result is None:
        result = run.result
    else:
        notes = [note for note in notes if not note.startswith("result.json ")]

    def save(name: str, figure: Any, alt: str) -> dict[str, str]:
        png = plots.to_png(figure)
        files.write(folder / "plots" / f"{name}.png", png)
        return {"src": pages.png_uri(png), "alt": alt, "name": name}

    results = result or {}
    provenance, port_tables = _port_facts(run.port_report)
    context = {
        "title": _title(run.config, folder),
        "folder": folder.resolve().name,
        "finished": results.get("status") == "finished",
        "result": results,
        "splits": _splits(results),
        # Of five classes or fewer the top-5 accuracy says nothing.
        "top5": len(results.get("class_names") or range(6)) > 5,
        "class_weights": _class_weights(results),
        "facts": _facts(results),
        "versions": results.get("versions") or {},
        "frozen": results.get("frozen"),
        "curves": _curves(run.metrics, save, notes, results.get("selected_by")),
        "predictions": _predictions(run.predictions, save, notes),
        "scatter": _scatter(folder, notes),
        "freezing": run.freezing,
        "heads": (results.get("solver") or {}).get("heads") or [],
        "members": (results.get("soup") or {}).get("members") or [],
        "phases": _phases(results),
        "provenance": provenance,
        "port_tables": port_tables,
        "config": _config_groups(run.config),
        "used": _settings(results.get("preprocessing") or {}),
        "deviations": results.get("deviations") or [],
        "notes": notes,
    }
    path = folder / run_files.REPORT_FILE
    files.write(path, pages.render("report.html", **context))
    return path


def _title(config: Mapping[str, Any] | None, folder: pathlib.Path) -> str:
    """Returns "resnet50 on cifar10" where the config says so, else the name of the folder."""
    config = config or {}
    model = (config.get("model") or {}).get("name")
    data = (config.get("data") or {}).get("name")
    return f"{model} on {data}" if model and data else folder.resolve().name


def _splits(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row per evaluated split; accuracies as fractions with their 95% interval."""
    rows = []
    for name, values in (result.get("splits") or {}).items():
        accuracy, examples = tables.number(values.get("top1_accuracy")), values.get("examples")
        interval = None
        if examples and math.isfinite(accuracy):
            interval = intervals.of_accuracy(accuracy, int(examples))
        rows.append(
            {
                "name": name,
                "examples": examples,
                "top1_accuracy": accuracy,
                "interval": interval,
                "top5_accuracy": tables.number(values.get("top5_accuracy")),
                **{
                    name: tables.number(values.get(name)) if name in values else None
                    for name in _BESIDE_TOP1
                },
                "loss": tables.number(values.get("loss")),
            }
        )
    return sorted(rows, key=lambda row: {"test": 0, "validation": 1}.get(row["name"], 2))


def _share(value: Any) -> str:
    """Returns a share of the time in percent; "" where there is none."""
    share = tables.number(value)
    return f"{100 * share:.2f}% of the time" if math.isfinite(share) else ""


def _idle(value: Any) -> str:
    """Returns for how long the devices had nothing to do, and what counts; "" where that is not known."""
    share = _share(value)
    return f"{share}, what is compiled, saved and logged meanwhile included" if share else ""


def _numerics(numerics: Mapping[str, Any]) -> str:
    """Returns the precision of products, and what else was asked of the compiler; "" where that is not known."""
    if not numerics:
        return ""
    precision, of_jax = numerics["precision"], numerics["jax_default_matmul_precision"]
    parts = [f"{precision} (JAX: {of_jax})" if precision == "default" and of_jax else precision]
    if numerics["deterministic"]:
        parts.append("deterministic")
    parts += [f"{name}={value}" for name, value in numerics["compiler_options"].items()]
    parts += [f"{name} refused" for name in numerics["refused_options"]]
    return ", ".join(parts)


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (what, value) pairs about how the numbers were made."""
    device = result.get("device") or {}
    seconds, speed = (
        tables.number(result.get("wall_seconds")),
        tables.number(result.get("images_per_second")),
    )
    steps = result.get("steps")
    facts = [
        (
            "device",
            f"{device.get('count', 1)} x {device.get('kind')} ({device.get('platform')})"
            if device
            else "",
        ),
        ("wall time", tables.duration(seconds) if math.isfinite(seconds) else ""),
        ("updates", tables.format_value(steps)),
        ("speed", f"{speed:,.0f} images/s" if math.isfinite(speed) else ""),
        ("training data", _placement(result)),
        ("images left out", _skipped(result.get("data_skipped"))),
        ("waiting for data", _share(result.get("waiting_share"))),
        ("devices idle", _idle(result.get("device_idle_share"))),
        ("precision", _numerics(result.get("numerics") or {})),
        ("activations", _stored(result.get("cache"))),
        ("git revision", result.get("git_revision") or ("not known" if result else "")),
    ]
    return [(name, value) for name, value in facts if value]


def _class_weights(result: Mapping[str, Any]) -> str:
    """Returns the weights of the classes in the loss, of many the smallest and the largest; "" without any."""
    weights = sorted((result.get("class_weights") or {}).items(), key=lambda item: item[1])
    shown = weights if len(weights) <= _CLASSES_SHOWN else [weights[0], weights[-1]]
    text = "; ".join(f"{name}: {tables.format_value(weight)}" for name, weight in shown)
    return (
        text if shown == weights else f"{len(weights)} classes, from {text.replace('; ', ' to ')}"
    )


def _phases(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row per phase of a run that has several; [] for others."""
    phases = result.get("phases") or []
    return [
        {
            "phase": row["phase"],
            "updates": f"{row['first_step'] + 1:,} to {row['last_step']:,}",
            "trained": row["trainable"],
            "frozen leaves": row["frozen"]["frozen_leaves"],
            "activations after": (row["cache"] or {}).get("boundary", "-"),
            "time": tables.duration(row["seconds"]),
            "sets": ", ".join(row["assignments"]) or "-",
        }
        for row in (phases if len(phases) > 1 else [])
    ]


def _placement(result: Mapping[str, Any]) -> str:
    dispatched = result.get("dispatch")
    if not dispatched:
        return ""
    count = dispatched["updates_per_dispatch"]
    return dispatched["data"] + (f", up to {count} updates a dispatch" if count > 1 else "")


def _skipped(skipped: Mapping[str, Any] | None) -> str:
    if not skipped or not skipped["count"]:
        return ""
    names = [os.path.basename(name) for name in skipped["first"]]
    more = f" and {skipped['count'] - len(names)} more" if skipped["count"] > len(names) else ""
    return f"{skipped['count']:,} that cannot be read: {', '.join(names)}{more}"


def _stored(cache: Mapping[str, Any] | None) -> str:
    if not cache:
        return ""
    found = {bank["state"] for bank in cache["banks"]}
    text = f"computed once after {cache['boundary']}, read from {cache['storage']}"
    text += (
        ", found from an earlier run"
        if found == {"there"}
        else f", {tables.duration(cache['seconds'])} of the wall time"
    )
    verified = cache.get("verified")
    if verified:
        text += (
            f"; {verified['updates']} updates both ways differ by "
            f"{verified['largest_difference']:.1e} at most"
        )
    return text


def _curves(
    lines: list[dict[str, Any]],
    save: Callable[..., dict[str, str]],
    notes: list[str],
    selected_by: str | None,
) -> list[dict[str, str]]:
    """Returns the pictures of the metrics by step, that of the metric which chose the step among them."""
    if all(line["step"] == 0 for line in lines):
        return []  # of a head that was solved: points, which the tables have
    modes = dict(_CURVES)
    if selected_by:
        modes.setdefault(selected_by, metrics.SELECTION.get(selected_by))
    series: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    broken: dict[str, int] = {}
    for line in lines:
        for name, value in line.items():
            if name in _NO_CURVE and name != selected_by:
                continue
            steps, values = series.setdefault(name, {}).setdefault(line["split"], ([], []))
            steps.append(line["step"])
            values.append(tables.number(value))
            if not math.isfinite(values[-1]):
                broken[name] = broken.get(name, 0) + 1
    first = [name for name in modes if name in series]
    names = first + sorted(name for name in series if name not in modes)
    pictures = []
    for name in names[:_MOST_CURVES]:
        mode = modes.get(name)
        figure = plots.curve(tables.label(name), series[name], mode)
        pictures.append(save(name.replace("/", "_"), figure, _curve_alt(name, series[name], mode)))
    for name, count in broken.items():
        notes.append(f"{count} values of {name} in metrics.jsonl are not finite and are not drawn.")
    if names[_MOST_CURVES:]:
        notes.append(f"Metrics without a curve here: {', '.join(names[_MOST_CURVES:])}.")
    return pictures


def _curve_alt(
    name: str, series: Mapping[str, tuple[list[float], list[float]]], mode: str | None
) -> str:
    ends = ", ".join(
        f"{split} ends at {values[-1]:.4g} (step {steps[-1]:,})"
        for split, (steps, values) in series.items()
    )
    text = f"Curve of {tables.label(name)} over the updates: {ends}"
    if mode and "validation" in series:
        steps, values = series["validation"]
        place = plots.best_index(values, mode)
        if place is not None:
            text += f"; best validation value {values[place]:.4g} at step {steps[place]:,}"
    return text + "."


def _predictions(
    found: run_files.Predictions | None,
    save: Callable[..., dict[str, str]],
    notes: list[str],
) -> dict[str, Any] | None:
    if found is None:
        return None
    names = found.class_names
    confusion = metrics.confusion_matrix(found.labels, found.predicted, len(names))
    calibration = metrics.calibration(found.probabilities, found.labels)
    right = int(np.trace(confusion))
    accuracy = right / len(found.labels)
    confidence = float(found.confidence.mean())
    rows = analysis.class_rows(confusion, names)
    mistakes = analysis.confident_mistakes(found)
    if not mistakes and right < len(found.labels):
        notes.append("predictions.npz holds no pictures of mistakes: none are shown.")
    count = len(found.labels)
    return {
        "split": found.split,
        "examples": count,
        "right": right,
        "accuracy": accuracy,
        "ece": calibration["ece"],
        "mean_confidence": confidence,
        "num_classes": len(names),
        "averaged_classes": console.count(
            len(np.union1d(found.labels, found.predicted[found.predicted >= 0])), "class"
        ),
        "rows": rows[:_CLASSES_SHOWN],
        "folded_rows": rows[_CLASSES_SHOWN:],
        "averages": metrics.class_averages(found.labels, found.predicted, len(names)),
        "top_confusions": analysis.top_confusions(confusion, names),
        "confusion": save(
            "confusion",
            plots.confusion(confusion, names),
            f"Confusion matrix of {len(names)} classes: {right:,} of {count:,} examples on the "
            "diagonal.",
        ),
        "reliability": save(
            "reliability",
            plots.reliability(calibration),
            f"Reliability diagram: expected calibration error {calibration['ece']:.4f}, "
            f"mean confidence {confidence:.4f}, accuracy {accuracy:.4f}.",
        ),
        "mistakes": [
            {
                "src": pages.png_uri(pages.image_png(mistake.image)),
                "caption": mistake.caption,
                "mistake": mistake,
            }
            for mistake in mistakes
        ],
    }


def _scatter(folder: pathlib.Path, notes: list[str]) -> dict[str, Any] | None:
    try:
        return scatter.write_plots(folder)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        notes.append(
            f"{run_files.SCATTER_FILE} cannot be used ({error}): no scatter plots are shown."
        )
        return None


def _port_facts(
    report: Mapping[str, Any] | None,
) -> tuple[list[tuple[str, str]] | None, list[tuple[str, list[dict[str, Any]]]]]:
    """Returns the short facts of a port report, and its tables by name, to be folded."""
    if report is None:
        return None, []
    facts: list[tuple[str, str]] = []
    listed: list[tuple[str, list[dict[str, Any]]]] = []
    for name, value in trees.flatten(report, ".").items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            listed.append((name, value))
        elif name != "format" and value not in (None, "", [], {}):
            facts.append((name.replace("counts.", ""), tables.format_value(value)))
    return facts, listed


def _config_groups(config: Mapping[str, Any] | None) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns [(section, [(field, value)])]; fields outside a section come first, under ""."""
    if not config:
        return []
    groups = [("", {name: value for name, value in config.items() if not isinstance(value, dict)})]
    groups += [(name, value) for name, value in config.items() if isinstance(value, dict)]
    return [(section, _settings(fields)) for section, fields in groups if fields]


def _settings(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, tables.format_setting(value)) for name, value in trees.flatten(fields, ".").items()
    ]
