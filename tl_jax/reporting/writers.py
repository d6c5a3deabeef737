"""Metrics as they are made: one JSON object a line, and TensorBoard events."""

import collections
import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from tl_jax import files
from tl_jax.errors import InputError

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricWriter:
    """Writes the metrics of a run to `metrics.jsonl` and, if asked, to TensorBoard events.

    A line is `{"step": 100, "split": "train", "loss": 0.5, ...}` and reaches the operating system
    before `write` returns, so that a killed process loses at most the line it was writing. Numbers
    that are not finite are written as the strings "nan", "inf" and "-inf".

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with MetricWriter(folder, tensorboard=False) as writer:
        ...     writer.write(10, "train", {"loss": 0.5})
        >>> read_metrics(folder)
        [{'step': 10, 'split': 'train', 'loss': 0.5}]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        tensorboard: bool = True,
        resume_step: int | None = None,
    ) -> None:
        """Opens the files in `folder`, which is made if need be.

        Args:
            folder: the run folder.
            tensorboard: whether to write events too, in `folder/tensorboard`.
            resume_step: None starts over, without the lines of an earlier attempt. A number keeps
                the lines up to that step and drops the later ones, which the run will write again,
                and a last line that was cut off; metrics of `resume_step` itself that are in the
                file already are not written twice.
        """
        self._folder = pathlib.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        kept: list[dict[str, Any]] = []
        if resume_step is not None:
            kept = [line for line in read_metrics(self._folder) if line["step"] <= resume_step]
        self._already_written = {_identity(line) for line in kept if line["step"] == resume_step}
        path = self._folder / METRICS_FILE
        files.write(path, "".join(files.to_json(line, indent=None) for line in kept))
        self._file = path.open("a", encoding="utf-8")
        self._events = (
            _Events(self._folder / TENSORBOARD_FOLDER, resume_step) if tensorboard else None
        )

    def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Writes one line, and one TensorBoard point `split/name` for each finite metric.

        Args:
            step: the number of completed updates.
            split: "train", "validation" or "test".
            metrics: scalars: Python numbers, or NumPy or JAX arrays with one element (an array
                still being computed is waited for).

        Raises:
            InputError: if a metric is no scalar or is called "step" or "split".
        """
        line: dict[str, Any] = {"step": int(step), "split": split}
        for name, value in metrics.items():
            if name in line:
                raise InputError(
                    f"a metric cannot be called {name!r}: the line has a field of that name"
                )
            line[name] = _scalar(name, value)
        if _identity(line) in self._already_written:
            return
        self._file.write(files.to_json(line, indent=None))
        self._file.flush()
        if self._events is not None:
            finite = {
                f"{split}/{name}": line[name] for name in metrics if math.isfinite(line[name])
            }
            self._events.write(line["step"], finite)

    def close(self) -> None:
        """Writes what is still buffered and closes the files; a second call does nothing."""
        self._file.close()
        if self._events is not None:
            self._events.close()
            self._events = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What ends the block says more than what then goes wrong with its events.
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self.close()


class _Events:
    """TensorBoard events, written by a separate thread.

    tensorboardX imports PyTorch where that is installed: seconds that no update has to wait for.
    """

    def __init__(self, folder: pathlib.Path, resume_step: int | None):
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "tl_jax events")
        self._writer = self._thread.submit(_open_events, folder, resume_step)
        self._written = collections.deque([self._writer])

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes points to write; raises what went wrong with earlier ones."""

        def add() -> None:
            from tensorboardX.proto.summary_pb2 import Summary

            # One event for all of them: `add_scalar` takes ten times as long, and holds up the updates.
            values = [
                Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()
            ]
            self._writer.result().file_writer.add_summary(Summary(value=values), step)

        while self._written and self._written[0].done():
            self._written.popleft().result()
        self._written.append(self._thread.submit(add))

    def close(self) -> None:
        """Returns when all is written; raises what went wrong."""
        self._written.append(self._thread.submit(lambda: self._writer.result().close()))
        self._thread.shutdown()
        for done in self._written:
            done.result()


def _open_events(folder: pathlib.Path, resume_step: int | None) -> Any:
    import tensorboardX

    if resume_step is None:
        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
    # TensorBoard hides what an earlier attempt wrote from `purge_step` on.
    purge_step = None if resume_step is None else resume_step + 1
    # Names hold whole seconds: without the suffix a quick restart would overwrite the events.
    suffix = f".{resume_step or 0}"
    return tensorboardX.SummaryWriter(
        str(folder), purge_step=purge_step, flush_secs=30, filename_suffix=suffix
    )


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the lines of `folder/metrics.jsonl`, numbers as numbers; [] without the file.

    A last line that was cut off, by a process killed in the middle of writing, is left out.

    Raises:
        InputError: if another line is no metrics line; the message names the file and the line.
    """
    path = pathlib.Path(folder) / METRICS_FILE
    if not path.exists():
        return []
    texts = path.read_bytes().split(b"\n")
    # A complete file ends with a newline: after the last one comes a cut-off line, or nothing.
    lines = []
    for number, text in enumerate(texts[:-1], start=1):
        try:
            line = json.loads(text)
            if not isinstance(line["step"], int) or not isinstance(line["split"], str):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path}, line {number} is no metrics line: {text[:80]!r}; "
                'expected an object such as {"step": 100, "split": "train", "loss": 0.5}'
            ) from None
        lines.append(
            {name: value if name == "split" else _number(value) for name, value in line.items()}
        )
    return lines


def _scalar(name: str, value: Any) -> int | float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biufV":
        raise InputError(
            f"metric {name!r} must be one number, given {type(value).__name__} of shape "
            f"{array.shape} and dtype {array.dtype}"
        )
    # bfloat16 is of kind "V" for NumPy.
    return (
        int(array.item()) if array.dtype.kind in "biu" else float(array.astype(np.float64).item())
    )


def _number(value: Any) -> Any:
    if value is None:
        return math.nan
    return float(value) if value in ("nan", "inf", "-inf") else value


def _identity(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["step"], line["split"], frozenset(line)
