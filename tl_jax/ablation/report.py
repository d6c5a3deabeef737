"""What an ablation leaves: its tables as JSON, Markdown, LaTeX and CSV, and on the terminal, and its page."""

from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax import console, files, protocols, reporting
from tl_jax.ablation import analysis, costs, page
from tl_jax.ablation.cells import expand
from tl_jax.ablation.record import Record
from tl_jax.ablation.spec import Spec
from tl_jax.reporting import intervals, tables
from tl_jax.statistics import Mean, PairedDifference

_FAILURES_SHOWN = 5
EXPLAINED = (
    "Intervals are 95% t-intervals over seeds. A difference is the mean over pairs of runs of one seed; p is of the "
    "paired t-test, which has none where all pairs differ by the same, p (signs) of the exact permutation test of "
    "pairs, which cannot be below 2 / 2^n. Noise: the p-value is not below the level."
)

_NOTHING_HELD_OUT = (
    "nothing was held out of train: choosing a variant by this table means choosing on the test split, and the test "
    "result of the chosen one is then too good; hold images out with data.validation_fraction or "
    "data.validation_split"
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
    finished = [row for row in rows if row["status"] == "finished"]
    held_out = not finished or any(row["held_out"] for row in finished)
    validation = analysis.summarise(spec, rows, chosen, "validation") if held_out else []
    test = [] if peek else analysis.summarise(spec, rows, chosen, "test")
    notes = _notes(record.log())
    if not held_out:
        notes.append(_NOTHING_HELD_OUT)
    answers = [] if peek or not held_out else _answers(spec, rows, chosen, validation, test)
    left = sum(row["status"] == analysis.TO_BE_RUN for row in rows)
    content = {
        "title": title(spec),
        "metric": spec.metric,
        "question": spec.question,
        "level": spec.level,
        "explained": EXPLAINED,
        "notes": notes,
        "answers": answers,
        "test": test,
        "validation": validation,
        "runs": list(rows),
    }
    unit = " in %" if _in_percent(spec) else ""
    heading = f"{title(spec)}: {tables.label(spec.metric)}{unit}, ± half the 95% interval"
    reporting.print_table(heading, brief(spec, validation, test), level="normal")
    for line in answers:
        console.say(line)
    said = [*notes, *_of_failures(record, rows)]  # the page names all runs
    for note in said:
        console.note(note)
    if peek:
        opened = sum("cell" in line for line in record.log())
        use = (
            f"test was read for {console.count(opened, 'run')} before"
            if opened
            else "test has not been looked at"
        )
        console.say(f"{len(rows) - left} of {len(rows)} cells are trained; {use}")
        return content
    files.write(record.folder / "ablation.json", files.to_json(content))
    sections = [
        *(
            page.Table(f"{split}: {tables.label(spec.metric)}", table(spec, summary, split.lower()))
            for split, summary in (("Test", test), ("Validation", validation))
            if summary
        ),
        page.Table(
            "Time of training and validation",
            costs.table(spec, rows, chosen, test),
            costs.EXPLAINED,
        ),
        *_of_protocols(spec, rows, chosen),
    ]
    lines = ["# Ablation", "", EXPLAINED, "", *answers, *(f"Note: {note}" for note in said)]
    for section in sections:
        caption = [section.caption, ""] if section.caption else []
        lines += ["", f"## {section.title}", "", *caption, tables.format_markdown(section.rows)]
    files.write(record.folder / "ablation.md", "\n".join(lines) + "\n")
    files.write(
        record.folder / "ablation.tex", tables.format_latex(table(spec, test, "test")) + "\n"
    )
    files.write(record.folder / "runs.csv", tables.format_csv([_plain(row) for row in rows]))
    path = page.write(spec, record, rows, chosen, content, sections)
    console.say(f"{path}: {len(rows)} runs; tables: {record.folder / 'ablation.md'}")
    return content


def _of_protocols(
    spec: Spec, rows: Sequence[Mapping[str, Any]], chosen: Mapping[tuple[str, int], int]
) -> list[page.Table]:
    """Returns a table of the deviations of the chosen runs from the protocol that they name, [] where none does."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    caption = ""
    for row in rows:
        variant, shots = row["variant"], row["shots"]
        if row.get("protocol") is None or row["trial"] != chosen[variant, shots]:
            continue
        reported = protocols.with_trials(row["protocol"], len(spec.trials(variant)))
        caption = f"{reported['name']}: {reported['source']}"
        deviations = reported["deviations"] or [
            {"term": "conforms", "expected": intervals.NONE, "found": intervals.NONE}
        ]
        for deviation in deviations:
            shown = {
                **({"labels per class": shots or "all"} if len(spec.labelled) > 1 else {}),
                "variant": variant,
                **deviation,
            }
            found[tuple(map(str, shown.values()))] = shown
    return [page.Table("Protocol", list(found.values()), caption)] if found else []


def title(spec: Spec) -> str:
    """Returns the network, the data set and, where they are the same everywhere, the labelled images, as one line."""
    labelled = {cell.config.data.examples_per_class for cell in expand(spec)}
    few = max(labelled) if len(labelled) == 1 else 0
    named = f"{spec.base.model.name} on {spec.base.data.name}"
    return f"{named}, {few} labelled images per class" if few else named


def brief(
    spec: Spec, validation: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the rows of the table for a terminal: a mean with half its 95% interval, on both splits.

    Args:
        spec: of the ablation.
        validation: rows of `analysis.summarise`; empty where nothing is held out.
        test: likewise; empty before it was read, and differences are then those on validation.
    """
    summaries = {"validation": validation, "test": test}
    found = []
    for places in zip(*filter(None, summaries.values()), strict=True):
        row = places[-1]
        shown: dict[str, Any] = {}
        if len(spec.labelled) > 1:
            shown["labels"] = row["shots"] or "all"
        shown["variant"] = row["variant"]
        if spec.tunes:
            values = {name.rpartition(".")[2]: value for name, value in row["values"].items()}
            shown["chosen"] = assigned(values) or intervals.NONE
        for of_split in places:
            split = "test" if "test" in of_split else "validation"
            estimate = intervals.of_fields(of_split[split], Mean)
            shown[split] = intervals.half_width(estimate, percent=_in_percent(spec))
            for name, of in of_split.get("further", {}).items():
                shown[tables.label(name)] = intervals.half_width(intervals.of_fields(of, Mean))
        shown["n"] = row["test" if "test" in row else "validation"]["n"]
        of = row["difference"]
        if row["variant"] == row["reference"]:
            shown["difference"] = "reference"
        elif of is None:
            shown["difference"] = intervals.NONE
        else:
            estimate = intervals.of_fields(of, PairedDifference)
            shown["difference"] = intervals.half_width(
                estimate, percent=_in_percent(spec), signed=True
            )
            p = of["p_corrected" if spec.question == "best" else "p"]
            noise = ", noise" if of["differs"] is False else ""
            shown["p"] = None if p is None else f"{p:.2g}{noise}"
        if row["failed"]:
            shown["failed"] = row["failed"]
        found.append(shown)
    return found


def _in_percent(spec: Spec) -> bool:
    return spec.metric != "loss"


def table(spec: Spec, summary: Sequence[Mapping[str, Any]], split: str) -> list[dict[str, Any]]:
    """Returns the rows of a table from those of `analysis.summarise`."""
    percent = _in_percent(spec)
    found = []
    for row in summary:
        shown: dict[str, Any] = {}
        if len(spec.labelled) > 1:
            shown["labels per class"] = row["shots"] or "all"
        shown["variant"] = row["variant"]
        if spec.tunes:
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
        for name, of in row.get("further", {}).items():
            shown[tables.label(name)] = intervals.mean(intervals.of_fields(of, Mean))
        if difference is not None:
            shown["p"] = difference["p_corrected" if spec.question == "best" else "p"]
            shown["p (signs)"] = difference["p_signs"]
            shown["differs"] = {None: "-", True: "yes", False: "noise"}[difference["differs"]]
            shown["seeds to see it"] = difference["seeds_needed"]
        shown["failed"] = row["failed"] or None
        found.append(shown)
    return found


def _answers(
    spec: Spec,
    rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[tuple[str, int], int],
    validation: Sequence[Mapping[str, Any]],
    test: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Returns a sentence for each number of labels: which variant is best on validation, and what it has on test."""
    found = []
    for shots in spec.labelled:
        best = analysis.best_on_validation(spec, rows, chosen, shots)
        if best is None:
            continue
        means = {
            split: intervals.mean(intervals.of_fields(row[split], Mean), percent=_in_percent(spec))
            for split, summary in (("validation", validation), ("test", test))
            for row in summary
            if (row["variant"], row["shots"]) == (best, shots)
        }
        labels = f" with {shots:,} labels per class" if len(spec.labelled) > 1 and shots else ""
        labels = labels or (" with all labels" if len(spec.labelled) > 1 else "")
        read = f"; on test it has {means['test']}" if best in spec.opened else ""
        found.append(f"Best on validation{labels}: {best}, {means['validation']}{read}.")
    return found


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row with a column for each number."""
    further = row.get("further", {})
    own = {name: value for name, value in row.items() if name != "further"}
    return {**own, "values": assigned(row["values"]), **further}


def assigned(values: Mapping[str, Any]) -> str:
    """Returns "optim.learning_rate=0.1, ..."."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _of_failures(record: Record, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each of the first runs that failed or diverged, and one for the others."""
    failed = [row for row in rows if row["error"] is not None]
    lines = [
        f"{row['variant']}, {assigned({**row['values'], 'seed': row['seed']})}"
        + (f", {row['shots']} per class" if row["shots"] else "")
        + f" {row['status']}: {row['error']}"
        for row in failed[:_FAILURES_SHOWN]
    ]
    more = len(failed) - len(lines)
    return [*lines, *([f"{more} more failed: {record.folder / 'runs.csv'}"] if more else [])]


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
