"""The training loop: order of step, log, evaluate, save, stop."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from tl_jax.train_state import TrainState

# How far the host may run ahead of the device: bounds the batches held there, and keeps loops over
# forced host devices from the rendezvous timeout of jaxlib 0.10.
_STEPS_IN_FLIGHT = 8


class Stopped(Exception):
    """The run was asked to stop and has saved its state (exit code 75).

    Attributes:
        step: the completed updates that the checkpoint holds.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped on request at step {step}; run the same command again to go on")
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

    Attributes:
        total_steps: updates in the whole run.
        log_every: between lines in the log; the only times the host waits for the device.
        eval_every: between evaluations.
        checkpoint_every: between checkpoints; every evaluation saves too, so that the best is kept.
    """

    total_steps: int
    log_every: int
    eval_every: int = 0
    checkpoint_every: int = 0

    def due(self, every: int, step: int) -> bool:
        """Returns whether something done `every` so many updates is due after `step` updates."""
        return step == self.total_steps or (every > 0 and step % every == 0)


def train(
    state: TrainState,
    train_step: Callable[[TrainState, dict], tuple[TrainState, dict]],
    batches: Iterable[dict[str, np.ndarray]],
    intervals: Intervals,
    *,
    log: Callable[[int, Mapping[str, float]], None],
    show: Callable[[int, Any], None] | None = None,
    evaluate: Callable[[TrainState], Mapping[str, float] | None],
    save: Callable[[TrainState, Mapping[str, float] | None], None],
    last_saved: Callable[[], int | None] = lambda: None,
    stop_requested: Callable[[int], bool] = lambda step: False,
    batch_indices: Callable[[int], np.ndarray] | None = None,
) -> TrainState:
    """Runs updates from `state.step` to `intervals.total_steps` and returns the final state.

    After each update, in this order: log if due, evaluate if due, save if due, stop if asked. Loss and
    gradient norm are checked wherever the host reads them: at logs and before every save, so no
    checkpoint ever holds what came after one that is not finite.

    Args:
        state: where to start; donated.
        train_step: compiled; returns the next state and metrics, left on the device between logs.
        batches: the host batches of the updates `state.step, state.step + 1, ...`.
        intervals: what happens when.
        log: receives (completed updates, mean metrics since the last log, and `images_per_second`).
        show: receives (completed updates, loss on the device) after every update; it should rarely
            read the loss, since reading waits for the device.
        evaluate: receives the state, returns metrics for choosing the best checkpoint, or None.
        save: receives the state and those metrics.
        last_saved: the newest checkpoint's step.
        stop_requested: asked after each update, with its number; must answer alike in every
            process.
        batch_indices: the examples of an update, for the message about a non-finite loss.

    Raises:
        NonFiniteLoss: names the step, the batch's indices and the last good checkpoint.
        Stopped: after saving, when `stop_requested`.
    """
    step = int(state.step)
    pending: list[dict[str, Any]] = []
    images, since = 0, time.perf_counter()

    def read_pending() -> list[dict[str, float]]:
        read = [{name: float(value) for name, value in jax.device_get(m).items()} for m in pending]
        for offset, measured in enumerate(read):
            # A gradient that is not finite spoils the parameters one update before the loss shows it.
            spoilt = [
                f"{name} {value}" for name, value in measured.items() if not np.isfinite(value)
            ]
            if spoilt:
                bad = step - len(read) + offset
                indices = None if batch_indices is None else batch_indices(bad)
                raise NonFiniteLoss(bad, ", ".join(spoilt), last_saved(), indices)
        return read

    window: list[dict[str, float]] = []
    for batch in batches:
        if step >= intervals.total_steps:
            break
        state, measured = train_step(state, batch)
        pending.append(measured)
        if len(pending) > _STEPS_IN_FLIGHT:
            jax.block_until_ready(pending[-_STEPS_IN_FLIGHT])
        step += 1
        if show is not None:
            show(step, measured["loss"])
        images += len(batch["label"]) * jax.process_count()
        log_due = intervals.due(intervals.log_every, step)
        eval_due = intervals.due(intervals.eval_every, step)
        stopping = stop_requested(step)
        save_due = eval_due or stopping or intervals.due(intervals.checkpoint_every, step)
        if log_due or save_due:
            window += read_pending()
            pending = []
        if log_due:
            seconds = time.perf_counter() - since
            means = {name: float(np.mean([m[name] for m in window])) for name in window[0]}
            log(step, {**means, "images_per_second": images / seconds})
            window, images, since = [], 0, time.perf_counter()
        if save_due:
            paused = time.perf_counter()
            save(state, evaluate(state) if eval_due else None)
            since += time.perf_counter() - paused
        if stopping and step < intervals.total_steps:
            raise Stopped(step)
    return state
