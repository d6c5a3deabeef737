"""What an ablation leaves: its tables as JSON, Markdown, LaTeX and CSV, and on the terminal, and its page."""

from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax import console, files, reporting
from tl_jax.ablation import analysis, costs, page
from tl_jax.ablation.record import Record
from tl_jax.ablation.spec import Spec
from tl_jax.reporting import intervals, tables
from tl_jax.statistics import Mean, PairedDifference

EXPLAINED = (
    "Intervals are 95% t-intervals over seeds. A difference is the mean over pairs of runs of one seed; p is of the "
    "paired t-test, p (signs) of the exact permutation test of pairs, which cannot be below 2 / 2^n. Noise: the "
    "p-value is not below the level."
)


def write(
    spec: Spec,
    record: Record,
    rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[tuple[str, int], int],
    *,
    peek: bool,
) -> dict[str, Any]:
    """Writes and prints the tables of an ablation; a peek is printed alone. Returns what `ablation.json` holds.

    Args:
        spec: of the ablation.
        record: its folder.
        rows: of all cells, see `analysis.choose`.
        chosen: the trial of each variant and number of labels.
        peek: whether it is an early look, at validation alone.
    """
    validation = analysis.summarise(spec, rows, chosen, "validation")
    test = [] if peek else analysis.summarise(spec, rows, chosen, "test")
    notes = _notes(record.log())
    left = sum(row["status"] == analysis.TO_BE_RUN for row in rows)
    content = {
        "metric": spec.metric,
        "question": spec.question,
        "level": spec.level,
        "explained": EXPLAINED,
        "notes": notes,
        "test": test,
        "validation": validation,
        "runs": list(rows),
    }
    for name, summary in (("test", test), ("validation", validation)):
        if summary:
            title = f"{tables.label(spec.metric)} on {name}"
            reporting.print_table(title, table(spec, summary, name), level="normal")
    for note in notes:
        console.note(note)
    if peek:
        console.say(
            f"{len(rows) - left} of {len(rows)} cells are trained; test has not been looked at"
        )
        return content
    files.write(record.folder / "ablation.json", files.to_json(content))
    sections = [
        *(
            page.Table(f"{title}: {tables.label(spec.metric)}", table(spec, summary, title.lower()))
            for title, summary in (("Test", test), ("Validation", validation))
        ),
        page.Table(
            "Time of training and validation",
            costs.table(spec, rows, chosen, test),
            costs.EXPLAINED,
        ),
    ]
    lines = ["# Ablation", "", EXPLAINED, "", *(f"Note: {note}" for note in notes)]
    for section in sections:
        said = [section.caption, ""] if section.caption else []
        lines += ["", f"## {section.title}", "", *said, tables.format_markdown(section.rows)]
    files.write(record.folder / "ablation.md", "\n".join(lines) + "\n")
    files.write(
        record.folder / "ablation.tex", tables.format_latex(table(spec, test, "test")) + "\n"
    )
    plain = [{**row, "values": assigned(row["values"])} for row in rows]
    files.write(record.folder / "runs.csv", tables.format_csv(plain))
    path = page.write(spec, record, rows, chosen, content, sections)
    console.say(f"{path}: {len(rows)} runs; tables: {record.folder / 'ablation.md'}")
    return content


def table(spec: Spec, summary: Sequence[Mapping[str, Any]], split: str) -> list[dict[str, Any]]:
    """Returns the rows of a table from those of `analysis.summarise`."""
    percent = spec.metric != "loss"
    found = []
    for row in summary:
        shown: dict[str, Any] = {}
        if len(spec.labelled) > 1:
            shown["labels per class"] = row["shots"] or "all"
        shown["variant"] = row["variant"]
        if spec.selects:
            values = assigned(row["values"])
            shown["chosen"] = f"{values} (of {row['trials']})" if values else intervals.NONE
        shown["n"] = row[split]["n"]
        shown[f"{split} (95% interval)"] = intervals.mean(
            intervals.of_fields(row[split], Mean), percent=percent
        )
        difference = row["difference"]
        is_reference = row["variant"] == row["reference"]
        shown["difference"] = (
            "(compared with)"
            if is_reference
            else intervals.NONE
            if difference is None
            else intervals.difference(
                intervals.of_fields(difference, PairedDifference), percent=percent
            )
        )
        if difference is not None:
            shown["p"] = difference["p_corrected" if spec.question == "best" else "p"]
            shown["p (signs)"] = difference["p_signs"]
            shown["differs"] = {None: "-", True: "yes", False: "noise"}[difference["differs"]]
            shown["seeds to see it"] = difference["seeds_needed"]
        shown["failed"] = row["failed"] or None
        found.append(shown)
    return found


def assigned(values: Mapping[str, Any]) -> str:
    """Returns "optim.learning_rate=0.1, ..."."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _notes(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what a reader has to know of how the test split was used."""
    outside = sum(line["what"] == "opened outside" for line in log)
    notes = []
    if outside:
        runs = console.count(outside, "run")
        notes.append(f"the test split of {runs} was read by another command than this ablation")
    notes += [
        f"the spec was changed after test was opened ({line['time']}): {line['reason']}"
        for line in log
        if line["what"] == "amended"
    ]
    return notes
