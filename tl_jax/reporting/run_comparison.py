"""Finished runs side by side: tables for the terminal, Markdown and a page, figures."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tl_jax import files
from tl_jax.reporting import intervals, pages, plots, side_by_side, tables
from tl_jax.reporting.tables import number

_NONE = intervals.NONE
_CLASSES_PRINTED = 10
_MADE_WITH_TEXT = "Other packages are listed where their versions differ."
_METRICS_TEXT = (
    "In parentheses: 95% interval over the choice of images (Wilson's), of one run alone."
)
_PAIRS_TEXT = (
    "The difference is that of top-1 on the same test images, with the 95% interval of a bootstrap over images. "
    "McNemar's exact test looks at the images that one of the two alone has right. Both are about the choice of the "
    "images, not about that of the seed: only several seeds tell whether a method is better "
    "(experiments.compare --config)."
)
_HOLM_TEXT = " Holm's correction is for the number of comparisons."
_AGREEMENT_TEXT = (
    "Share of test images of which two runs predict the same class, right or wrong; in parentheses Cohen's kappa, "
    "the agreement beyond chance."
)
_CALIBRATION_TEXT = (
    "Of the predicted class's probability on test: ECE is the mean distance of confidence and accuracy over 15 bins, "
    "the Brier score the mean squared distance to the true class (0 to 2), the loss cross-entropy. Lower is better."
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a comparison.

    Attributes:
        id: of the page.
        title: the line above.
        rows: of the table; its keys are the headings as they are, and a run may be one.
        text: what the numbers mean, below the table.
    """

    id: str
    title: str
    rows: list[dict[str, Any]]
    text: str = ""


def write_run_comparison(folder: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes `comparison.json`, `.md` and `.html` and `plots/*.png` into `folder`, which is made if missing.

    Args:
        folder: where to write.
        content: what `runs.compare_runs` returns.
    """
    folder = pathlib.Path(folder)
    # First: it says whose folder this is, should this process be killed.
    files.write(folder / "comparison.json", files.to_json(dict(content)))
    pictures: dict[str, list[dict[str, str]]] = {}
    for section, name, figure, alt in _figures(content):
        png = plots.to_png(figure)
        files.write(folder / "plots" / f"{name}.png", png)
        pictures.setdefault(section, []).append(
            {"src": pages.png_uri(png), "alt": alt, "file": f"plots/{name}.png"}
        )
    runs = [{**run, "report": pages.report_link(folder, run["path"])} for run in content["runs"]]
    shown = sections(content)
    files.write(folder / "comparison.md", _markdown(content, runs, shown, pictures))
    page = pages.render(
        "comparison.html",
        title=content["title"],
        notes=content["notes"],
        runs=runs,
        sections=shown,
        pictures=pictures,
    )
    files.write(folder / "comparison.html", page)


def sections(content: Mapping[str, Any], brief: bool = False) -> list[Section]:
    """Returns the tables of a comparison; a section without rows has only a text, or pictures.

    Args:
        content: what `runs.compare_runs` returns.
        brief: whether of many classes those that changed most are enough.
    """
    found = [
        Section("metrics", "Metrics", _metric_rows(content), _METRICS_TEXT),
        _pairs(content),
        _config(content),
        Section("made-with", "What ran them", _made_with_rows(content), _MADE_WITH_TEXT),
    ]
    agreement = _agreement_rows(content)
    if agreement:
        found.append(Section("agreement", "Agreement on test", agreement, _AGREEMENT_TEXT))
    if content["classes"]:
        found.append(_classes(content, brief))
    if content["calibration"]:
        rows = _calibration_rows(content)
        found.append(Section("calibration", "Calibration on test", rows, _CALIBRATION_TEXT))
    if content["curves"] and not brief:
        found.append(Section("curves", "Curves", []))
    if brief and content["notes"]:
        found.append(Section("notes", "Notes", [], "\n".join(content["notes"])))
    return found


def _metric_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    sealed = {run["name"] for run in content["runs"] if run["sealed"]}
    measured = content["metrics"]
    validated = any("validation" in splits for splits in measured.values())
    rows = []
    for name, splits in measured.items():
        test = splits.get("test", {})
        row = {"run": name}
        if validated:
            row["validation top-1 (95%)"] = _top1(splits.get("validation"))
        row["test top-1 (95%)"] = "sealed, not read" if name in sealed else _top1(test)
        row["test balanced accuracy"] = _percent(test.get("balanced_accuracy"))
        row["test macro F1"] = _percent(test.get("macro_f1"))
        row["test loss"] = _fixed(test.get("loss"))
        rows.append(row)
    return rows


def _top1(split: Mapping[str, Any] | None) -> str:
    if not split:
        return _NONE
    return intervals.single_run({**split, "top1_accuracy": number(split["top1_accuracy"])})


def _pairs(content: Mapping[str, Any]) -> Section:
    first, rows = content["first"], []
    corrected = any("p_holm" in pair for pair in content["pairs"])
    for pair in content["pairs"]:
        row = {"run": pair["run"]}
        if pair["not_paired"]:
            row[f"top-1 minus that of {first} (95%)"] = "not compared"
        else:
            row[f"top-1 minus that of {first} (95%)"] = _difference(pair)
            row["right in this run alone"] = pair["only_run"]
            row[f"right in {first} alone"] = pair["only_first"]
            row["images"] = pair["examples"]
            row["McNemar's p"] = _p_value(pair["p_mcnemar"])
            if corrected:
                row["p, Holm"] = _p_value(pair["p_holm"])
        rows.append(row)
    if all(pair["not_paired"] for pair in content["pairs"]):
        why = "; ".join(f"{pair['run']}: {pair['not_paired']}" for pair in content["pairs"])
        return Section("pairs", "Image by image", [], f"No run is compared with {first}: {why}.")
    text = _PAIRS_TEXT + (_HOLM_TEXT if corrected else "")
    return Section("pairs", f"Image by image, against {first}", rows, text)


def _difference(pair: Mapping[str, Any]) -> str:
    low, high = pair["interval"]
    return f"{100 * pair['difference']:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"


def _config(content: Mapping[str, Any]) -> Section:
    rows, names = [], [run["name"] for run in content["runs"]]
    marked = ""
    for entry in content["config"]["differing"]:
        mark = "" if entry["changes_numbers"] else " *"
        marked = marked or mark
        rows.append(
            {"config field": entry["field"] + mark, **{name: _value(entry, name) for name in names}}
        )
    lines = [] if rows else ["No field differs."]
    if marked:
        lines.append("*: cannot change a number of the result.")
    for name, fields in content["config"]["absent"].items():
        lines.append(
            f"{name} is of an older version and does not have these fields; the others have their defaults: "
            f"{', '.join(fields)}."
        )
    return Section("config", "Config: fields that differ", rows, "\n".join(lines))


def _value(entry: Mapping[str, Any], run: str) -> str:
    if run in entry["values"]:
        return tables.format_setting(entry["values"][run])
    if run in entry["defaults"]:
        return f"absent (default: {tables.format_setting(entry['defaults'][run])})"
    return _NONE


def _made_with_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    # No run has an empty name.
    return [{"": entry["what"], **entry["values"]} for entry in content["made_with"]]


def _agreement_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the matrix, or nothing where no two runs are compared image by image."""
    table = content["agreement"]
    rows = []
    for name, row in table.items():
        cells: dict[str, Any] = {"": name}
        for other, found in row.items():
            if found is None or other == name:
                cells[other] = "" if other == name else _NONE
            else:
                kappa = "" if found["kappa"] is None else f" ({found['kappa']:.3f})"
                cells[other] = f"{100 * found['share']:.2f}%{kappa}"
        rows.append(cells)
    known = any(
        found for name, row in table.items() for other, found in row.items() if other != name
    )
    return rows if known else []


def _classes(content: Mapping[str, Any], brief: bool) -> Section:
    first, entries = content["first"], content["classes"]
    runs = list(entries[0]["gained"])

    def largest_change(entry: Mapping[str, Any]) -> float:
        return max(abs(entry["recall"][run] - entry["recall"][first]) for run in runs)

    ordered = sorted(entries, key=largest_change, reverse=True)
    shown = ordered[:_CLASSES_PRINTED] if brief else ordered
    rows = []
    for entry in shown:
        before = entry["recall"][first]
        row = {
            "test class": entry["class"],
            "test images": entry["examples"],
            f"recall of {first}": f"{100 * before:.1f}%",
        }
        for run in runs:
            after = entry["recall"][run]
            row[f"recall of {run}"] = (
                f"{100 * after:.1f}% ({100 * (after - before):+.1f}; {entry['gained'][run]} gained, "
                f"{entry['lost'][run]} lost)"
            )
        rows.append(row)
    text = (
        f"In parentheses: the change against {first} in points, the images that became right and those that became "
        "wrong. A class with few images changes by chance."
    )
    if len(shown) < len(ordered):
        text += f" The {len(shown)} of {len(ordered)} classes that changed most are shown."
    return Section("classes", "Classes, those that changed most first", rows, text)


def _calibration_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "run": name,
            "images": entry["examples"],
            "top-1": _percent(entry["top1_accuracy"]),
            "mean confidence": _percent(entry["confidence"]),
            "ECE": _fixed(entry["ece"]),
            "Brier score": _fixed(entry["brier"]),
            "loss": _fixed(entry["loss"]),
        }
        for name, entry in content["calibration"].items()
    ]


def _figures(content: Mapping[str, Any]) -> list[tuple[str, str, Any, str]]:
    """Returns (section, name of its file, figure, what it shows in words) for every picture."""
    found: list[tuple[str, str, Any, str]] = []
    paired = [pair for pair in content["pairs"] if not pair["not_paired"]]
    if paired:
        rows = {
            pair["run"]: (pair["difference"], (pair["interval"][0], pair["interval"][1]))
            for pair in paired
        }
        alt = "; ".join(f"{pair['run']} {_difference(pair)}" for pair in paired)
        figure = side_by_side.differences(content["first"], rows)
        alt = f"Test top-1 minus that of {content['first']}: {alt}."
        found.append(("pairs", "differences", figure, alt))
    if content["calibration"]:
        errors = ", ".join(
            f"{name} {entry['ece']:.4f}" for name, entry in content["calibration"].items()
        )
        figure = side_by_side.reliabilities(content["calibration"])
        alt = f"Reliability diagrams; expected calibration error: {errors}."
        found.append(("calibration", "reliability", figure, alt))
    for entry in content["curves"]:
        series = {
            name: (run["steps"], [number(value) for value in run["values"]])
            for name, run in entry["runs"].items()
        }
        title = f"{entry['split']} {tables.label(entry['metric'])}"
        ends = ", ".join(
            f"{name} ends at {values[-1]:.4g} (step {steps[-1]:,})"
            for name, (steps, values) in series.items()
        )
        figure = side_by_side.curves(title, series, [run["name"] for run in content["runs"]])
        name = f"{entry['split']}_{entry['metric']}"
        found.append(("curves", name, figure, f"Curves of {title} over the updates: {ends}."))
    return found


def _markdown(
    content: Mapping[str, Any],
    runs: list[dict[str, Any]],
    shown: list[Section],
    pictures: Mapping[str, list[dict[str, str]]],
) -> str:
    listed = [
        {
            "run": f"[{run['name']}]({run['report']})" if run["report"] else run["name"],
            "what is reported": run["reports"],
        }
        for run in runs
    ]
    parts = [f"# {content['title']}", tables.format_markdown(listed, as_named=True)]
    parts += [f"- {note}" for note in content["notes"]]
    for section in shown:
        parts.append(f"## {section.title}")
        if section.rows:
            parts.append(tables.format_markdown(section.rows, as_named=True))
        parts += [section.text.replace("\n", "\n\n")] * bool(section.text)
        parts += [
            f"![{picture['alt']}]({picture['file']})" for picture in pictures.get(section.id, ())
        ]
    return "\n\n".join(parts) + "\n"


def _percent(value: Any) -> str:
    share = number(value)
    return f"{100 * share:.2f}%" if math.isfinite(share) else _NONE


def _fixed(value: Any) -> str:
    found = number(value)
    return f"{found:.4f}" if math.isfinite(found) else _NONE if value is None else "not finite"


def _p_value(p_value: float) -> str:
    return f"{p_value:.4f}" if p_value >= 1e-4 else "<0.0001"
