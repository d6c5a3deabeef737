"""A run folder as a comparison reads it: what must be there, what may be missing, what it says of itself."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax.config import COMMAND_SECTIONS, FIELDS, completed, flat, upgraded
from tl_jax.errors import InputError, nearest, unknown
from tl_jax.reporting import read_metrics, run_files
from tl_jax.reporting.run_files import Predictions
from tl_jax.reporting.tables import number
from tl_jax.runs.evaluate import NOT_OF_EVALUATION
from tl_jax.runs.resuming import DATA
from tl_jax.runs.run_folder import SEALED, read_json
from tl_jax.runs.same_test_split import TestSplit

_EXPECTED = "expected the folder of a finished run"
# In the config of an evaluation of a run: which run.
_CHECKPOINT = "evaluate.checkpoint"
_SHOWN = 5
_OF_ABLATIONS = "cells/*/*/*/*/result.json"
# Equal logits may differ as probabilities: the accuracy of the predictions is that of the result but for these.
_ROUNDING = 1e-3


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A run that is compared.

    Attributes:
        name: what it is called: the last part of its path, or more where another run has the same.
        path: its folder.
        config: {dotted name: value} as recorded, under the names of today; an older run lacks new fields.
        complete: the same with the fields that it lacks, at their defaults.
        result: `result.json`, or `sealed.json` of a run whose test split has not been read.
        sealed: whether test has not been read.
        metrics: the lines of metrics.jsonl.
        predictions: on the test images; None where the folder has none that can be used.
        digests: `data.json`, by split; {} where there is none.
        notes: sentences about what is missing.
    """

    name: str
    path: pathlib.Path
    config: dict[str, Any]
    complete: dict[str, Any]
    result: dict[str, Any]
    sealed: bool
    metrics: list[dict[str, Any]]
    predictions: Predictions | None
    digests: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def test_split(self) -> TestSplit | None:
        """What the folder says of the test images; None without predictions."""
        if self.predictions is None:
            return None
        fields = dict(self.complete)
        if "data" in self.result:
            fields["data.folds"] = 0  # An evaluation reads data.test_split, whatever its run read.
        found = self.predictions
        digests = self.digests.get("test")
        return TestSplit(fields, found.class_names, found.labels, found.indices, digests)

    def is_unsaid(self, field: str) -> bool:
        """Returns whether the config says nothing of how the weights were made: in an evaluation of a run."""
        return _CHECKPOINT in self.config and field.partition(".")[0] in NOT_OF_EVALUATION

    def is_older_than(self, field: str) -> bool:
        """Returns whether a field that the config lacks is one that its version did not have.

        A run never records the sections of other commands, such as `sweep`.
        """
        section = field.partition(".")[0]
        recorded = any(name.partition(".")[0] == section for name in self.config)
        return field in FIELDS and (recorded or section not in COMMAND_SECTIONS)


def read_all(folders: Sequence[str | os.PathLike[str]]) -> list[ComparedRun]:
    """Returns the runs in these folders, in their order.

    Raises:
        InputError: if there are fewer than two, one is there twice, or one is no run that can be compared.
    """
    if len(folders) < 2:
        given = f"{folders[0]} alone" if folders else "no run"
        raise InputError(f"{given} is given; expected the folders of two runs or more")
    paths = [pathlib.Path(folder).expanduser() for folder in folders]
    for path in paths:
        _check(path)
    resolved = [path.resolve() for path in paths]
    for place, path in enumerate(resolved):
        if path in resolved[:place]:
            first = paths[resolved.index(path)]
            same = "" if first == paths[place] else f" (as {first} before)"
            raise InputError(f"{paths[place]} is given twice{same}; expected every run once")
    return [_read(path, name) for path, name in zip(paths, _names(resolved), strict=True)]


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Returns the last parts of the paths, as many as tell all of them apart."""
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("paths that are different have different names")


def _check(path: pathlib.Path) -> None:
    """Raises InputError unless a folder holds a run that has ended."""
    if not path.exists():
        names = [found.parent.name for found in path.parent.glob("*/config.json")]
        near = [str(path.parent / name) for name in nearest(path.name, names)]
        raise unknown("run folder", str(path), names, near)
    if not path.is_dir():
        raise InputError(f"{path} is a file; {_EXPECTED}, such as {path.parent}")
    if (path / "result.json").is_file() or (path / SEALED).is_file():
        if not (path / "config.json").is_file():
            raise InputError(f"{path}: no config.json there; {_EXPECTED}")
        return
    if (path / "config.json").is_file():
        steps = [line["step"] for line in read_metrics(path)]
        reached = f", it has reached step {max(steps):,}" if steps else ""
        raise InputError(
            f"{path} holds a run that is not finished: no result.json there{reached}; {_EXPECTED}: the command that "
            "started it goes on with it"
        )
    inside = sorted(
        str(found.parent)
        for pattern in ("*/result.json", "*/*/result.json", _OF_ABLATIONS)
        for found in path.glob(pattern)
    )
    if inside:
        more = f" and {len(inside) - _SHOWN} more" if inside[_SHOWN:] else ""
        raise InputError(
            f"{path} is no run, it holds runs; {_EXPECTED}, such as {', '.join(inside[:_SHOWN])}{more}"
        )
    raise InputError(f"{path}: no config.json and no result.json there; {_EXPECTED}")


def _read(path: pathlib.Path, name: str) -> ComparedRun:
    sealed = not (path / "result.json").is_file()
    file = path / (SEALED if sealed else "result.json")
    result, config = _mapping(file), upgraded(_mapping(path / "config.json"))
    splits = result.get("splits")
    if not isinstance(splits, Mapping) or not all(
        isinstance(split, Mapping) and {"top1_accuracy", "examples"} <= split.keys()
        for split in splits.values()
    ):
        raise InputError(
            f"{file} has no accuracies of splits; {_EXPECTED}: a training run, a sweep, a probe or an evaluation"
        )
    notes = []
    predictions = None
    if sealed:
        notes.append(
            f"{name}: its test split is sealed and was not read: it is not compared on test."
        )
    elif "test" not in splits:
        raise InputError(f"{file} has no accuracy on test; {_EXPECTED}")
    else:
        predictions, problem = _predictions(path)
        if problem:
            notes.append(
                f"{name}: {problem}: it is not compared image by image, and has no classes and calibration."
            )
    if predictions is not None:
        right = int((predictions.predicted == predictions.labels).sum())
        count, stated = len(predictions.labels), splits["test"]
        if (
            count != stated["examples"]
            or abs(right / count - number(stated["top1_accuracy"])) > _ROUNDING
        ):
            notes.append(
                f"{name}: of its predictions.npz {right:,} of {count:,} are right, which is not the top-1 of its "
                "result.json: its predictions are left out."
            )
            predictions = None
    metrics: list[dict[str, Any]] = []
    try:
        metrics = read_metrics(path)
    except InputError as error:
        notes.append(f"{name}: {error}: it has no curves.")
    digests = _mapping(path / DATA) if (path / DATA).is_file() else {}
    return ComparedRun(
        name=name,
        path=path,
        config=flat(config),
        complete=flat(completed(config)),
        result=result,
        sealed=sealed,
        metrics=metrics,
        predictions=predictions,
        digests=digests,
        notes=tuple(notes),
    )


def _mapping(path: pathlib.Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object; {_EXPECTED}")
    return value


def _predictions(path: pathlib.Path) -> tuple[Predictions | None, str]:
    """Returns the predictions of a run, or None and why there are none."""
    try:
        return run_files.read_predictions(path / "predictions.npz"), ""
    except FileNotFoundError:
        return None, "predictions.npz is missing"
    except run_files.UNREADABLE as error:
        return None, f"predictions.npz cannot be used ({error})"
