"""Which checkpoints are in a folder, what they say of themselves, and whether they are whole.

A checkpoint is a folder named by its step:

    checkpoints/1200/state/           the leaves, written by Orbax
    checkpoints/1200/checkpoint.json  step, metrics, shape and dtype of every leaf
    checkpoints/1200/SHA256SUMS       checksums of all other files (`sha256sum -c` reads it)

It is written as `1200.tmp` and renamed when complete, so a killed save never looks like one.
Orbax itself takes an empty folder for the latest step and restores a flipped byte without a word:
hence checksums of our own.
"""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

from tl_jax import files

_STEP = re.compile(r"0|[1-9][0-9]*")
_LEFTOVER = re.compile(r"[0-9]+\.(tmp|old|orbax-checkpoint-tmp.*)")


def steps_by_age(root: Path) -> list[int]:
    """Returns the steps of all checkpoints below `root`, newest first, verified or not."""
    names = [path.name for path in root.iterdir() if path.is_dir()]
    return sorted((int(name) for name in names if _STEP.fullmatch(name)), reverse=True)


def steps_by_metric(root: Path, metric: str, mode: str) -> list[int]:
    """Returns the steps where `metric` is finite, best first, the earlier of equals first.

    Args:
        root: the folder of all checkpoints.
        metric: a name among the saved metrics.
        mode: "max" if more is better, "min" if less is.
    """
    scores = {}
    for step in steps_by_age(root):
        try:
            value = float(read_record(root / str(step))["metrics"][metric])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if math.isfinite(value):
            scores[step] = -value if mode == "max" else value
    return sorted(scores, key=lambda step: (scores[step], step))


def first_verified(root: Path, steps: list[int]) -> tuple[int | None, dict[int, str]]:
    """Returns the first of `steps` that verifies, and {step: problem} of those before it."""
    damaged: dict[int, str] = {}
    for step in steps:
        problem = find_problem(root / str(step))
        if not problem:
            return step, damaged
        damaged[step] = problem
    return None, damaged


def find_problem(folder: Path) -> str:
    """Returns why the checkpoint in `folder` does not verify, or "" when it does."""
    try:
        text = (folder / "SHA256SUMS").read_text()
        pairs = [line.split("  ", 1) for line in text.splitlines()]
        expected = {name: checksum for checksum, name in pairs}
        unlisted = {"checkpoint.json", *_files(folder / "state")} - expected.keys()
        if unlisted:
            return f"{min(unlisted)} has no checksum"
        for name, checksum in expected.items():
            if files.digest(folder / name) != checksum:
                return f"{name} is altered or truncated"
        step = read_record(folder)["step"]
        return "" if folder.name == str(step) else f"it is a copy of step {step}"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except (OSError, ValueError) as error:
        return f"it cannot be read ({error})"


def read_record(folder: Path) -> dict[str, Any]:
    """Returns {"step", "metrics", "leaves": {name: [shape, dtype]}} of one checkpoint."""
    return json.loads((folder / "checkpoint.json").read_text())


def seal(folder: Path, record: dict[str, Any]) -> None:
    """Writes the record, then the checksums of all files: from here on the checkpoint verifies."""
    files.write(folder / "checkpoint.json", files.to_json(record))
    names = sorted(["checkpoint.json", *_files(folder / "state")])
    lines = [f"{files.digest(folder / name)}  {name}\n" for name in names]
    files.write(folder / "SHA256SUMS", "".join(lines))


def put_in_place(draft: Path, final: Path) -> None:
    """Renames a sealed checkpoint; one of the same step is moved away first."""
    old = final.with_name(f"{final.name}.old")
    if final.exists():
        final.rename(old)
    draft.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(root: Path) -> None:
    """Removes what a killed save left; a checkpoint that it had moved away comes back."""
    for path in list(root.iterdir()):
        if not _LEFTOVER.fullmatch(path.name):
            continue
        if path.suffix == ".old" and not path.with_suffix("").exists():
            path.rename(path.with_suffix(""))
        else:
            shutil.rmtree(path)


def _files(folder: Path) -> list[str]:
    """Returns the names of all files below, relative to the folder's parent."""
    paths = folder.rglob("*")
    return [path.relative_to(folder.parent).as_posix() for path in paths if path.is_file()]
