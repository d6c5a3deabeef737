"""One training run, from a config to a finished run folder."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from tl_jax import console, data, freezing, reporting
from tl_jax.checkpointing import Checkpointer
from tl_jax.config import completed, flat
from tl_jax.errors import InputError
from tl_jax.runs import activation_cache, dispatch, results
from tl_jax.runs.averages import make_candidate
from tl_jax.runs.lengths import in_steps
from tl_jax.runs.parts import NOTHING_GIVEN, Parts
from tl_jax.runs.recording import AVERAGED, Callback, Recording
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup, prepare
from tl_jax.runs.skeleton import facts_of, in_folder, introduce
from tl_jax.training import loops
from tl_jax.training.state import TrainState


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
    parts: Parts = NOTHING_GIVEN,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Trains as `config` says, in `workdir`, resuming the run that is there; returns `result.json`.

    Args:
        config: of the run.
        workdir: the run folder.
        stop_requested: whether to stop; asked between updates.
        parts: objects that are given instead of by name.
        callbacks: called with (completed updates, split, metrics) whenever these are logged.

    Raises:
        InputError: before anything is compiled, if config, workdir, data or weights do not fit.
        loops.Stopped: when asked to stop, with a checkpoint saved.
        loops.NonFiniteLoss: naming step, batch and last good checkpoint.
        FrozenChanged: if training moved what it had to leave alone; the result says what.
    """
    return in_folder(
        config,
        workdir,
        "",
        prepare=lambda: _prepare(config, workdir, parts),
        introduce=lambda prepared, folder: introduce(prepared.setup, folder),
        make=lambda prepared, folder, parameters: _make(
            prepared, folder, parameters, stop_requested, callbacks
        ),
    )


def pretrain(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains as `run` does, from random weights.

    Raises:
        InputError: if the config names pretrained weights, or as `run`.
    """
    if config.init.weights:
        raise InputError(
            f"init.weights={config.init.weights!r}: pretrain starts from random weights; use experiments.finetune"
        )
    return run(config, workdir, stop_requested)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    setup: Setup
    dispatch: dispatch.Dispatch | None

    @property
    def splits(self) -> data.Splits:
        return self.setup.splits


def _prepare(config: ml_collections.ConfigDict, workdir: pathlib.Path, parts: Parts) -> _Prepared:
    setup = prepare(config, parts)
    _check_extension(setup, workdir)
    # Compiled while images are decoded in the background; what images become needs them first.
    how = dispatch.make(setup) if setup.boundary is None else None
    results.check_class_names(workdir, setup.splits["train"].class_names)
    return _Prepared(setup, how)


def _make(
    prepared: _Prepared,
    folder: RunFolder,
    parameters: list[dict[str, Any]],
    stop_requested: Callable[[], bool],
    callbacks: Sequence[Callback],
) -> dict[str, Any]:
    setup = activation_cache.use(prepared.setup, stop_requested)
    how = prepared.dispatch or dispatch.make(setup)
    trained = train(setup, how, folder, stop_requested, callbacks)
    return conclude(setup, folder, trained, parameters)


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
        state: to report on: the best one on the validation split where there is one, else the last.
        seconds: that they took, in all processes of this run that were interrupted too.
        waiting_share: of the time of this process's updates, for how much the devices had nothing to do
            while the host got their input ready.
        dispatch: how they were dispatched.
        resumed_at_step: the updates that were done when this process began.
        averaged: whether the weights of `state` are the averaged ones.
    """

    state: TrainState
    seconds: float
    waiting_share: float
    dispatch: dict[str, Any]
    resumed_at_step: int
    averaged: bool = False


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
    step, total = int(state.step), setup.total_steps
    every = setup.intervals.eval_every
    if "validation" in splits and step == total and not 0 < every < total:
        selection = f"the last step, {total}, the only one evaluated on validation"
    elif "validation" in splits:
        held_out = splits["validation"]["examples"]
        selection = (
            f"step {step} of {total}, the best top-1 on {held_out:,} images held out of train"
        )
    else:
        selection = f"the last step, {total}; nothing was held out to choose by"
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    if jax.process_index() == 0:
        results.save_weights(folder, setup, variables)
    result = {
        "splits": splits,
        "selection": f"{_weights_of(setup, trained)}{selection}; {setup.splits.reported} was read once, at the end",
        "steps": total,
        "selected_step": step,
        "averaged": trained.averaged,
        "resumed_at_step": trained.resumed_at_step,
        "train_examples": len(setup.splits["train"]),
        "wall_seconds": trained.seconds,
        "images_per_second": total * setup.config.data.batch_size / trained.seconds,
        "waiting_share": trained.waiting_share,
        "dispatch": trained.dispatch,
        **facts_of(setup, parameters),
        "frozen": freezing.verify_unchanged(
            setup.initial.variables,
            variables,
            setup.optimisation.frozen_mask,
            setup.optimisation.frozen_norms,
            setup.config.freeze.batch_norm,
        ),
    }
    result = results.finish(folder, setup.config, setup.splits["test"], logits["test"], result)
    if result["frozen"]["changed"]:
        raise FrozenChanged(f"frozen, but changed: {', '.join(result['frozen']['changed'])}")
    return result


def _weights_of(setup: Setup, trained: Trained) -> str:
    """Returns which weights were chosen, where a run has two kinds."""
    if setup.averaging is None:
        return ""
    name = setup.averaging.name.upper()
    return f"the averaged weights ({name}) of " if trained.averaged else "the live weights of "


def train(
    setup: Setup,
    how: dispatch.Dispatch,
    folder: RunFolder,
    stop_requested: Callable[[], bool],
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Runs or resumes the updates."""
    config = setup.config
    intervals = dataclasses.replace(setup.intervals, updates_per_dispatch=how.updates)
    plan = list(how.memory)
    console.say(_of_memory(plan))
    reporting.print_table("Memory plan", plan)
    folder.write_json("memory.json", plan)
    how.place()
    template = setup.initial_state()
    with contextlib.ExitStack() as closing:
        checkpointer = closing.enter_context(Checkpointer(folder.checkpoints))
        state = checkpointer.restore_latest(template) or template
        start = int(state.step)
        if start:
            console.say(f"resumed at step {start:,} of {setup.total_steps:,}")
        recording = Recording(setup, folder, start, callbacks, closing)
        requests = _Requests(
            stop_requested, intervals.log_every, config.train.checkpoint_every_seconds
        )
        hooks = loops.Hooks(
            log=recording.log,
            evaluate=recording.evaluate,
            save=checkpointer.save,
            show=recording.show,
            is_best=checkpointer.is_best,
            last_saved=checkpointer.latest_step,
            save_requested=requests.save,
            stop_requested=requests.stop,
            batch_indices=setup.order.examples,
        )
        feed = closing.enter_context(how.open_feed(start, setup.total_steps))
        state = loops.train(state, how.step, feed, intervals, hooks, config.data.batch_size)
        took = recording.seconds
        averaged = "validation" not in setup.inputs
        if "validation" in setup.inputs:
            best = checkpointer.restore_best(template)
            assert best is not None  # the last update is evaluated
            state = best
            averaged = bool(checkpointer.metrics_of(int(state.step)).get(AVERAGED))
        candidate = make_candidate(setup)(state) if averaged else None
        if candidate is not None:
            state = state.replace(**candidate)
    facts = how.facts()
    return Trained(state, took, recording.waiting_share, facts, start, candidate is not None)


def _of_memory(plan: list[dict[str, Any]]) -> str:
    """Returns a line about the memory that a run takes: of each place, of what it has."""
    totals = [row for row in plan if row["what"] in ("most at once", "total")]
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
