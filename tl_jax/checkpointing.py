"""Saving and resuming: the newest checkpoint that verifies is the one that is used.

A checkpoint is a folder named by its step:

    checkpoints/1200/state/           the leaves, written by Orbax
    checkpoints/1200/checkpoint.json  step, metrics, shape and dtype of every leaf
    checkpoints/1200/SHA256SUMS       checksums of all other files (`sha256sum -c` reads it)

It is written as `1200.tmp` and renamed when complete, so a killed save never looks like a checkpoint.
Orbax itself takes an empty folder for the latest step and restores a flipped byte without a word:
hence checksums of our own.
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from tl_jax import trees
from tl_jax.errors import InputError, unknown
from tl_jax.train_state import TrainState

_STEP = re.compile(r"0|[1-9][0-9]*")
_LEFTOVER = re.compile(r"[0-9]+\.(tmp|old|orbax-checkpoint-tmp.*)")
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_log = logging.getLogger(__name__)

# Orbax reports every save in some twenty INFO lines; its warnings and all other records pass.
logging.getLogger("absl").addFilter(
    lambda record: record.levelno >= logging.WARNING or "orbax" not in record.pathname
)


class Checkpointer:
    """Keeps the two latest checkpoints and the best one of a run.

    Two, because the newest may turn out damaged. Every process of a run calls `save` and the
    `restore_*` methods together, on a folder that all of them see.

    Args:
        folder: where the checkpoints lie; made when missing.
        best_metric: the metric that says which checkpoint is best.
        best_mode: "max" if more is better, "min" if less is.

    Raises:
        InputError: if `best_mode` is unknown, or `folder` is a file or cannot be made.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        best_metric: str = "top1_accuracy",
        best_mode: str = "max",
    ):
        if best_mode not in ("max", "min"):
            raise unknown("best_mode", best_mode, ["max", "min"])
        self._folder = Path(folder).absolute()
        self._best_metric = best_metric
        self._sign = 1.0 if best_mode == "max" else -1.0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the checkpoint folder {self._folder}: {error}"
            ) from error
        self._damaged: set[int] = set()
        self._orbax = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases what Orbax holds; the checkpointer is not usable afterwards."""
        self._orbax.close()

    def save(self, state: TrainState, metrics: Mapping[str, Any] | None = None) -> None:
        """Writes the checkpoint of step `state.step` and returns when it is on disk.

        A checkpoint of the same step is replaced; its metrics stay when none are given here.

        Args:
            state: not donated; unchanged afterwards.
            metrics: what was measured at this step, scalars; a checkpoint without metrics, or whose
                best metric is not finite, is never the best one.

        Raises:
            InputError: if metrics are given without the best metric.
            OSError: if the disk is full; earlier checkpoints are untouched.
        """
        if metrics and self._best_metric not in metrics:
            raise unknown("metric for the best checkpoint", self._best_metric, metrics)
        leaves = _on_host(_flatten(state))
        step = int(state.step)
        final, draft = self._folder / str(step), self._folder / f"{step}.tmp"
        if not metrics and not _problem(final):
            metrics = _record(final)["metrics"]
        record = {
            "step": step,
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "leaves": {name: [list(leaf.shape), leaf.dtype.name] for name, leaf in leaves.items()},
        }
        try:
            self._write(draft, leaves, record)
            if jax.process_index() == 0:
                _move(draft, final)
                self._damaged.discard(step)
                self._prune()
        except Exception as error:
            if jax.process_index() == 0:
                shutil.rmtree(draft, ignore_errors=True)
            if not _is_disk_full(error):
                raise
            raise OSError(
                errno.ENOSPC,
                f"the checkpoint of step {step} could not be written to {self._folder}: it needs about "
                f"{trees.num_bytes(leaves):,} bytes and {shutil.disk_usage(self._folder).free:,} are "
                "free (or a quota or file-size limit is reached); earlier checkpoints are untouched, "
                "so make room and run the same command again to go on",
            ) from error
        _barrier(f"checkpoint {step} is complete")

    def _write(self, draft: Path, leaves: dict[str, Any], record: dict[str, Any]) -> None:
        if jax.process_index() == 0:
            self._remove_leftovers()
            draft.mkdir()
        _barrier(f"{draft.name} begins")
        self._orbax.save(draft / "state", args=ocp.args.PyTreeSave(trees.unflatten(leaves)))
        _barrier(f"{draft.name} is written")
        if jax.process_index() == 0:
            _write_text(draft / "checkpoint.json", json.dumps(record, indent=1) + "\n")
            _write_text(draft / "SHA256SUMS", _checksums(draft))

    def restore_latest(self, template: TrainState) -> TrainState | None:
        """Returns the newest state that verifies, or None when no checkpoint does.

        Args:
            template: a state of the expected structure; leaves are arrays or `jax.ShapeDtypeStruct`.
                Every restored leaf takes the template's sharding, whatever devices wrote it.

        Raises:
            InputError: if the saved leaves differ from the template's; all differences are listed.

        Warns:
            UserWarning: for each newer checkpoint that is skipped since it does not verify.
        """
        return self._restore(self._choose(self._by_age()), template)

    def restore_best(self, template: TrainState) -> TrainState | None:
        """Returns the state with the best metric, as `restore_latest` does; None when none has one."""
        return self._restore(self._choose(self._by_metric()), template)

    def latest_step(self) -> int | None:
        """Returns the newest step that verifies, or None; says nothing of those skipped."""
        return self._choose(self._by_age(), warn=False)

    def best_step(self) -> int | None:
        """Returns the step with the best metric that verifies, the earliest of equals, or None."""
        return self._choose(self._by_metric(), warn=False)

    def _choose(self, candidates: list[int], warn: bool = True) -> int | None:
        """Returns the first candidate that verifies; process 0 decides for all processes."""
        step, damaged = _first_verified(self._folder, candidates)
        self._damaged |= damaged.keys()
        if warn:
            _warn(self._folder, damaged)
        if jax.process_count() == 1:
            return step
        agreed = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
        return None if agreed < 0 else agreed

    def _restore(self, step: int | None, template: TrainState) -> TrainState | None:
        if step is None:
            return None
        expected = _flatten(template)
        folder = self._folder / str(step)
        found = {
            name: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
            for name, (shape, dtype) in _record(folder)["leaves"].items()
        }
        lines = trees.differences(found, expected)
        if lines:
            raise InputError(
                f"the checkpoint {folder} holds another state than this run's "
                f"({len(lines)} differences):\n" + "\n".join(lines)
            )
        leaves = _read(self._orbax, folder)
        placed = [_place(leaves[name], like) for name, like in expected.items()]
        _log.info("restored step %d from %s", step, folder)
        return jax.tree.unflatten(jax.tree.structure(template), placed)

    def _by_age(self) -> list[int]:
        return sorted(_steps(self._folder), reverse=True)

    def _by_metric(self) -> list[int]:
        return _ranked(self._folder, self._best_metric, self._sign)

    def _prune(self) -> None:
        """Removes all but the two latest and the best; damaged ones neither count nor go."""
        ages = [step for step in self._by_age() if step not in self._damaged]
        best = [step for step in self._by_metric() if step not in self._damaged]
        for step in set(ages) - {*ages[:2], *best[:1]}:
            shutil.rmtree(self._folder / str(step))

    def _remove_leftovers(self) -> None:
        """Removes what a killed save left; a checkpoint that it had moved away comes back."""
        for path in self._folder.iterdir():
            if not _LEFTOVER.fullmatch(path.name):
                continue
            if path.suffix == ".old" and not path.with_suffix("").exists():
                path.rename(path.with_suffix(""))
            else:
                shutil.rmtree(path)


def restore_params(
    folder: str | os.PathLike[str],
    which: str = "best",
    *,
    best_metric: str = "top1_accuracy",
    best_mode: str = "max",
) -> dict[str, Any]:
    """Returns {"params", "batch_stats"} of a run as nested dicts of numpy arrays, without a template.

    Args:
        folder: the checkpoint folder of a run.
        which: "best" or "latest"; checkpoints that do not verify are skipped with a warning.
        best_metric: as in `Checkpointer`.
        best_mode: as in `Checkpointer`.

    Raises:
        InputError: if there is no such checkpoint, or `which` is unknown.
    """
    if which not in ("best", "latest"):
        raise unknown("checkpoint", which, ["best", "latest"])
    root = Path(folder).absolute()
    if not root.is_dir():
        raise InputError(f"{root} is no folder of checkpoints")
    if which == "latest":
        candidates = sorted(_steps(root), reverse=True)
    else:
        candidates = _ranked(root, best_metric, 1.0 if best_mode == "max" else -1.0)
    step, damaged = _first_verified(root, candidates)
    _warn(root, damaged)
    if step is None:
        hint = f"; ask for 'latest' if none was saved with {best_metric}" if which == "best" else ""
        raise InputError(f"no {which} checkpoint that verifies in {root}{hint}")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        tree = trees.unflatten(_read(orbax, root / str(step)))
    return {"params": tree.get("params", {}), "batch_stats": tree.get("batch_stats", {})}


def _flatten(state: Any) -> dict[str, Any]:
    """Returns {leaf name: leaf}; also names the leaves of optax's tuples, `opt_state/0/trace/...`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _on_host(leaves: dict[str, Any]) -> dict[str, Any]:
    """Returns the leaves as numpy, except those cut into pieces over several processes."""
    scattered = {
        name: leaf
        for name, leaf in leaves.items()
        if isinstance(leaf, jax.Array)
        and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
    }
    whole = {name: leaf for name, leaf in leaves.items() if name not in scattered}
    return {name: np.asarray(leaf) for name, leaf in jax.device_get(whole).items()} | scattered


def _place(array: np.ndarray, like: Any) -> jax.Array:
    sharding = getattr(like, "sharding", None)
    if sharding is None or not getattr(like, "committed", True):
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _read(orbax: ocp.Checkpointer, folder: Path) -> dict[str, np.ndarray]:
    as_numpy = {
        name: ocp.RestoreArgs(restore_type=np.ndarray) for name in _record(folder)["leaves"]
    }
    arguments = ocp.args.PyTreeRestore(restore_args=trees.unflatten(as_numpy))
    return trees.flatten(orbax.restore(folder / "state", args=arguments))


def _steps(folder: Path) -> list[int]:
    return [
        int(path.name) for path in folder.iterdir() if _STEP.fullmatch(path.name) and path.is_dir()
    ]


def _ranked(folder: Path, metric: str, sign: float) -> list[int]:
    """Returns the steps with a finite metric, best first, the earlier of equals first."""
    scores = {}
    for step in _steps(folder):
        try:
            scores[step] = sign * float(
                _record(folder / str(step))["metrics"].get(metric, math.nan)
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    finite = [step for step in scores if math.isfinite(scores[step])]
    return sorted(finite, key=lambda step: (-scores[step], step))


def _first_verified(folder: Path, steps: list[int]) -> tuple[int | None, dict[int, str]]:
    """Returns the first of `steps` that verifies, and {step: problem} of those before it."""
    damaged: dict[int, str] = {}
    for step in steps:
        problem = _problem(folder / str(step))
        if not problem:
            return step, damaged
        damaged[step] = problem
    return None, damaged


def _warn(folder: Path, damaged: dict[int, str]) -> None:
    for step, problem in damaged.items():
        message = f"skipped the damaged checkpoint {folder / str(step)}: {problem}"
        _log.warning(message)
        warnings.warn(message, stacklevel=4)


def _problem(folder: Path) -> str:
    """Returns why the checkpoint does not verify, or "" when it does."""
    try:
        text = (folder / "SHA256SUMS").read_text()
        pairs = [line.split("  ", 1) for line in text.splitlines()]
        expected = {name: checksum for checksum, name in pairs}
        unlisted = {"checkpoint.json", *_files(folder / "state")} - expected.keys()
        if unlisted:
            return f"{min(unlisted)} has no checksum"
        for name, checksum in expected.items():
            if _sha256(folder / name) != checksum:
                return f"{name} is altered or truncated"
        step = _record(folder)["step"]
        return "" if folder.name == str(step) else f"it is a copy of step {step}"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except (OSError, ValueError) as error:
        return f"it cannot be read ({error})"


def _record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "checkpoint.json").read_text())


def _checksums(folder: Path) -> str:
    names = sorted(["checkpoint.json", *_files(folder / "state")])
    return "".join(f"{_sha256(folder / name)}  {name}\n" for name in names)


def _files(folder: Path) -> list[str]:
    """Returns the names of all files below, relative to the folder's parent."""
    paths = folder.rglob("*")
    return [path.relative_to(folder.parent).as_posix() for path in paths if path.is_file()]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_text(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _move(draft: Path, final: Path) -> None:
    """Puts the complete checkpoint in place; one of the same step is moved away first."""
    old = final.with_name(f"{final.name}.old")
    if final.exists():
        final.rename(old)
    draft.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    reasons = ("no space left", "disk quota exceeded", "file too large")
    return any(reason in str(error).lower() for reason in reasons)


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
