"""The page of an ablation: what was asked, how test was used, tables, figures, and a link to every run."""

import dataclasses
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax import console, files
from tl_jax.ablation.analysis import Row
from tl_jax.ablation.record import Record
from tl_jax.ablation.spec import Spec
from tl_jax.reporting import pages, tables
from tl_jax.reporting.run_files import REPORT_FILE

PAGE = "report.html"
FIGURES = "figures"
_KINDS = ("png", "svg")
# Figures that are wider, in inches, have the whole width of the page.
_WIDE = 8.0
_QUESTIONS = {
    "effects": "How does each variant differ from {reference}?",
    "best": "Which variant is best? The others are compared with the one that is best on validation, and "
    "p-values are corrected for being several (Holm).",
}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        title: its heading.
        rows: as `tables.format_markdown` takes them.
        caption: how to read it; "" for none.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    caption: str = ""


def write(
    spec: Spec,
    record: Record,
    rows: Sequence[Row],
    chosen: Mapping[tuple[str, int], int],
    content: Mapping[str, Any],
    sections: Sequence[Table],
) -> pathlib.Path:
    """Writes `report.html` and the figures of an ablation whose test split was read; returns the page.

    Args:
        spec: of the ablation.
        record: its folder.
        rows: of all cells, see `analysis.choose`.
        chosen: the trial of each variant and number of labels.
        content: of `ablation.json`.
        sections: the tables, in their order.
    """
    # Late: matplotlib would hold up the start of the command.
    from tl_jax.ablation import figures

    drawn = figures.draw(figures.Results(spec, record.folder, rows, chosen, content["test"]))
    pictures = _write_figures(record.folder / FIGURES, drawn)
    log = record.log()
    path = record.folder / PAGE
    page = pages.render(
        "ablation.html",
        title=f"Ablation: {content['title']}",
        counts=[
            console.count(len(spec.variants), "variant"),
            *([f"{len(spec.labelled)} numbers of labels"] if len(spec.labelled) > 1 else []),
            console.count(len(spec.seeds), "seed"),
            console.count(len(rows), "run"),
        ],
        question=_QUESTIONS[spec.question].format(
            reference="what it is compared with" if spec.pairs else spec.reference
        ),
        asked=_asked(spec),
        variants=_variants(spec),
        notes=content["notes"],
        answers=content["answers"],
        use_of_test=_use_of_test(spec, log),
        amendments=[line for line in log if line["what"] == "amended"],
        outside=[line["cell"] for line in log if line["what"] == "opened outside"],
        explained=content["explained"],
        sections=sections,
        pictures=pictures,
        ended=_ended(rows),
        failures=[
            {**_named(row), "status": row["status"], "error": row["error"]}
            for row in rows
            if row["error"] is not None
        ],
        runs=[{"fields": _run(spec, row), "link": link(record.folder, row["run"])} for row in rows],
    )
    files.write(path, page)
    return path


def link(folder: pathlib.Path, run: str) -> str | None:
    """Returns the relative URL of a run's report, without one of its folder; None if there is no such folder."""
    for target in (f"{run}/{REPORT_FILE}", run):
        if (folder / target).exists():
            return urllib.parse.quote(target)
    return None


def _write_figures(folder: pathlib.Path, drawn: Sequence[Any]) -> list[dict[str, str]]:
    """Writes the figures, and removes those of an earlier spec; returns what the page says of them."""
    from tl_jax.reporting import interval_plots

    pictures, written = [], set()
    for figure in drawn:
        content = {kind: interval_plots.to_bytes(figure.drawn, kind) for kind in _KINDS}
        for kind, data in content.items():
            files.write(folder / f"{figure.name}.{kind}", data)
            written.add(f"{figure.name}.{kind}")
        pictures.append(
            {
                "title": figure.title,
                "caption": figure.caption,
                "alt": figure.alt,
                "src": pages.png_uri(content["png"]),
                "size": "" if figure.drawn.get_figwidth() > _WIDE else "medium",
                "svg": urllib.parse.quote(f"{FIGURES}/{figure.name}.svg"),
            }
        )
    for path in folder.glob("*.*"):
        if path.suffix.removeprefix(".") in _KINDS and path.name not in written:
            path.unlink(missing_ok=True)  # another launcher may be as far
    return pictures


def _asked(spec: Spec) -> dict[str, str]:
    """Returns what a reader has to know of the spec, by name."""
    labels = ", ".join(f"{shots:,}" if shots else "all" for shots in spec.labelled)
    return {
        "metric": tables.label(spec.metric),
        "seeds": ", ".join(map(str, spec.seeds)),
        "labels per class": labels,
        "a difference": f"has a p-value below {spec.level:g}",
    }


def _variants(spec: Spec) -> list[dict[str, str]]:
    """Returns a row for each variant: what it sets, and what was tuned."""
    found = []
    for variant in spec.variants:
        tuned = spec.tune_of.get(variant, spec.tune)
        values = "; ".join(f"{field}: {', '.join(map(str, of))}" for field, of in tuned.items())
        trials = console.count(len(spec.trials(variant)), "trial")
        found.append(
            {
                "variant": variant,
                "sets": ", ".join(spec.assignments(variant)) or "nothing: the base as it is",
                "tuned": f"{values} ({trials} of each seed)" if values else "nothing",
            }
        )
    return found


def _use_of_test(spec: Spec, log: Sequence[Mapping[str, Any]]) -> str:
    """Returns a sentence that says for how many runs test was opened, and when."""
    times = sorted(line["time"] for line in log if line["what"] == "opened")
    if not times:
        return "The test split was opened for no run by this ablation."
    when = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    text = (
        f"The test split was opened for {console.count(len(times), 'run')} ({when}), each time after all runs "
        "had ended and the trials were chosen on validation."
    )
    closed = [variant for variant in spec.variants if variant not in spec.opened]
    return f"{text} It was not opened for {', '.join(closed)}." if closed else text


def _ended(rows: Sequence[Row]) -> str:
    """Returns "12 finished, 3 diverged"."""
    statuses = dict.fromkeys(row["status"] for row in rows)
    return ", ".join(
        f"{sum(row['status'] == status for row in rows)} {status}" for status in statuses
    )


def _named(row: Row) -> dict[str, Any]:
    """Returns which run a row is of."""
    values = ", ".join(f"{name}={value}" for name, value in row["values"].items())
    return {
        "variant": row["variant"],
        "labels per class": row["shots"] or "all",
        **({"trial": values} if values else {}),
        "seed": str(row["seed"]),
    }


def _run(spec: Spec, row: Row) -> dict[str, Any]:
    percent = spec.metric != "loss"

    def shown(value: float | None) -> str:
        if value is None:
            return "-"
        return f"{100 * value:.2f}%" if percent else f"{value:.4g}"

    return {
        **_named(row),
        "status": row["status"],
        "validation": shown(row["validation"]),
        "test": shown(row.get("test")),
        "time": "-" if row["seconds"] is None else tables.duration(row["seconds"]),
    }
