"""The metrics of a run while it trains: written to files, shown in the bar, passed to callbacks."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from tl_jax import objectives, reporting
from tl_jax.compilation import computed
from tl_jax.runs.averages import make_candidate
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup
from tl_jax.training import metrics
from tl_jax.training.busy_time import BusyTime
from tl_jax.training.state import TrainState
from tl_jax.training.steps import RATE_SCALE

# Called with (completed updates, split, metrics) whenever these are logged: split is "train" (means since the
# last time, `learning_rate`, `images_per_second`) or "validation".
Callback = Callable[[int, str, Mapping[str, float]], object]

# Of an evaluation: 1 where the averaged weights are the candidate in place of the live ones.
AVERAGED = "averaged"


class Recording:
    """The log of a run, or of one of its phases: `metrics.jsonl`, TensorBoard events, the bar, callbacks.

    Files and bar belong to the first of several processes; callbacks are called in all of them.

    Attributes:
        updating_seconds: of the updates of this process that were logged.
        waiting_seconds: of these, how long the devices waited for their input.
    """

    def __init__(
        self,
        setup: Setup,
        folder: RunFolder,
        start: int,
        callbacks: Sequence[Callback],
        closing: contextlib.ExitStack,
        run_steps: int,
        seconds: float,
        busy: BusyTime,
    ):
        """Opens files and bar.

        Args:
            setup: of the run, or of the phase.
            folder: where metrics are written.
            start: completed updates, of earlier phases or of an earlier process that this one resumes.
            callbacks: called with all that is logged.
            closing: closes what is opened here.
            run_steps: updates of the whole run.
            seconds: that the run took before them, see `seconds_so_far`.
            busy: counts what the devices do for averages.
        """
        self._setup, self._callbacks = setup, callbacks
        self._candidate = make_candidate(setup, busy)
        # At once, before the first update: what is asked of the devices later waits for all updates under way.
        updates = np.arange(setup.total_steps - setup.first_step)
        self._rates = np.asarray(computed(jax.vmap(setup.optimisation.schedule), updates))
        self._before, self._began = seconds, time.perf_counter()
        self._step, self.waiting_seconds, self.updating_seconds = start, 0.0, 0.0
        self._writer: reporting.MetricWriter | None = None
        self._progress: reporting.Progress | None = None
        if jax.process_index() == 0:
            report, batch_size = setup.config.report, setup.config.data.batch_size
            self._writer = closing.enter_context(
                reporting.MetricWriter(
                    folder.path, tensorboard=report.tensorboard, resume_step=start or None
                )
            )
            self._progress = closing.enter_context(
                reporting.Progress(run_steps, initial_step=start, batch_size=batch_size)
            )

    @property
    def seconds(self) -> float:
        """Seconds that the updates took so far, in processes that were interrupted too."""
        return self._before + time.perf_counter() - self._began

    @property
    def show(self) -> Callable[[int, object], None] | None:
        """Shows (completed updates, loss); None in processes without a bar."""
        return self._progress.update if self._progress is not None else None

    def log(self, step: int, measured: Mapping[str, float]) -> None:
        """Takes the means since the last log; see `loops.Hooks`."""
        images = (step - self._step) * self._setup.config.data.batch_size
        self._step = step
        self.updating_seconds += images / measured["images_per_second"]
        self.waiting_seconds += measured["waiting_seconds"]
        rate = float(self._rates[step - 1 - self._setup.first_step])
        rate *= measured.get(RATE_SCALE, 1.0)
        self._record(step, "train", {**measured, "learning_rate": rate})

    def evaluate(self, state: TrainState) -> Mapping[str, float] | None:
        """Returns the metrics on validation, None where nothing is held out; see `loops.Hooks`."""
        setup = self._setup
        if "validation" not in setup.inputs:
            return None
        split = setup.inputs["validation"]
        measured = setup.evaluator.measure(**state.network, split=split)
        measured = {**measured, **self._of_average(state, measured)}
        step = int(state.step)
        self._record(step, "validation", measured)
        # The candidate of this step is what `average.choose` says.
        candidate = dict(measured)
        if measured.get(AVERAGED):
            candidate |= {name: measured[f"average_{name}"] for name in self._compared}
        if self._progress is not None:
            self._progress.validation(step, candidate["top1_accuracy"], int(measured["examples"]))
        return candidate

    @property
    def _compared(self) -> tuple[str, ...]:
        """The metrics of live and averaged weights that are shown, and that choose."""
        return tuple(dict.fromkeys(("top1_accuracy", "loss", self._setup.selected_by)))

    def _of_average(self, state: TrainState, live: Mapping[str, float]) -> dict[str, float]:
        """Returns the metrics of the averaged weights, and whether they are chosen in place of the live ones."""
        candidate = self._candidate(state)
        if candidate is None:
            return {}
        split = self._setup.inputs["validation"]
        measured = self._setup.evaluator.measure(
            objectives.of_network(candidate["params"]), candidate["batch_stats"], split
        )
        name = self._setup.selected_by
        in_any_case = self._setup.config.average.choose == "averaged"
        chosen = in_any_case or metrics.is_better(name, measured[name], live[name])
        shown = {f"average_{name}": measured[name] for name in self._compared}
        return {**shown, AVERAGED: float(chosen)}

    def _record(self, step: int, split: str, measured: Mapping[str, float]) -> None:
        if self._writer is not None:
            self._writer.write(step, split, {**measured, "seconds": self.seconds})
        for callback in self._callbacks:
            callback(step, split, dict(measured))


def seconds_so_far(folder: RunFolder, step: int) -> float:
    """Returns the seconds that a run took for its first `step` updates, as its metrics say."""
    if not step:
        return 0.0
    lines = reporting.read_metrics(folder.path)
    return max((line.get("seconds", 0.0) for line in lines if line["step"] <= step), default=0.0)
