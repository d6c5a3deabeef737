"""The files of a run folder as the report reads them; what is missing or broken is noted."""

import dataclasses
import json
import os
import pathlib
import tokenize
import zipfile
from typing import Any

import numpy as np

from tl_jax.errors import InputError
from tl_jax.reporting.writers import METRICS_FILE, read_metrics

# Where images lie by their features, see `scatter`; of runs that were asked for it.
SCATTER_FILE = "scatter.npz"
REPORT_FILE = "report.html"
# What `read_predictions` raises for a file that is damaged, or none of ours.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The network's answers on one split: N examples, K classes.

    Attributes:
        probabilities: float32 [N, K].
        labels: int64 [N].
        indices: int64 [N], the examples' places in the split.
        class_names: K names.
        images: {place in the split: uint8 [H, W, C]}, for a few mistakes.
        files: {place in the split: path of its image file, or ""}, for the same ones.
        split: its name, as in result.json.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    class_names: tuple[str, ...]
    images: dict[int, np.ndarray]
    files: dict[int, str]
    split: str

    @property
    def predicted(self) -> np.ndarray:
        """The most probable classes, int64 [N]."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The highest probabilities, float32 [N]."""
        return self.probabilities.max(axis=1)


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What a run folder holds; None (or nothing) for a file that is missing.

    Attributes:
        config: config.json.
        metrics: the lines of metrics.jsonl.
        result: result.json.
        freezing: freezing.json, the rows of `freezing.summary`.
        port_report: port_report.json.
        predictions: predictions.npz.
        notes: a sentence for each file that is missing or cannot be read.
    """

    config: dict[str, Any] | None
    metrics: list[dict[str, Any]]
    result: dict[str, Any] | None
    freezing: list[dict[str, Any]] | None
    port_report: dict[str, Any] | None
    predictions: Predictions | None
    notes: tuple[str, ...]


def read_run(folder: str | os.PathLike[str]) -> RunFiles:
    """Reads a run folder; no missing or broken file is an error, each is noted.

    Raises:
        InputError: if there is no such folder.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no run folder: there is no such folder")
    notes: list[str] = []

    def read_json(name: str, kind: type, without: str) -> Any:
        try:
            value = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            notes.append(f"{name} is not in the run folder: {without}.")
            return None
        except (OSError, ValueError) as error:
            notes.append(f"{name} cannot be read ({error}): {without}.")
            return None
        if not isinstance(value, kind):
            notes.append(f"{name} does not hold what it should ({kind.__name__}): {without}.")
            return None
        return value

    config = read_json("config.json", dict, "no configuration is shown")
    result = read_json("result.json", dict, "no final metrics are shown, the run has not finished")
    freezing = read_json("freezing.json", list, "no freezing table is shown")
    if freezing and not all(isinstance(row, dict) for row in freezing):
        notes.append("freezing.json does not hold rows: no freezing table is shown.")
        freezing = None
    port_report = read_json("port_report.json", dict, "no source of pretrained weights is shown")
    metrics: list[dict[str, Any]] = []
    try:
        metrics = read_metrics(folder)
        if not metrics:
            notes.append(f"{METRICS_FILE} is missing or empty: no learning curves are shown.")
    except InputError as error:
        notes.append(f"{error}: no learning curves are shown.")
    predictions = None
    without = "no confusion matrix, class metrics, calibration and mistakes are shown"
    try:
        predictions = read_predictions(folder / "predictions.npz")
    except FileNotFoundError:
        notes.append(f"predictions.npz is not in the run folder: {without}.")
    except UNREADABLE as error:
        notes.append(f"predictions.npz cannot be used ({error}): {without}.")
    return RunFiles(config, metrics, result, freezing, port_report, predictions, tuple(notes))


def read_predictions(path: pathlib.Path) -> Predictions:
    """Returns what `predictions.npz` holds.

    Raises:
        FileNotFoundError: if there is no such file.
        Exception: one of `UNREADABLE`, if it is damaged or its arrays do not fit together.
    """
    # Opened here: NumPy leaves the file of a damaged archive open.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        probabilities = np.asarray(arrays["probabilities"], np.float32)
        labels = np.asarray(arrays["labels"], np.int64)
        count, num_classes = probabilities.shape
        indices = np.asarray(
            arrays["indices"] if "indices" in arrays else np.arange(count), np.int64
        )
        split = str(arrays["split"]) if "split" in arrays else "test"
        names = arrays["class_names"] if "class_names" in arrays else np.arange(num_classes)
        images, files = (
            {
                int(index): value
                for index, value in zip(arrays["mistake_indices"], arrays[name], strict=True)
            }
            if name in arrays
            else {}
            for name in ("mistake_images", "mistake_files")
        )
    problems = []
    if count == 0:
        problems.append("it holds no example")
    if labels.shape != (count,) or indices.shape != (count,) or len(names) != num_classes:
        problems.append(
            f"shapes disagree: probabilities {probabilities.shape}, labels {labels.shape}, "
            f"indices {indices.shape}, {len(names)} class names"
        )
    elif count and not 0 <= labels.min() <= labels.max() < num_classes:
        problems.append(f"labels from {labels.min()} to {labels.max()} for {num_classes} classes")
    broken = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if broken:
        problems.append(f"the probabilities of {broken} of {count} examples are not finite")
    if problems:
        raise ValueError("; ".join(problems))
    class_names = tuple(str(name) for name in names)
    paths = {index: str(path) for index, path in files.items()}
    return Predictions(probabilities, labels, indices, class_names, images, paths, split)
