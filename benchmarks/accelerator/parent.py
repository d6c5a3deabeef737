"""Goes through the rows of the stages within a budget, and writes the file of a stage after every row.

Imports neither JAX nor PyTorch: see the package.
"""

import datetime
import importlib.util
import pathlib
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import record
from benchmarks.accelerator import children, peaks, stages, timed
from benchmarks.accelerator.children import Child, ChildFailed, Children
from benchmarks.accelerator.rows import Asked, Row, Timed
from benchmarks.accelerator.stage_file import (
    FAILED,
    INCOMPLETE,
    MEASURED,
    NOT_RUN,
    StageFile,
    code_digest,
    identity,
)

# Of the budget, for ending processes and writing files.
_SECONDS_TO_CLOSE = 5.0
# A row that takes so many times as long as it was thought to is given up, but not before so many seconds.
_LONGEST, _AT_LEAST = 2.5, 60.0
# Of the accelerator's memory, for all processes together; each has some of it beyond its share.
_MEMORY = 0.9


def run(
    names: Sequence[str],
    settings: stages.Settings,
    out: pathlib.Path,
    budget: float,
    *,
    repeat: bool = False,
    starter: Callable[[pathlib.Path, float], Callable[[str], Child]] = children.starter,
) -> None:
    """Measures stages, as far as the budget goes.

    Args:
        names: of `stages.NAMES`.
        settings: what all stages have in common.
        out: the folder of the files.
        budget: seconds, of this call.
        repeat: whether rows are measured again.
        starter: from a scratch folder and a share of the memory to what starts a process of some name.
    """
    until = time.monotonic() + budget - _SECONDS_TO_CLOSE
    settings = settings.without_torch(_why_no_torch(settings))
    share = _MEMORY / len(settings.children)
    with (
        tempfile.TemporaryDirectory(prefix="tl_jax-accelerator-") as folder,
        Children(starter(pathlib.Path(folder), share)) as started,
    ):
        described = describe(started, until)
        facts = facts_of(settings, described, budget) | {"memory_share": share}
        for name in names:
            file = StageFile(out / f"{name}.json", {"stage": name, **facts})
            rows = stages.rows(name, settings, described)
            measure(rows, file, started, until, repeat=repeat)
            file.summary = stages.summary(name, settings, file.rows)
            file.write()
            _say(f"{out / name}.json: {_counts(file)}")


def measure(
    rows: Sequence[Row], file: StageFile, started: Children, until: float, *, repeat: bool = False
) -> None:
    """Measures the rows of a stage that its file does not have yet, and writes it after each.

    Rows that failed in an earlier call come last: what failed may fail again.

    Args:
        rows: of the stage.
        file: of the stage.
        started: the processes.
        until: when the budget ends, on the clock of `time.monotonic`.
        repeat: whether rows are measured again.
    """
    left = [
        row for row in rows if repeat or not file.is_measured(row.name, identity(row, file.facts))
    ]
    left.sort(key=lambda row: file.rows.get(row.name, {}).get("status") in (FAILED, INCOMPLETE))
    file.not_run = {row.name: "its turn did not come" for row in left}
    file.write()
    for row in left:
        seconds = until - time.monotonic()
        if seconds < row.seconds:
            reason = f"{max(seconds, 0):.0f} s of the budget were left, about {row.seconds:.0f} s are needed"
            file.not_run[row.name] = reason
        else:
            began = time.monotonic()
            _say(f"{row.name} ...")
            longest = max(_LONGEST * row.seconds, _AT_LEAST)
            found = _recorded(row, started, min(until, began + longest), file.facts)
            started.renew()
            if found["status"] != MEASURED and time.monotonic() >= until:
                found |= {"status": NOT_RUN, "reason": "the budget ended while it was measured"}
            del file.not_run[row.name]
            if found["status"] == NOT_RUN:
                file.not_run[row.name] = found["reason"]
            file.rows[row.name] = {
                **found,
                "seconds": time.monotonic() - began,
                "code": file.facts["code"],
                "device": (file.facts["device"] or {}).get("kind"),
                "identity": identity(row, file.facts),
            }
        file.write()


def measure_row(
    row: Row, started: Children, until: float, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what is recorded of a row, whatever becomes of its processes."""
    if isinstance(row, Timed):
        precision = row.settings.get("precision", "float32")
        peak = peaks.peak((facts.get("device") or {}).get("kind"), precision)
        found = timed.run(row, started, until, peak)
        return {"status": _status(found["sides"].values()), **found}
    answers = _answers(row, started, until)
    reasons = [answer["not_run"] for answer in answers.values() if "not_run" in answer]
    if reasons:
        return {"status": NOT_RUN, "reason": reasons[0]}
    return {"status": _status(answers.values()), "answers": answers}


def _recorded(
    row: Row, started: Children, until: float, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what `measure_row` does, or the error where it fails: the rows after it are measured all the same."""
    try:
        return measure_row(row, started, until, facts)
    except Exception as error:
        traceback.print_exc()
        return {"status": FAILED, "error": f"{type(error).__name__}: {error}"}


def describe(started: Children, until: float) -> dict[str, Any]:
    """Returns what the JAX process says of device, versions and sets of compiler options."""
    if until - time.monotonic() < 1.0:
        return {}
    try:
        return started.ask("jax", "describe", until)
    except ChildFailed as failure:
        started.renew()
        return {"failure": failure.facts}


def facts_of(
    settings: stages.Settings, described: Mapping[str, Any], budget: float
) -> dict[str, Any]:
    """Returns what is written with the rows; None where nothing is known in this call."""
    revision = record.revision()
    return {
        "command": record.command_line("accelerator"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "revision": revision,
        "code": code_digest(record.REPOSITORY),
        "machine": record.processor(),
        "system": platform.system(),
        "size": settings.size,
        "sides": list(settings.children),
        "without_torch": settings.why_no_torch,
        "budget_seconds": budget,
        "device": described.get("device"),
        "versions": described.get("versions"),
        "memory": described.get("memory"),
        "failure": described.get("failure", {}),
    }


def _answers(row: Asked, started: Children, until: float) -> dict[str, dict[str, Any]]:
    """Returns the answer of each command of a row; after one that fails no other is given."""
    answers: dict[str, dict[str, Any]] = {}
    for name, ask in row.asks.items():
        if ask.fresh:
            started.end(ask.child)
        try:
            answers[name] = started.ask(ask.child, ask.command, until, **ask.arguments)
            if ask.fresh:
                answers[name]["process_seconds"] = started.seconds(ask.child)
        except ChildFailed as failure:
            answers[name] = failure.facts
            break
    return answers


def _status(parts: Any) -> str:
    failed = ["error" in part for part in parts]
    return FAILED if all(failed) else INCOMPLETE if any(failed) else MEASURED


def _why_no_torch(settings: stages.Settings) -> str:
    """Returns why PyTorch is left out; "" where it takes part."""
    if settings.only:
        return f"--only={settings.only}"
    # Looked for, not imported.
    missing = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def _counts(file: StageFile) -> str:
    statuses = [row["status"] for row in file.rows.values()]
    counts = {status: statuses.count(status) for status in (MEASURED, INCOMPLETE, FAILED)}
    said = [f"{count} {status}" for status, count in counts.items() if count]
    if file.not_run:
        said.append(f"{len(file.not_run)} not run (why: see its `not_run`)")
    return ", ".join(said)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
