"""Compares finished run folders side by side; nothing is trained, and no run folder is changed.

`compared_run.py` reads the folders, `same_test_split.py` decides which runs saw the same test images,
`paired_runs.py` compares these image by image; `reporting.run_comparison` shows what is found.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax import console, files, reporting
from tl_jax.config import FIELDS
from tl_jax.errors import InputError
from tl_jax.reporting import tables
from tl_jax.runs import compared_run, paired_runs
from tl_jax.runs.compared_run import ComparedRun
from tl_jax.training.metrics import CLASS_AVERAGES

# Of a split, as far as a result has them.
_METRICS = ("top1_accuracy", "top5_accuracy", *CLASS_AVERAGES, "loss", "examples")
# (split, metric) of metrics.jsonl, drawn for all runs in one picture.
_CURVES = (("validation", "top1_accuracy"), ("validation", "loss"), ("train", "loss"))
_KIND = "runs"
# In the title.
_MOST_NAMED = 3


def compare_runs(
    runs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Returns what finished runs have in common and where they differ; nothing is printed, nothing is trained.

    Args:
        runs: folders of two runs or more: of training, sweeps, probes or evaluations. The first is the one that the
            others are compared with.
        out: a folder for `comparison.json`, `.md` and `.html`: new, empty, or of an earlier comparison of runs, which
            is replaced. None: nothing is written.

    Returns:
        The content of `comparison.json`, keyed by the names of the runs: `runs`, `config` (fields that differ),
        `made_with`, `metrics`, `pairs` (each run against the first, image by image), `agreement`, `classes`,
        `calibration`, `curves`, `notes` (what is left out, and why).

    Raises:
        InputError: if there are fewer than two runs, one is there twice, one is no finished run, or `out` cannot be
            written to without replacing other files.

    Example:
        >>> found = tl_jax.compare_runs(["runs/probe", "runs/tuned"])  # doctest: +SKIP
        >>> found["pairs"][0]["difference"], found["pairs"][0]["p_mcnemar"]  # doctest: +SKIP
        (0.024, 0.0041)
    """
    if isinstance(runs, str | os.PathLike):
        raise InputError(f"{runs} alone is given; expected a list of two run folders or more")
    folder = None if out is None else pathlib.Path(out).expanduser()
    if folder is not None:
        _check_out(folder)
    content = _content(compared_run.read_all(runs))
    if folder is not None:
        reporting.write_run_comparison(folder, content)
    return content


def run(runs: Sequence[str | os.PathLike[str]], out: pathlib.Path | None = None) -> None:
    """Compares runs as `compare_runs` does, and prints the tables."""
    # matplotlib comes with it: not before it is needed.
    from tl_jax.reporting.run_comparison import sections

    content = compare_runs(runs, out)
    for section in sections(content, brief=True):
        if section.rows:
            reporting.print_table(section.title, section.rows, level="normal", as_named=True)
        console.say(section.text + "\n" if section.text else "")
    if out is None:
        console.say("--out=DIR writes this as a page, with curves and reliability diagrams")
    else:
        console.say(f"{out / 'comparison.html'}: the same with curves and reliability diagrams")


def _check_out(out: pathlib.Path) -> None:
    """Raises InputError if files of a run, or of somebody else, would be among those of a comparison."""
    expected = "expected a folder that is new, empty, or of an earlier comparison of runs"
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; {expected}")
    absolute = out.resolve()
    for folder in (absolute, *absolute.parents):
        known = ("result.json", "sealed.json", "class_names.json", ".lock")
        if (folder / "config.json").is_file() and any((folder / name).exists() for name in known):
            raise InputError(
                f"--out {out} is in the run folder {folder}; {expected}, such as {folder.parent / 'comparison'}"
            )
    present = sorted(each.name for each in out.iterdir()) if out.is_dir() else []
    if present and not _is_ours(out / "comparison.json"):
        more = f" and {len(present) - 5} more" if present[5:] else ""
        raise InputError(f"--out {out} holds {', '.join(present[:5])}{more}; {expected}")


def _is_ours(path: pathlib.Path) -> bool:
    """Returns whether a file is that of a comparison of runs; one of methods has the same name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == _KIND


def _content(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    pairs = paired_runs.against_first(runs)
    notes = [note for run in runs for note in run.notes]
    notes += [
        f"{pair['run']} is not compared with {pair['to']} image by image: {pair['not_paired']}."
        for pair in pairs
        if pair["not_paired"]
    ]
    notes += _notes_on_validation(runs)
    differing, absent = _config(runs)
    content = {
        "kind": _KIND,
        "title": _title(runs),
        "first": runs[0].name,
        "runs": [
            {
                "name": run.name,
                "path": str(run.path.resolve()),
                "sealed": run.sealed,
                "reports": run.result.get("selection", ""),
            }
            for run in runs
        ],
        "config": {"differing": differing, "absent": absent},
        "made_with": _made_with(runs),
        "metrics": {run.name: _metrics(run) for run in runs},
        "pairs": pairs,
        "agreement": paired_runs.agreement(runs),
        "classes": paired_runs.classes(runs),
        "calibration": paired_runs.calibration(runs),
        "curves": _curves(runs),
        "notes": notes,
    }
    return files.plain(content)


def _title(runs: Sequence[ComparedRun]) -> str:
    names = [run.name for run in runs[1:]]
    listed = ", ".join(names) if len(names) <= _MOST_NAMED else f"{len(names)} runs"
    return f"{listed} against {runs[0].name}"


def _config(runs: Sequence[ComparedRun]) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Returns the fields that differ, and by run those that it lacks where all others have the default.

    An entry has `field`, `changes_numbers` (whether it can change a number of the result), `values` {run: value} of
    the runs that have it, and `defaults` {run: value} of those that lack it since they are older. Fields that can
    change a number come first.
    """
    entries: list[dict[str, Any]] = []
    absent: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for run in runs for name in run.complete):
        known = [run for run in runs if not run.is_unsaid(name)]
        values = {run.name: run.config[name] for run in known if name in run.config}
        lacking = [run for run in known if name not in run.config and run.is_older_than(name)]
        effective = [run.complete.get(name) for run in known]
        if all(_equal(value, effective[0]) for value in effective):
            for run in lacking if values else ():
                absent.setdefault(run.name, []).append(name)
            continue
        entries.append(
            {
                "field": name,
                "changes_numbers": name not in FIELDS or FIELDS[name].changes_numbers,
                "values": values,
                "defaults": {
                    run.name: run.complete[name] for run in lacking if name in run.complete
                },
            }
        )
    return sorted(entries, key=lambda entry: not entry["changes_numbers"]), absent


def _equal(value: Any, other: Any) -> bool:
    # As text NaN equals itself, and a tuple the list that JSON makes of it.
    return value == other or files.to_json(value) == files.to_json(other)


def _made_with(runs: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """Returns what ran them: entries of `what` and `values` {run: text}; other packages only where they differ."""
    known = {run.name: _facts(run) for run in runs}
    always = ("tl_jax", "git revision", "device", "seed", "data.seed", "updates", "wall time")
    entries = []
    for what in dict.fromkeys((*always, *(what for facts in known.values() for what in facts))):
        values = {name: facts.get(what, "") for name, facts in known.items()}
        if what in always or len(set(values.values())) > 1:
            entries.append({"what": what, "values": values})
    return entries


def _facts(run: ComparedRun) -> dict[str, str]:
    result, device = run.result, run.result.get("device") or {}
    versions = dict(result.get("versions") or {})
    seconds = tables.number(result.get("wall_seconds"))
    revision, _, dirty = (result.get("git_revision") or "not known").partition("+")
    return {
        "tl_jax": str(versions.pop("tl_jax", "not known")),
        "git revision": revision[:12] + (f" ({dirty})" if dirty else ""),
        "device": f"{device.get('count', 1)} x {device.get('kind')} ({device.get('platform')})"
        if device
        else "not known",
        "seed": str(run.complete.get("seed")),
        "data.seed": str(run.complete.get("data.seed")),
        "updates": tables.format_value(result.get("steps")),
        "wall time": tables.duration(seconds) if seconds == seconds else "not known",
        "training images": tables.format_value(result.get("train_examples")),
        **{name: str(version) for name, version in versions.items()},
    }


def _metrics(run: ComparedRun) -> dict[str, dict[str, Any]]:
    """Returns {split: {metric: value}} of validation and test; no test of a run that is sealed."""
    splits: Mapping[str, Any] = run.result["splits"]
    return {
        name: {metric: splits[name][metric] for metric in _METRICS if metric in splits[name]}
        for name in ("validation", "test")
        if name in splits and not (run.sealed and name == "test")
    }


def _curves(runs: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """Returns entries of `split`, `metric` and `runs` {run: {"steps", "values"}}, of runs that logged them.

    Where each run logged a metric once there is no curve, and no entry.
    """
    entries = []
    for split, metric in _CURVES:
        series = {}
        for run in runs:
            lines = [line for line in run.metrics if line["split"] == split and metric in line]
            if lines:
                series[run.name] = {
                    "steps": [line["step"] for line in lines],
                    "values": [tables.number(line[metric]) for line in lines],
                }
        if any(len(curve["steps"]) > 1 for curve in series.values()):
            entries.append({"split": split, "metric": metric, "runs": series})
    return entries


def _notes_on_validation(runs: Sequence[ComparedRun]) -> list[str]:
    """Returns a line for each run whose validation images are known to be others than those of the first."""
    first = runs[0].digests.get("validation")
    notes = []
    for run in runs[1:]:
        digests = run.digests.get("validation")
        if first and digests and first["names"] != digests["names"]:
            notes.append(
                f"{run.name} was validated on other images than {runs[0].name}: their validation results differ by "
                "the images, too."
            )
    return notes
