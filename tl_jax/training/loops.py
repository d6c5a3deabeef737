"""The training loop: order of step, log, evaluate, save, stop."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from tl_jax.parallel import sharding
from tl_jax.training.state import TrainState

# How far the host may run ahead of the device, in dispatches: bounds the batches held there, and keeps
# loops over forced host devices from the rendezvous timeout of jaxlib 0.10.
_DISPATCHES_IN_FLIGHT = 8


class Stopped(Exception):
    """The run was asked to stop and has saved its state (exit code 75).

    Attributes:
        step: the completed updates that the checkpoint holds; 0 also where several runs were stopped.
    """

    def __init__(self, step: int):
        where = f" at step {step}" if step else ""
        super().__init__(f"stopped on request{where}; run the same command again to go on")
        self.step = step


class NonFiniteLoss(ArithmeticError):
    """The loss of an update, or the norm of its gradient, was NaN or infinite.

    Attributes:
        step: the update, counted from 0, for which it was not finite.
    """

    def __init__(self, step: int, what: str, last_good: int | None, indices: np.ndarray | None):
        saved = (
            "no checkpoint was saved before"
            if last_good is None
            else f"last good checkpoint: step {last_good}"
        )
        batch = (
            ""
            if indices is None
            else f"; indices of its batch in the training split: {indices.tolist()}"
        )
        super().__init__(f"{what} at step {step}; {saved}{batch}")
        self.step = step


@dataclasses.dataclass(frozen=True)
class Intervals:
    """What happens when, in updates; 0 means only at the end.

    Intervals count from the first update: of the run, or of its phase.

    Attributes:
        total_steps: completed updates at the end: of the run, or of its phase.
        log_every: between lines in the log.
        eval_every: between evaluations.
        checkpoint_every: between checkpoints, which are saved where a dispatch ends.
        updates_per_dispatch: at most; a dispatch never goes past an evaluation or the end.
        first_step: completed updates of earlier phases.
        goes_on: whether another phase follows.
        patience: evaluations without a new best one after which the run ends; 0: it does not.
    """

    total_steps: int
    log_every: int
    eval_every: int = 0
    checkpoint_every: int = 0
    updates_per_dispatch: int = 1
    first_step: int = 0
    goes_on: bool = False
    patience: int = 0

    def is_over(self, step: int, best_step: int | None) -> bool:
        """Returns whether nothing is left to do after `step` updates, the best evaluation having been at `best_step`.

        A function of the two alone, so that a resumed run ends where an uninterrupted one does.
        """
        since = self.first_step if best_step is None else best_step
        evaluations = len(self.dues(self.eval_every, step, since))
        return step >= self.total_steps or 0 < self.patience <= evaluations

    def dues(self, every: int, step: int, since: int) -> list[int]:
        """Returns when, after `since` and up to `step`, something done `every` so many updates is due."""
        first = self.first_step
        dues = []
        if every:
            dues = list(range(first + ((since - first) // every + 1) * every, step + 1, every))
        return dues if step != self.total_steps or dues[-1:] == [step] else [*dues, step]

    @property
    def lengths(self) -> list[int]:
        """The numbers of updates that are dispatched at once by a run that is not resumed, the most first."""
        starts = [self.first_step]  # of the first span between evaluations, and of the last
        if self.eval_every:
            spans = (self.total_steps - 1 - self.first_step) // self.eval_every
            starts.append(self.first_step + spans * self.eval_every)
        found = set()
        for start in starts:
            end = self.total_steps
            if self.eval_every:
                end = min(end, start + self.eval_every)
            block = self.updates_after(start)
            found |= {block, (end - start) % block or block}
        return sorted(found, reverse=True)

    def updates_after(self, step: int) -> int:
        """Returns how many updates to dispatch at once after `step`.

        A function of the step alone, so that a resumed run dispatches as one that never stopped
        once it has reached the next evaluation; spans between evaluations are cut into equal parts,
        since fewer updates are a program of their own on CPUs, and take as long as all elsewhere.
        """
        start, end = self.first_step, self.total_steps
        if self.eval_every:
            start += (step - start) // self.eval_every * self.eval_every
            end = min(start + self.eval_every, end)
        parts = -(-(end - start) // self.updates_per_dispatch)
        block = -(-(end - start) // parts)
        return min(block - (step - start) % block, end - step)


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop calls, and asks.

    Attributes:
        log: receives (completed updates, mean metrics since the last log, `images_per_second`, and
            `waiting_seconds`, for which the host got the next input ready while the device had nothing
            to do; what a transfer takes after that is not among them); once the next dispatch is under way,
            or before what else is due.
        evaluate: receives the state, returns metrics for choosing the best checkpoint, or None.
        save: receives a state and those metrics; it may write in the background, from a copy.
        finish_saving: called before the loop ends or is stopped, to wait until all is written.
        show: receives (completed updates, loss on the device) after every dispatch; it should rarely
            read the loss, since reading waits for the device.
        is_best: whether these metrics are better than all that it was asked about, or that were saved.
        last_saved: the newest checkpoint's step.
        best_saved: the step of the best checkpoint; None where none was evaluated.
        save_requested: asked after each dispatch, with the updates completed; must answer alike in
            every process.
        stop_requested: likewise.
        batch_indices: the examples of an update, for the message about a non-finite loss.
    """

    log: Callable[[int, Mapping[str, float]], None]
    evaluate: Callable[[TrainState], Mapping[str, float] | None]
    save: Callable[[TrainState, Mapping[str, float] | None], None]
    finish_saving: Callable[[], None] = lambda: None
    show: Callable[[int, Any], None] | None = None
    is_best: Callable[[Mapping[str, float]], bool] = lambda metrics: True
    last_saved: Callable[[], int | None] = lambda: None
    best_saved: Callable[[], int | None] = lambda: None
    save_requested: Callable[[int], bool] = lambda step: False
    stop_requested: Callable[[int], bool] = lambda step: False
    batch_indices: Callable[[int], np.ndarray] | None = None


def train(
    state: TrainState,
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict]],
    feed: Callable[[int, int], Any],
    intervals: Intervals,
    hooks: Hooks,
    batch_size: int,
) -> TrainState:
    """Runs updates from `state.step` to `intervals.total_steps`, or until patience ends; returns the final state.

    After each dispatch, in this order: log what fell due before it, so that the device is busy meanwhile;
    evaluate if due, save if due, stop if asked, each after all logs that are due. Loss and gradient norm are
    checked wherever the host reads them: at logs and before every save, so no checkpoint ever holds what came
    after one that is not finite.

    A state that an evaluation finds better than all before is copied on the devices until the next save, or
    the end: a killed run comes to it again, and quick evaluations cost neither transfer nor disk.

    Args:
        state: where to start; donated.
        train_step: compiled; takes what `feed` returns, and returns the next state and the metrics of
            the updates in it, scalars or [updates], left on the device between logs; what stands after
            those of the updates asked for is not looked at, but shown.
        feed: returns, placed on the devices, the input of (completed updates, number of updates).
        intervals: what happens when.
        hooks: what is called then.
        batch_size: global, for `images_per_second`.

    Raises:
        NonFiniteLoss: names the step, the batch's indices and the last good checkpoint.
        Stopped: after saving, when `hooks.stop_requested`.
    """
    step = int(state.step)
    best_step = hooks.best_saved() if intervals.patience else None
    best: tuple[TrainState, Mapping[str, float]] | None = None

    def last_good() -> int | None:
        # A run that ends here would come to its best state again, and to its end.
        if best is not None:
            hooks.save(*best)
        return hooks.last_saved()

    record = _Record(step, batch_size, intervals, last_good, hooks.batch_indices)
    while not intervals.is_over(step, best_step):
        before, count = step, intervals.updates_after(step)
        with record.waiting():
            inputs = feed(step, count)
        state, measured = train_step(state, inputs)
        step += count
        if hooks.show is not None:
            hooks.show(step, measured["loss"])
        for due, means in record.lines():
            hooks.log(due, means)
        record.add(measured, step)
        eval_due = intervals.dues(intervals.eval_every, step, before)
        stopping = hooks.stop_requested(step)
        save_due = hooks.save_requested(step) or stopping
        save_due |= bool(intervals.dues(intervals.checkpoint_every, step, before))
        if eval_due or save_due:
            for due, means in record.lines(everything=True):
                hooks.log(due, means)
            with record.paused():
                metrics = hooks.evaluate(state) if eval_due else None
                new_best = metrics if metrics and hooks.is_best(metrics) else None
                if new_best is not None:
                    best, best_step = None, step
                if save_due or intervals.is_over(step, best_step):
                    if best is not None:
                        hooks.save(*best)
                    best = None
                    hooks.save(state, metrics)
                elif new_best is not None:
                    best = sharding.one_copy(state.without_references()), new_best
        if stopping and (not intervals.is_over(step, best_step) or intervals.goes_on):
            hooks.finish_saving()
            raise Stopped(step)
    hooks.finish_saving()
    return state


class _Record:
    """The metrics of the updates since the last log, and how the time since then was spent."""

    def __init__(self, step: int, batch_size: int, intervals: Intervals, last_good, batch_indices):
        self._batch_size, self._intervals = batch_size, intervals
        self._last_good, self._batch_indices = last_good, batch_indices
        self._pending: list[tuple[int, dict[str, Any]]] = []  # updates, metrics on the device
        self._window: list[dict[str, float]] = []  # read, not yet logged
        self._step = self._logged = self._timed = step
        self._since, self._waited = time.perf_counter(), 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as spent waiting, unless the device is still at work afterwards."""
        began = time.perf_counter()
        yield
        if not self._pending or _is_ready(self._pending[-1][1]["loss"]):
            self._waited += time.perf_counter() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside out of the speed."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def add(self, measured: dict[str, Any], step: int) -> None:
        """Takes the metrics, still on the device, of the dispatch that ended at `step`."""
        self._pending.append((step - self._step, measured))
        self._step = step
        if len(self._pending) > _DISPATCHES_IN_FLIGHT:
            jax.block_until_ready(self._pending[-_DISPATCHES_IN_FLIGHT][1])

    def lines(self, *, everything: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
        """Yields (updates, means) of each log that is due, having waited for all metrics that were taken.

        Raises NonFiniteLoss if one is not finite; `everything` also where no log is due.
        """
        dues = []
        if self._step > self._logged:
            dues = self._intervals.dues(self._intervals.log_every, self._step, self._logged)
        if dues or everything:
            self._read()
        now = time.perf_counter()
        for due in dues:
            taken = self._window[: due - self._logged]
            self._window = self._window[due - self._logged :]
            means = {name: float(np.mean([one[name] for one in taken])) for name in taken[0]}
            means["images_per_second"] = (
                (self._step - self._timed) * self._batch_size / (now - self._since)
            )
            means["waiting_seconds"] = self._waited / len(dues)
            yield due, means
            self._logged = due
        if dues:
            # The devices go on while lines are written, but where nothing is under way.
            self._since = time.perf_counter() if everything else now
            self._timed, self._waited = self._step, 0.0

    def _read(self) -> None:
        read = [one for part in jax.device_get(self._pending) for one in _unstacked(*part)]
        self._pending = []
        for offset, measured in enumerate(read):
            # A gradient that is not finite spoils the parameters one update before the loss shows it.
            spoilt = [
                f"{name} {value}" for name, value in measured.items() if not np.isfinite(value)
            ]
            if spoilt:
                bad = self._step - len(read) + offset
                indices = None if self._batch_indices is None else self._batch_indices(bad)
                raise NonFiniteLoss(bad, ", ".join(spoilt), self._last_good(), indices)
        self._window += read


def _unstacked(count: int, measured: dict[str, np.ndarray]) -> list[dict[str, float]]:
    """Returns the metrics of each of the first updates of a dispatch."""
    stacked = {name: np.atleast_1d(values) for name, values in measured.items()}
    return [{name: float(values[i]) for name, values in stacked.items()} for i in range(count)]


def _is_ready(value: Any) -> bool:
    return getattr(value, "is_ready", lambda: True)()  # NumPy's are
