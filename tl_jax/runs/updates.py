"""The updates of a run, phase after phase: begun, resumed, interrupted."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections

from tl_jax import console, data, reporting
from tl_jax.checkpointing import Checkpointer
from tl_jax.config import naming_phase
from tl_jax.parallel import memory
from tl_jax.runs import (
    activation_cache,
    dispatch,
    memory_plan,
    relationship,
    selection,
)
from tl_jax.runs.averages import make_candidate
from tl_jax.runs.phases import PhaseRecords, number_at, template_at
from tl_jax.runs.recording import AVERAGED, Callback, Recording, seconds_so_far
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup
from tl_jax.runs.source_head import Relationship
from tl_jax.runs.stopping import StopRequests
from tl_jax.runs.together import Member
from tl_jax.training import loops
from tl_jax.training.averaging import Averaging
from tl_jax.training.busy_time import BusyTime
from tl_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run before its first update.

    Attributes:
        config: of the run.
        phases: one at least, each on images.
        dispatches: {number of a phase, from 0: how it is dispatched}, of those that stay on images.
    """

    config: ml_collections.ConfigDict
    phases: tuple[Setup, ...]
    dispatches: dict[int, dispatch.Dispatch]

    @property
    def splits(self) -> data.Splits:
        """The data of all phases."""
        return self.phases[0].splits


class FrozenChanged(RuntimeError):
    """A frozen leaf or statistic is not, bit for bit, what it was before training: a defect of ours."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What the updates, or what stands in their place, came to.

    Attributes:
        setup: what evaluates the state: that of the last phase, on images where the state is of an earlier one.
        state: to report on: the best one on the validation split where there is one, else the last.
        steps: updates that were made, fewer than planned where patience ended the run.
        phases: what each phase was, took and proved.
        seconds: that they and the activations they are made on took, in all processes of this run that were
            interrupted too.
        storing_seconds: of these, those in which this process computed and stored activations, and learned the
            relationship of classes.
        waiting_share: of the time of this process's updates, for how much the devices had nothing to do
            while the host got their input ready; None where no update is made.
        device_idle_share: of `seconds`, as far as this process took them, for how much the devices had nothing
            to do: input, evaluation, saving and logging included; see `BusyTime`. None where no update is made.
        dispatch: how they were dispatched, in the last phase.
        resumed_at_step: the updates that were done when this process began.
        averaging: of the weights of `state`; None where they are the live ones.
        found: {"solver" or "soup": what its file says}, where no updates were made; see `found`.
        shared_seconds: see `trained_first.Begun`.
    """

    setup: Setup
    state: TrainState
    steps: int
    phases: PhaseRecords
    seconds: float
    storing_seconds: float
    waiting_share: float | None
    device_idle_share: float | None
    dispatch: dict[str, Any]
    resumed_at_step: int
    averaging: Averaging | None = None
    found: Mapping[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    shared_seconds: float = 0.0


def train(
    prepared: Prepared,
    folder: RunFolder,
    stop_requested: Callable[[], bool],
    callbacks: Sequence[Callback] = (),
    member: Member | None = None,
) -> Trained:
    """Runs or resumes the updates, phase after phase; those of a `member` are made together with others'.

    Params and statistics go on from phase to phase; the optimizer begins anew. The last update of a phase is
    evaluated and saved: a run that is killed between two phases goes on there.
    """
    phases, run_steps = prepared.phases, prepared.phases[-1].total_steps
    template = functools.partial(template_at, phases)
    records = PhaseRecords(prepared.config, phases, folder)
    plans = {number: dispatched.memory for number, dispatched in prepared.dispatches.items()}
    updating = waiting = storing = 0.0
    metric, mode = selection.metric_and_mode(prepared.config)
    with (
        BusyTime() as busy,
        Checkpointer(folder.checkpoints, best_metric=metric, best_mode=mode) as checkpointer,
    ):
        job = _Job(folder, checkpointer, busy, stop_requested, callbacks, run_steps)
        state = checkpointer.restore_latest(template)
        step = resumed_at = 0 if state is None else int(state.step)
        if resumed_at:
            console.say(f"resumed at step {resumed_at:,} of {run_steps:,}")
        first = number_at(phases, step)
        learned: dict[Any, Relationship] = {}
        seconds = earlier = max(seconds_so_far(folder, step), records.seconds_before(first))
        for number in range(first, len(phases)):
            setup, is_last = phases[number], number == len(phases) - 1
            if number:
                assert state is not None
                setup = dataclasses.replace(setup, start=jax.device_get(_variables(state)))
            if step == setup.first_step:
                state = None  # of an earlier phase: not needed while this one is made ready
            if step < setup.total_steps or is_last:
                with naming_phase(prepared.config, number):
                    began = time.perf_counter()
                    setup = relationship.use(setup, learned)
                    relationship.write(folder, learned)
                    stored = time.perf_counter() - began if learned else 0.0
                    setup = activation_cache.use(setup, stop_requested, busy)
                    stored += setup.cache["seconds"] if setup.cache is not None else 0.0
                    seconds, storing = seconds + stored, storing + stored
                    dispatched = prepared.dispatches.pop(number, None) or dispatch.make(
                        setup, member
                    )
                plans[number] = dispatched.memory
                _tell_memory(folder, dispatched.memory, list(plans.values()))
                if state is None or len(phases) == 1:
                    records.begin(number, setup, dispatched.facts())
                records.check_begun(number)
                state, seconds, times = _train_phase(job, setup, dispatched, state, seconds)
                facts = dispatched.facts()
                del dispatched  # its data leave the devices before those of the next phase come
                step = int(state.step)
                updating, waiting = updating + times[0], waiting + times[1]
            assert state is not None
            records.check_begun(number)
            row = records.finish(number, state, seconds)
            if row["frozen"]["changed"] and not is_last:
                raise FrozenChanged(
                    f"phase {number + 1}: frozen, but changed: {', '.join(row['frozen']['changed'])}"
                )
        assert state is not None
        averaged = "validation" not in setup.inputs
        evaluating = making = setup
        if "validation" in setup.inputs:
            best = checkpointer.restore_best(template)
            # The last update is evaluated, so there is one, but where the loss chooses and was never finite.
            state = state if best is None else best
            averaged = bool(checkpointer.metrics_of(int(state.step)).get(AVERAGED))
            if int(state.step) <= setup.first_step:
                # The activations are those of another network.
                evaluating, making = phases[-1], phases[number_at(phases, int(state.step))]
        candidate = make_candidate(making, busy)(state) if averaged else None
    if candidate is not None:
        state = state.replace(**candidate)
    took = seconds - earlier
    return Trained(
        evaluating,
        state,
        step,
        records,
        seconds,
        storing,
        waiting / updating if updating else 0.0,
        max(0.0, 1 - busy.seconds / took) if took else 0.0,
        facts,
        resumed_at,
        None if candidate is None else making.averaging,
    )


@dataclasses.dataclass(frozen=True)
class _Job:
    """What all phases of a run have in common while they train."""

    folder: RunFolder
    checkpointer: Checkpointer
    busy: BusyTime
    stop_requested: Callable[[], bool]
    callbacks: Sequence[Callback]
    run_steps: int


def _train_phase(
    job: _Job, setup: Setup, dispatched: dispatch.Dispatch, state: TrainState | None, seconds: float
) -> tuple[TrainState, float, tuple[float, float]]:
    """Makes the updates of a phase from `state`, None for its start; `seconds` is what the run took before it.

    Returns:
        Its last state; the seconds that the run took up to here; of those of this process, the seconds in
        which updates were made, and in which the devices waited for their input.
    """
    config = setup.config
    setup = dataclasses.replace(setup, evaluator=setup.evaluator.watched(job.busy))
    step = job.busy.watch(dispatched.step, lambda result: result[1]["loss"])
    intervals = dataclasses.replace(setup.intervals, updates_per_dispatch=dispatched.updates)
    dispatched.place()
    if state is None:
        state = setup.initial_state()
    elif not state.references:
        state = setup.with_references(state)
    start = int(state.step)
    with contextlib.ExitStack() as closing:
        recording = Recording(
            setup, job.folder, start, job.callbacks, closing, job.run_steps, seconds, job.busy
        )
        requests = StopRequests(
            job.stop_requested, intervals.log_every, config.train.checkpoint_every_seconds
        )
        hooks = loops.Hooks(
            log=recording.log,
            evaluate=recording.evaluate,
            save=job.checkpointer.save,
            finish_saving=job.checkpointer.wait,
            show=recording.show,
            is_best=job.checkpointer.is_best,
            last_saved=job.checkpointer.latest_step,
            best_saved=job.checkpointer.best_step,
            save_requested=requests.save,
            stop_requested=requests.stop,
            batch_indices=setup.order.examples,
        )
        feed = closing.enter_context(dispatched.open_feed(start, setup.total_steps))
        state = loops.train(state, step, feed, intervals, hooks, config.data.batch_size)
        times = recording.updating_seconds, recording.waiting_seconds
        return state, recording.seconds, times


def _variables(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _tell_memory(
    folder: RunFolder, plan: Sequence[dict[str, Any]], plans: Sequence[Sequence[dict[str, Any]]]
) -> None:
    """Prints the memory plan of a phase, and writes that of the phase that needs most."""
    if memory.is_assumed(jax.local_devices()[0]):
        console.note(
            "the devices do not say how much memory they have: "
            f"{memory.format_bytes(memory.ASSUMED_BYTES)} each are assumed"
        )
    console.say(_of_memory(plan))
    reporting.print_table("Memory plan", list(plan))
    folder.write_json("memory.json", max(plans, key=memory_plan.bytes_of_run))


def _of_memory(plan: Sequence[dict[str, Any]]) -> str:
    """Returns a line about the memory that a run takes: of each place, of what it has."""
    totals = [row for row in plan if row["what"] in memory.TOTALS]
    return "memory: " + ", ".join(
        f"{row['size']} of {row['available']} ({row['where']})"
        for row in totals
        if "available" in row
    )
