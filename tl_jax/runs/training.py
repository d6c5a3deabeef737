"""One training run, from a config to a finished run folder."""

import contextlib
import copy
import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from tl_jax import console, data, reporting
from tl_jax.checkpointing import Checkpointer, newest_step
from tl_jax.config import completed, flat, identity_of, naming_phase, of_command
from tl_jax.errors import InputError
from tl_jax.parallel import memory, sharding
from tl_jax.runs import (
    activation_cache,
    dispatch,
    memory_plan,
    results,
    scatter,
    selection,
    source,
    weights,
)
from tl_jax.runs.averages import make_candidate
from tl_jax.runs.lengths import in_steps
from tl_jax.runs.parts import NOTHING_GIVEN, Parts
from tl_jax.runs.phases import PhaseRecords, number_at, template_at, trainable_parameters
from tl_jax.runs.recording import AVERAGED, Callback, Recording, seconds_so_far
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup, check_config, prepare_phases
from tl_jax.runs.skeleton import facts_of, in_folder, introduce
from tl_jax.runs.source import source_config, source_folder
from tl_jax.runs.splits import make_undecoded_splits
from tl_jax.training import loops
from tl_jax.training.averaging import Averaging
from tl_jax.training.state import TrainState

# In the folder of a run that distils: digests of its teachers' weights.
_TEACHERS = "teachers.json"


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
    parts: Parts = NOTHING_GIVEN,
    callbacks: Sequence[Callback] = (),
    sources: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Trains as `config` says, in `workdir`, resuming the run that is there; returns `result.json`.

    Where `init.source` describes a run to start from, that one is trained first, or resumed, or found finished.

    Args:
        config: of the run.
        workdir: the run folder.
        stop_requested: whether to stop; asked between updates.
        parts: objects that are given instead of by name.
        callbacks: called with (completed updates, split, metrics) whenever these are logged.
        sources: folder of the source runs that several runs share; None: `workdir`/source is this one's.

    Raises:
        InputError: before anything is compiled, if config, workdir, data or weights do not fit.
        loops.Stopped: when asked to stop, with a checkpoint saved.
        loops.NonFiniteLoss: naming step, batch and last good checkpoint.
        FrozenChanged: if training moved what it had to leave alone; the result says what.
    """
    started = config
    if config.init.source:
        started = _from_source(config, workdir, stop_requested, parts, sources)
    return in_folder(
        config,
        workdir,
        "",
        prepare=lambda: _prepare(started, workdir, parts),
        introduce=_introduce,
        make=lambda prepared, folder, parameters: _make(
            prepared, folder, parameters, stop_requested, callbacks
        ),
    )


def _from_source(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool],
    parts: Parts,
    sources: pathlib.Path | None,
) -> ml_collections.ConfigDict:
    """Returns the config that starts from the weights of its source run, which is trained unless it is finished."""
    described = source_config(config)
    folder = source_folder(described, sources) if sources else workdir / source.FOLDER
    started = copy.deepcopy(config)
    started.init.weights, started.init.source = str(folder), ()
    if RunFolder.look(workdir, of_command(config), identity_of(config)) == "finished":
        return started
    # What is wrong with the target is said before its source is trained.
    with sharding.together(), console.verbosity("silent"):
        check_config(config, parts)
        make_undecoded_splits(config, parts.source)
    console.say(f"source: {described.data.name}, in {folder}")
    own = dataclasses.replace(
        parts,
        source=parts.source if described.data.name == config.data.name else None,
        objective=None,
    )
    try:
        run(described, folder, stop_requested, own)
    except InputError as error:
        raise InputError(f"init.source: {error}") from error
    if stop_requested():
        raise loops.Stopped(0)
    with sharding.together():  # its weights are written by the first process
        weights.find(started)
    console.say(f"target: {config.data.name}, in {workdir}")
    return started


def pretrain(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains as `run` does, from random weights.

    Raises:
        InputError: if the config names pretrained weights, or as `run`.
    """
    given = [name for name in ("weights", "source") if config.init[name]]
    if given:
        raise InputError(
            f"init.{given[0]}={config.init[given[0]]!r}: pretrain starts from random weights; use "
            "experiments.finetune"
        )
    return run(config, workdir, stop_requested)


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


def _prepare(config: ml_collections.ConfigDict, workdir: pathlib.Path, parts: Parts) -> Prepared:
    phases = prepare_phases(config, parts)
    _check_teachers(phases, workdir)
    # A run in phases, or fitted to its data, is never extended.
    if not (config.phases or config.train.fit_to_data):
        _check_extension(phases[0], workdir)
    first = number_at(phases, newest_step(workdir / "checkpoints") + 1)
    dispatches = {}
    for number, setup in enumerate(phases[first:], first):
        # Compiled while images are decoded in the background; what images become needs them first.
        if setup.boundary is None:
            with naming_phase(config, number):
                dispatches[number] = dispatch.make(setup)
    results.check_class_names(workdir, phases[0].splits["train"].class_names)
    results.check_skipped(workdir, phases[0].splits)
    return Prepared(config, phases, dispatches)


def _teachers(phases: Sequence[Setup]) -> list[str]:
    """Returns the digests of the teachers' weights."""
    teachers = (setup.minimised.teacher for setup in phases)
    return [teacher.digest for teacher in teachers if teacher is not None]


def _check_teachers(phases: Sequence[Setup], workdir: pathlib.Path) -> None:
    """Raises InputError where a run goes on with a teacher whose weights are others than at its start."""
    path = workdir / _TEACHERS
    if path.is_file() and json.loads(path.read_text()) != _teachers(phases):
        raise InputError(
            f"--workdir {workdir} holds a run with other weights of its teacher than "
            f"objective.teacher={phases[-1].config.objective.teacher} has now; put them back, or give a new --workdir"
        )


def _introduce(prepared: Prepared, folder: RunFolder) -> list[dict[str, Any]]:
    phases = prepared.phases
    if _teachers(phases):
        folder.write_json(_TEACHERS, _teachers(phases))
    return introduce(
        max(phases, key=trainable_parameters), folder, phases if len(phases) > 1 else ()
    )


def _make(
    prepared: Prepared,
    folder: RunFolder,
    parameters: list[dict[str, Any]],
    stop_requested: Callable[[], bool],
    callbacks: Sequence[Callback],
) -> dict[str, Any]:
    trained = train(prepared, folder, stop_requested, callbacks)
    return conclude(trained.setup, folder, trained, parameters)


def _check_extension(setup: Setup, workdir: pathlib.Path) -> None:
    """Compares a longer run with the shorter one in its folder.

    A run evaluates its last update, too. A run that was longer from the start evaluates that update only
    at a multiple of the evaluation interval, and could choose another step otherwise.

    Raises:
        InputError: if the longer run would not evaluate the last update of the shorter one.
    """
    path = workdir / "config.json"
    if "validation" not in setup.splits or not path.is_file():
        return
    shorter = completed(json.loads(path.read_text())).train
    longer, every = setup.config.train, setup.intervals.eval_every
    field = "train.steps" if longer.steps else "train.epochs"
    there, here = (length.steps or length.epochs for length in (shorter, longer))
    if there == here:
        return
    end = shorter.steps or max(
        1, in_steps(setup.config, shorter.epochs, len(setup.splits["train"]))
    )
    if every and end % every == 0:
        return
    name = "train.eval_every_steps" if longer.eval_every_steps else "train.eval_every_epochs"
    given = flat(setup.config)[name]
    if not every:
        interval = f"train.eval_every_steps=0, {name}={given:g}: only at the end"
    else:
        interval = f"{name}={given:g}: every {every:,} updates"
    raise InputError(
        f"--workdir {workdir} holds a run of {field}={there:g}, {here:g} is given, and it cannot be extended: "
        f"it evaluates validation after its last update, {end:,}; a run of {field}={here:g} does not "
        f"({interval}) and may choose another step. Give a new --workdir for the longer run. A run can be "
        "extended where its number of updates is a multiple of the evaluation interval, or where nothing "
        "is held out"
    )


class FrozenChanged(RuntimeError):
    """A frozen leaf or statistic is not, bit for bit, what it was before training: a defect of ours."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What the updates came to.

    Attributes:
        setup: what evaluates the state: that of the last phase, on images where the state is of an earlier one.
        state: to report on: the best one on the validation split where there is one, else the last.
        steps: updates that were made, fewer than planned where patience ended the run.
        phases: what each phase was, took and proved.
        seconds: that they and the activations they are made on took, in all processes of this run that were
            interrupted too.
        storing_seconds: of these, those in which this process computed and stored activations.
        waiting_share: of the time of this process's updates, for how much the devices had nothing to do
            while the host got their input ready.
        dispatch: how they were dispatched, in the last phase.
        resumed_at_step: the updates that were done when this process began.
        averaging: of the weights of `state`; None where they are the live ones.
    """

    setup: Setup
    state: TrainState
    steps: int
    phases: PhaseRecords
    seconds: float
    storing_seconds: float
    waiting_share: float
    dispatch: dict[str, Any]
    resumed_at_step: int
    averaging: Averaging | None = None


def conclude(
    setup: Setup, folder: RunFolder, trained: Trained, parameters: list[dict[str, Any]]
) -> dict[str, Any]:
    """Evaluates the chosen state, reading the test split once; returns what `result.json` holds."""
    state = trained.state
    splits, logits = {}, {}
    for name in ("validation", "test"):
        if name in setup.inputs:
            splits[name], logits[name] = setup.evaluator(
                state.params, state.batch_stats, setup.inputs[name]
            )
    step, total = int(state.step), trained.steps
    every = setup.intervals.eval_every
    only_evaluation = len(trained.phases.rows) == 1 and not 0 < every < total
    chosen = selection.describe(
        setup.selected_by, step, total, splits.get("validation"), only_evaluation
    )
    if total < setup.total_steps:
        patience = setup.config.train.patience
        chosen += f"; stopped at step {total} of {setup.total_steps}, {patience} evaluations without a better one"
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    if jax.process_index() == 0:
        results.save_weights(folder, setup, variables)
    if setup.config.report.html and setup.config.report.scatter:
        scatter.save_of_state(folder, setup, state.params, state.batch_stats)
    result = {
        "splits": splits,
        "selection": f"{_weights_of(setup, trained)}{chosen}; {setup.splits.reported} was read once, at the end",
        "steps": total,
        "stopped_early": total < setup.total_steps,
        "selected_step": step,
        "selected_by": setup.selected_by if "validation" in splits else None,
        "averaged": trained.averaging is not None,
        "resumed_at_step": trained.resumed_at_step,
        "train_examples": len(setup.splits["train"]),
        "wall_seconds": trained.seconds,
        "images_per_second": total
        * setup.config.data.batch_size
        / (trained.seconds - trained.storing_seconds),
        "waiting_share": trained.waiting_share,
        "dispatch": trained.dispatch,
        **facts_of(setup, parameters),
        "frozen": trained.phases.frozen(step, variables),
        "phases": trained.phases.rows,
    }
    result = results.finish(folder, setup.config, setup.splits["test"], logits["test"], result)
    if result["frozen"]["changed"]:
        raise FrozenChanged(f"frozen, but changed: {', '.join(result['frozen']['changed'])}")
    return result


def _weights_of(setup: Setup, trained: Trained) -> str:
    """Returns which weights were chosen, where a run has two kinds."""
    if trained.averaging is not None:
        return f"the averaged weights ({trained.averaging.name.upper()}) of "
    return "" if setup.averaging is None else "the live weights of "


def train(
    prepared: Prepared,
    folder: RunFolder,
    stop_requested: Callable[[], bool],
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Runs or resumes the updates, phase after phase.

    Params and statistics go on from phase to phase; the optimizer begins anew. The last update of a phase is
    evaluated and saved: a run that is killed between two phases goes on there.
    """
    phases, run_steps = prepared.phases, prepared.phases[-1].total_steps
    template = functools.partial(template_at, phases)
    records = PhaseRecords(prepared.config, phases, folder)
    plans = {number: dispatched.memory for number, dispatched in prepared.dispatches.items()}
    updating = waiting = storing = 0.0
    metric, mode = selection.metric_and_mode(prepared.config)
    with Checkpointer(folder.checkpoints, best_metric=metric, best_mode=mode) as checkpointer:
        job = _Job(folder, checkpointer, stop_requested, callbacks, run_steps)
        state = checkpointer.restore_latest(template)
        step = resumed_at = 0 if state is None else int(state.step)
        if resumed_at:
            console.say(f"resumed at step {resumed_at:,} of {run_steps:,}")
        first = number_at(phases, step)
        seconds = max(seconds_so_far(folder, step), records.seconds_before(first))
        for number in range(first, len(phases)):
            setup, is_last = phases[number], number == len(phases) - 1
            if number:
                assert state is not None
                setup = dataclasses.replace(setup, start=jax.device_get(_variables(state)))
            if step == setup.first_step:
                state = None  # of an earlier phase: not needed while this one is made ready
            if step < setup.total_steps or is_last:
                with naming_phase(prepared.config, number):
                    setup = activation_cache.use(setup, stop_requested)
                    stored = setup.cache["seconds"] if setup.cache is not None else 0.0
                    seconds, storing = seconds + stored, storing + stored
                    dispatched = prepared.dispatches.pop(number, None) or dispatch.make(setup)
                plans[number] = dispatched.memory
                _tell_memory(folder, dispatched.memory, list(plans.values()))
                if state is None or len(phases) == 1:
                    records.begin(number, setup, dispatched)
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
        candidate = make_candidate(making)(state) if averaged else None
    if candidate is not None:
        state = state.replace(**candidate)
    share = waiting / updating if updating else 0.0
    return Trained(
        evaluating,
        state,
        step,
        records,
        seconds,
        storing,
        share,
        facts,
        resumed_at,
        None if candidate is None else making.averaging,
    )


@dataclasses.dataclass(frozen=True)
class _Job:
    """What all phases of a run have in common while they train."""

    folder: RunFolder
    checkpointer: Checkpointer
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
    intervals = dataclasses.replace(setup.intervals, updates_per_dispatch=dispatched.updates)
    dispatched.place()
    if state is None:
        state = setup.initial_state()
    elif not state.references:
        state = setup.with_references(state)
    start = int(state.step)
    with contextlib.ExitStack() as closing:
        recording = Recording(
            setup, job.folder, start, job.callbacks, closing, job.run_steps, seconds
        )
        requests = _Requests(
            job.stop_requested, intervals.log_every, config.train.checkpoint_every_seconds
        )
        hooks = loops.Hooks(
            log=recording.log,
            evaluate=recording.evaluate,
            save=job.checkpointer.save,
            show=recording.show,
            is_best=job.checkpointer.is_best,
            last_saved=job.checkpointer.latest_step,
            best_saved=job.checkpointer.best_step,
            save_requested=requests.save,
            stop_requested=requests.stop,
            batch_indices=setup.order.examples,
        )
        feed = closing.enter_context(dispatched.open_feed(start, setup.total_steps))
        state = loops.train(state, dispatched.step, feed, intervals, hooks, config.data.batch_size)
        times = recording.updating_seconds, recording.waiting_seconds
        return state, recording.seconds, times


def _variables(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _tell_memory(
    folder: RunFolder, plan: Sequence[dict[str, Any]], plans: Sequence[Sequence[dict[str, Any]]]
) -> None:
    """Prints the memory plan of a phase, and writes that of the phase that needs most."""
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


class _Requests:
    """Whether to stop or to save; several processes ask each other, every so many updates."""

    def __init__(self, stop_requested: Callable[[], bool], every: int, save_seconds: float):
        self._stop_requested, self._every, self._save_seconds = stop_requested, every, save_seconds
        self._asked, self._saved = -1, time.monotonic()
        self._save = False

    def stop(self, step: int) -> bool:
        """Returns whether to stop after `step` updates; to be asked before `save`."""
        due = self._save_seconds > 0 and time.monotonic() - self._saved >= self._save_seconds
        asked = np.array([self._stop_requested(), due])
        if jax.process_count() > 1:
            if step // self._every == self._asked:
                asked = np.zeros(2, bool)
            else:
                self._asked = step // self._every
                asked = np.any(multihost_utils.process_allgather(asked), axis=0)
        stopping, self._save = map(bool, asked)
        if self._save:
            self._saved = time.monotonic()
        return stopping

    def save(self, step: int) -> bool:
        """Returns whether the time for a checkpoint has come."""
        return self._save
