"""What an ablation leaves: its tables as JSON, Markdown, LaTeX and CSV, and on the terminal."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax import console, files, reporting
from tl_jax.ablation import analysis
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
    lines = ["# Ablation", "", EXPLAINED, "", *(f"Note: {note}" for note in notes)]
    for name, summary in (("Test", test), ("Validation", validation)):
        body = tables.format_markdown(table(spec, summary, name.lower()))
        lines += ["", f"## {name}: {tables.label(spec.metric)}", "", body]
    lines += [
        "",
        "## Time of training and validation",
        "",
        tables.format_markdown(costs(spec, rows)),
    ]
    files.write(record.folder / "ablation.md", "\n".join(lines) + "\n")
    files.write(
        record.folder / "ablation.tex", tables.format_latex(table(spec, test, "test")) + "\n"
    )
    plain = [{**row, "values": assigned(row["values"])} for row in rows]
    files.write(record.folder / "runs.csv", tables.format_csv(plain))
    console.say(f"{record.folder / 'ablation.md'}: {len(rows)} runs")
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
        shown[f"{split} (95% interval)"] = intervals.mean(_of(Mean, row[split]), percent=percent)
        difference = row["difference"]
        is_reference = row["variant"] == row["reference"]
        shown["difference"] = (
            "(compared with)"
            if is_reference
            else intervals.NONE
            if difference is None
            else intervals.difference(_of(PairedDifference, difference), percent=percent)
        )
        if difference is not None:
            shown["p"] = difference["p_corrected" if spec.question == "best" else "p"]
            shown["p (signs)"] = difference["p_signs"]
            shown["differs"] = {None: "-", True: "yes", False: "noise"}[difference["differs"]]
            shown["seeds to see it"] = difference["seeds_needed"]
        shown["failed"] = row["failed"] or None
        found.append(shown)
    return found


def costs(spec: Spec, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each variant and number of labels: its trials, and the time that its runs took."""
    found = []
    for shots in spec.labelled:
        for variant in spec.variants:
            seconds = [
                row["seconds"]
                for row in rows
                if (row["variant"], row["shots"]) == (variant, shots) and row["seconds"] is not None
            ]
            found.append(
                {
                    **({"labels per class": shots or "all"} if len(spec.labelled) > 1 else {}),
                    "variant": variant,
                    "trials of each seed": len(spec.trials(variant)),
                    "runs": len(seconds),
                    "time of a run": tables.duration(sum(seconds) / len(seconds))
                    if seconds
                    else None,
                    "in all": tables.duration(sum(seconds)),
                }
            )
    return found


def assigned(values: Mapping[str, Any]) -> str:
    """Returns "optim.learning_rate=0.1, ..."."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _of(kind: type, fields: Mapping[str, Any]) -> Any:
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: fields[name] for name in names})


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
