"""Writing and reading checkpoints."""

import concurrent.futures
import functools
import logging
import math
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from tl_jax import files, trees
from tl_jax.checkpointing import verification
from tl_jax.errors import InputError, unknown
from tl_jax.objectives import GROUP, of_network, of_objectives
from tl_jax.parallel import sharding
from tl_jax.training.state import TrainState

if TYPE_CHECKING:
    from tl_jax.checkpointing.storage import Storage

# What optimizer states of earlier versions held besides: the norm of the last gradient. Where they held the start of
# L2-SP, a run does not go on: its pull was no part of the gradient that is clipped and scaled.
_RETIRED = re.compile(r"opt_state/(.*/)?norm")

_log = logging.getLogger(__name__)

Template = TrainState | Callable[[int], TrainState]


class Checkpointer:
    """Keeps the two latest checkpoints and the best one of a run.

    Two, because the newest may turn out damaged. Every process of a run calls each method together
    with the others, on a folder that all of them see. A checkpoint is written in the background, one at a
    time; every other method waits for it first.

    Args:
        folder: of the checkpoints; made when missing.
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
        _check_mode(best_mode)
        self._folder = Path(folder).absolute()
        self._best_metric = best_metric
        self._best_mode = best_mode
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the checkpoint folder {self._folder}: {error}"
            ) from error
        self._damaged: set[int] = set()
        self._best_value: float | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "tl_jax checkpoints")
        self._writing: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self.close()

    def close(self) -> None:
        """Ends with what is being written, and releases what Orbax holds; not usable afterwards.

        Whether it could be written is what `wait` says: a process may fail alone, and does not ask the others then.
        """
        self._thread.shutdown()
        if "_storage" in self.__dict__:
            self._storage.close()

    @functools.cached_property
    def _storage(self) -> "Storage":
        return _open_storage()

    def save(self, state: TrainState, metrics: Mapping[str, Any] | None = None) -> None:
        """Writes the checkpoint of step `state.step` in the background, from a copy on the devices.

        It waits for the save before, if that is not written yet, and for nothing else.

        A checkpoint of the same step is replaced; its metrics stay when none are given here.

        Args:
            state: not donated; it may be, once this has returned.
            metrics: what was measured at this step, scalars; a checkpoint without metrics, or whose
                best metric is not finite, is never the best one.

        Raises:
            InputError: if metrics are given without the best metric.
            OSError: as `wait`, of the save before.
        """
        if metrics and self._best_metric not in metrics:
            raise unknown("metric for the best checkpoint", self._best_metric, metrics)
        self.wait()
        # What is frozen too: a checkpoint holds what the devices had, so that a change of it is found later.
        leaves = _whole(_flatten(state.without_references()))
        if jax.process_index() == 0:
            self._writing = self._thread.submit(self._write, sharding.one_copy(leaves), metrics)
        else:
            self._writing = self._thread.submit(lambda: None)

    def wait(self) -> None:
        """Returns when what was saved is on disk, in every process.

        Raises:
            OSError: if the disk is full (as `files.explain_full_disk`), or process 0 could
                not write; earlier checkpoints are untouched.
        """
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        with sharding.together():
            writing.result()

    def _write(self, copied: dict[str, Any], metrics: Mapping[str, Any] | None) -> None:
        """Writes a checkpoint; on a thread of its own, in the first process."""
        leaves = {name: np.asarray(leaf) for name, leaf in jax.device_get(copied).items()}
        step = int(leaves["step"])
        with files.explain_full_disk(
            f"the checkpoint of step {step}",
            self._folder,
            trees.num_bytes(leaves),
            "earlier checkpoints are untouched: make room and run the same command again to go on",
        ):
            self._write_leaves(step, leaves, metrics)

    def _write_leaves(
        self, step: int, leaves: dict[str, np.ndarray], metrics: Mapping[str, Any] | None
    ) -> None:
        final, draft = self._folder / str(step), self._folder / f"{step}.tmp"
        if not metrics and not verification.find_problem(final):
            metrics = verification.read_record(final)["metrics"]
        record = {
            "step": step,
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "leaves": {name: [list(leaf.shape), leaf.dtype.name] for name, leaf in leaves.items()},
        }
        try:
            verification.remove_leftovers(self._folder)
            draft.mkdir()
            self._storage.save(draft / "state", leaves)
            verification.seal(draft, record)
            verification.put_in_place(draft, final)
        except Exception:
            _discard(draft)
            raise
        self._damaged.discard(step)
        self._prune()

    def restore_latest(self, template: Template) -> TrainState | None:
        """Returns the newest state that verifies, or None when no checkpoint does.

        Args:
            template: a state of the expected structure, of arrays or `jax.ShapeDtypeStruct`, or a function
                from the step to it where the structure depends on the step. Every restored leaf takes the
                template's sharding, whatever devices wrote it.

        Raises:
            InputError: if the saved leaves differ from the template's; all differences are listed.

        Warns:
            UserWarning: for each newer checkpoint that is skipped since it does not verify, on process 0.
        """
        return self._restore(self._choose(self._by_age()), template)

    def restore_best(self, template: Template) -> TrainState | None:
        """Returns the state with the best metric, or None; otherwise as `restore_latest`."""
        return self._restore(self._choose(self._by_metric()), template)

    def metrics_of(self, step: int) -> dict[str, float]:
        """Returns what was measured at the checkpoint of a step; {} where nothing was."""
        self.wait()
        return verification.read_record(self._folder / str(step))["metrics"]

    def is_best(self, metrics: Mapping[str, Any]) -> bool:
        """Returns whether metrics are better than all saved, and all it was asked about, before.

        Raises:
            InputError: if they lack the best metric.
        """
        if self._best_metric not in metrics:
            raise unknown("metric for the best checkpoint", self._best_metric, metrics)
        if self._best_value is None:
            step = self.best_step()
            self._best_value = -math.inf
            if step is not None:
                record = verification.read_record(self._folder / str(step))
                self._best_value = self._score(record["metrics"])
        better = self._score(metrics) > self._best_value
        if better:
            self._best_value = self._score(metrics)
        return better

    def _score(self, metrics: Mapping[str, Any]) -> float:
        """Returns the best metric so that more is better; NaN is never better."""
        value = float(metrics[self._best_metric])
        return value if self._best_mode == "max" else -value

    def latest_step(self) -> int | None:
        """Returns the newest step that verifies, or None; says nothing of those skipped."""
        return self._choose(self._by_age(), warn=False)

    def best_step(self) -> int | None:
        """Returns the step with the best metric that verifies, the earliest of equals, or None."""
        return self._choose(self._by_metric(), warn=False)

    def _by_age(self) -> list[int]:
        self.wait()
        return verification.steps_by_age(self._folder)

    def _by_metric(self) -> list[int]:
        self.wait()
        return verification.steps_by_metric(self._folder, self._best_metric, self._best_mode)

    def _choose(self, candidates: list[int], warn: bool = True) -> int | None:
        """Returns the first candidate that verifies; process 0 decides for all processes."""
        step, damaged = verification.first_verified(self._folder, candidates)
        self._damaged |= damaged.keys()
        if jax.process_count() > 1:
            agreed = multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step))
            step = None if agreed < 0 else int(agreed)
        if warn:
            _warn(self._folder, damaged)
        return step

    def _restore(self, step: int | None, template: Template) -> TrainState | None:
        if step is None:
            return None
        if not isinstance(template, TrainState):
            template = template(step)
        folder = self._folder / str(step)
        template = template.without_references()
        expected = _flatten(template)
        found = {
            name: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
            for name, (shape, dtype) in verification.read_record(folder)["leaves"].items()
            if not _RETIRED.fullmatch(name)
        }
        lines = trees.differences(found, expected)
        if lines:
            raise InputError(
                f"the checkpoint {folder} holds another state than this run's "
                f"({len(lines)} differences):\n" + "\n".join(lines)
            )
        with sharding.together():
            leaves = _read(self._storage, folder)
        placed = [_place(leaves[name], like) for name, like in expected.items()]
        _log.info("restored step %d from %s", step, folder)
        return jax.tree.unflatten(jax.tree.structure(template), placed)

    def _prune(self) -> None:
        """Removes all but the two latest and the best; damaged ones neither count nor go."""
        steps = verification.steps_by_age(self._folder)
        best = verification.steps_by_metric(self._folder, self._best_metric, self._best_mode)
        ages, best = (
            [step for step in kind if step not in self._damaged] for kind in (steps, best)
        )
        for step in set(ages) - {*ages[:2], *best[:1]}:
            shutil.rmtree(self._folder / str(step))


def newest_step(folder: str | os.PathLike[str]) -> int:
    """Returns the newest step that a folder has a checkpoint of, damaged or not; 0 without any. Reads no file."""
    root = Path(folder)
    return max(verification.steps_by_age(root), default=0) if root.is_dir() else 0


def _discard(draft: Path) -> None:
    """Removes a failed draft; Orbax's other writes may continue for a moment and make it again."""
    deadline = time.monotonic() + 5
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:
        shutil.rmtree(draft, ignore_errors=True)
        time.sleep(0.05)
        quiet = 0 if draft.exists() else quiet + 1


def restore_params(
    folder: str | os.PathLike[str],
    which: str = "best",
    *,
    best_metric: str = "top1_accuracy",
    best_mode: str = "max",
) -> dict[str, Any]:
    """Returns {"params", "batch_stats"} of a run as nested dicts of numpy arrays; no template.

    They are those of its network. Where its objective owned parameters (the head of the source, in Co-Tuning), these
    are beside them, as "objective".

    Args:
        folder: the checkpoint folder of a run; only read.
        which: "best" or "latest"; checkpoints that do not verify are skipped with a warning.
        best_metric: as in `Checkpointer`.
        best_mode: as in `Checkpointer`.

    Raises:
        InputError: if there is no such checkpoint, or `which` or `best_mode` is unknown.
    """
    return restore_params_and_step(
        folder, which, best_metric=best_metric, best_mode=best_mode, stacklevel=5
    )[0]


def restore_params_and_step(
    folder: str | os.PathLike[str],
    which: str = "best",
    *,
    best_metric: str = "top1_accuracy",
    best_mode: str = "max",
    stacklevel: int = 4,
) -> tuple[dict[str, Any], int]:
    """Returns what `restore_params` does, and the completed updates of that checkpoint.

    Args:
        folder: the checkpoint folder of a run; only read.
        which: "best" or "latest".
        best_metric: as in `Checkpointer`.
        best_mode: as in `Checkpointer`.
        stacklevel: of warnings about damaged checkpoints.

    Raises:
        InputError: as `restore_params`.
    """
    if which not in ("best", "latest"):
        raise unknown("checkpoint", which, ["best", "latest"])
    _check_mode(best_mode)
    root = Path(folder).absolute()
    if not root.is_dir():
        raise InputError(f"{root} is no folder of checkpoints")
    if which == "latest":
        candidates = verification.steps_by_age(root)
    else:
        candidates = verification.steps_by_metric(root, best_metric, best_mode)
    step, damaged = verification.first_verified(root, candidates)
    _warn(root, damaged, stacklevel)
    if step is None:
        hint = f"; ask for 'latest' if none was saved with {best_metric}" if which == "best" else ""
        raise InputError(f"no {which} checkpoint that verifies in {root}{hint}")
    with _open_storage() as storage:
        tree = trees.unflatten(_read(storage, root / str(step)))
    params = tree.get("params", {})
    variables = {"params": of_network(params), "batch_stats": tree.get("batch_stats", {})}
    own = of_objectives(params)
    return {**variables, **({GROUP: own} if own else {})}, step


def _open_storage() -> "Storage":
    from tl_jax.checkpointing.storage import Storage  # late: it holds up the start of a run

    return Storage()


def _check_mode(best_mode: str) -> None:
    if best_mode not in ("max", "min"):
        raise unknown("best_mode", best_mode, ["max", "min"])


def _warn(root: Path, damaged: dict[int, str], stacklevel: int = 4) -> None:
    if jax.process_index() == 0:
        for step, problem in damaged.items():
            path = root / str(step)
            warnings.warn(
                f"skipped the damaged checkpoint {path}: {problem}", stacklevel=stacklevel
            )


def _flatten(state: Any) -> dict[str, Any]:
    """Returns {leaf name: leaf}; the leaves of optax's tuples are named too: opt_state/0/trace."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _whole(leaves: dict[str, Any]) -> dict[str, Any]:
    """Returns the leaves, those that are split over processes whole, as numpy, on every process."""
    return {
        name: multihost_utils.process_allgather(leaf, tiled=True)
        if isinstance(leaf, jax.Array)
        and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
        else leaf
        for name, leaf in leaves.items()
    }


def _place(array: np.ndarray, like: Any) -> jax.Array:
    """Returns the array on the devices of `like`; left uncommitted to a device where `like` is."""
    sharding = getattr(like, "sharding", None)
    if sharding is None or not getattr(like, "committed", True):
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _read(storage: "Storage", folder: Path) -> dict[str, np.ndarray]:
    names = verification.read_record(folder)["leaves"]
    return storage.read(folder / "state", list(names))
