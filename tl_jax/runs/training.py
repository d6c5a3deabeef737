"""One training run, from a config to a finished run folder."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections

from tl_jax.checkpointing import newest_step
from tl_jax.config import identity_of, naming_phase, of_command
from tl_jax.errors import InputError
from tl_jax.runs import (
    agreement,
    attention,
    dispatch,
    results,
    resuming,
    solved,
    souped,
    target_statistics,
    trained_first,
)
from tl_jax.runs.conclusion import conclude, seal
from tl_jax.runs.parts import NOTHING_GIVEN, Parts
from tl_jax.runs.phases import number_at, trainable_parameters
from tl_jax.runs.recording import Callback
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import prepare_phases
from tl_jax.runs.skeleton import in_folder, introduce
from tl_jax.runs.solver import described
from tl_jax.runs.together import Member, NotTogether
from tl_jax.runs.updates import Prepared, train


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
    parts: Parts = NOTHING_GIVEN,
    callbacks: Sequence[Callback] = (),
    sources: pathlib.Path | None = None,
    sealed: bool = False,
    member: Member | None = None,
) -> dict[str, Any]:
    """Trains as `config` says, in `workdir`, resuming the run that is there; returns `result.json`.

    Where `solver.name` says so, the head is solved instead, and no update is made; see `solved`.

    Runs that this one starts from, learns from or averages (`init.source`, `objective.teacher_source`,
    `soup.members`) are trained first, or resumed, or found finished.

    Args:
        config: of the run.
        workdir: the run folder.
        stop_requested: whether to stop; asked between updates.
        parts: objects that are given instead of by name.
        callbacks: called with (completed updates, split, metrics) whenever these are logged.
        sources: folder of sources, teachers and members that several runs share; None: those of this one are in
            `workdir`.
        sealed: whether to end without reading the test split, with `sealed.json` in place of `result.json`; called
            again without it, the run is finished.
        member: makes the updates together with those of other runs; see `together.Group`.

    Raises:
        InputError: before anything is compiled, if config, workdir, data or weights do not fit.
        loops.Stopped: when asked to stop, with a checkpoint saved.
        loops.NonFiniteLoss: naming step, batch and last good checkpoint.
        together.NotTogether: if a member's run has to be made alone; nothing is trained then.
        FrozenChanged: if training moved what it had to leave alone; the result says what.
    """
    if sealed:
        found = results.read_sealed(workdir, of_command(config), identity_of(config))
        if found is not None:
            return found
    started = trained_first.begun(config, workdir, run, stop_requested, parts, sources)
    return in_folder(
        config,
        workdir,
        "",
        prepare=lambda: _prepare(started.config, workdir, parts),
        introduce=_introduce,
        make=lambda prepared, folder, parameters: _make(
            prepared, folder, parameters, stop_requested, callbacks, sealed, member, started
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
    given = [name for name in ("weights", "source") if config.init[name]]
    if given:
        raise InputError(
            f"init.{given[0]}={config.init[given[0]]!r}: pretrain starts from random weights; use "
            "experiments.finetune"
        )
    return run(config, workdir, stop_requested)


def _prepare(config: ml_collections.ConfigDict, workdir: pathlib.Path, parts: Parts) -> Prepared:
    phases = prepare_phases(config, parts)
    splits = phases[0].splits
    agreement.check_data(splits)
    resuming.check_class_names(workdir, splits["train"].class_names)
    resuming.check_skipped(workdir, splits)
    resuming.check_data(workdir, splits)
    resuming.check_teachers(phases, workdir)
    if config.solver.name:
        solved.check(phases[0])
    if config.solver.name or config.soup.name:
        return Prepared(config, phases, {})
    # A run in phases, or fitted to its data, is never extended.
    if not (config.phases or config.train.fit_to_data):
        resuming.check_extension(phases[0], workdir)
    first = number_at(phases, newest_step(workdir / "checkpoints") + 1)
    dispatches = {}
    for number, setup in enumerate(phases[first:], first):
        # Compiled while images are decoded in the background; what images become, and attention, needs them first.
        if setup.boundary is None and not setup.config.objective.delta_attention:
            with naming_phase(config, number):
                dispatches[number] = dispatch.make(setup)
    return Prepared(config, phases, dispatches)


def _introduce(prepared: Prepared, folder: RunFolder) -> list[dict[str, Any]]:
    phases = prepared.phases
    resuming.write_teachers(folder, phases)
    resuming.write_data(folder, prepared.splits)
    return introduce(
        max(phases, key=trainable_parameters),
        folder,
        phases if len(phases) > 1 else (),
        solver=_without_updates(prepared.config),
    )


def _without_updates(config: ml_collections.ConfigDict) -> str:
    """Returns what finds the weights in place of updates, in words; "" where updates are made."""
    if config.soup.name:
        return f"{config.soup.name} soup of {len(config.soup.members)} members"
    return described(config) if config.solver.name else ""


def _make(
    prepared: Prepared,
    folder: RunFolder,
    parameters: list[dict[str, Any]],
    stop_requested: Callable[[], bool],
    callbacks: Sequence[Callback],
    sealed: bool,
    member: Member | None,
    started: trained_first.Begun,
) -> dict[str, Any]:
    phases = target_statistics.adapted(prepared.phases)
    phases = attention.attended(phases, stop_requested)
    prepared = dataclasses.replace(prepared, phases=phases)
    if prepared.config.solver.name:
        if member is not None:
            raise NotTogether("its head is solved, not trained")
        trained = solved.solve(prepared, folder, stop_requested, callbacks)
    elif prepared.config.soup.name:
        if member is not None:
            raise NotTogether("it is the mean of other runs")
        trained = souped.cook(prepared, folder, started.members, stop_requested, callbacks)
    else:
        trained = train(prepared, folder, stop_requested, callbacks, member)
    trained = dataclasses.replace(trained, shared_seconds=started.shared_seconds)
    end = seal if sealed else conclude
    return end(trained.setup, folder, trained, parameters)
