"""Runs that another one needs, trained before it in folders of their own.

They are what it starts from (`init.source`), learns from (`objective.teacher_source`) or averages (`soup.members`).
"""

import copy
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections

from tl_jax import console
from tl_jax.config import identity_of, of_command
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.runs import soup, source, teacher, weights
from tl_jax.runs.parts import Parts
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import check_config
from tl_jax.runs.splits import make_undecoded_splits
from tl_jax.training import loops

# As `training.run`, which trains them.
Run = Callable[..., dict[str, Any]]


def begun(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    run: Run,
    stop_requested: Callable[[], bool],
    parts: Parts,
    sources: pathlib.Path | None,
) -> ml_collections.ConfigDict:
    """Returns the config of a run with the folders of those that it needs; what is not finished of them is trained.

    Args:
        config: of the run.
        workdir: its folder.
        run: trains the others.
        stop_requested: whether to stop.
        parts: objects that are given instead of by name.
        sources: a folder of sources and teachers that several runs share; None: they are in `workdir`.

    Raises:
        InputError: if what is described is wrong, or does not fit the run.
        loops.Stopped: when asked to.
    """
    started = config
    if config.init.source:
        started = _from_source(started, workdir, run, stop_requested, parts, sources)
    if config.objective.teacher_source:
        started = _with_teacher(started, workdir, run, stop_requested, parts, sources)
    if config.soup.name:
        _train_members(started, workdir, run, stop_requested, parts)
    return started


def _from_source(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    run: Run,
    stop_requested: Callable[[], bool],
    parts: Parts,
    sources: pathlib.Path | None,
) -> ml_collections.ConfigDict:
    """Returns the config that starts from the weights of its source run."""
    described = source.source_config(config)
    folder = source.shared_folder(described, sources) if sources else workdir / source.FOLDER
    started = copy.deepcopy(config)
    started.init.weights, started.init.source = str(folder), ()
    if _is_finished(config, workdir):
        return started
    # What is wrong with the target, or does not fit it, is said before its source is trained.
    for name in ("name", "stem"):
        if described.model[name] != config.model[name]:
            raise InputError(
                f"init.source: model.{name}={described.model[name]!r}, and the weights are for "
                f"model.{name}={config.model[name]!r}; expected the same network in both"
            )
    _check(config, parts)
    console.say(f"source: {described.data.name}, in {folder}")
    source_parts = dataclasses.replace(
        parts,
        source=parts.source if described.data.name == config.data.name else None,
        objective=None,
    )
    train = functools.partial(run, described, folder, stop_requested, source_parts)
    _train("init.source", train)
    if stop_requested():
        raise loops.Stopped(0)
    with sharding.together():  # its weights are written by the first process
        weights.find(started)
    console.say(f"target: {config.data.name}, in {workdir}")
    return started


def _with_teacher(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    run: Run,
    stop_requested: Callable[[], bool],
    parts: Parts,
    sources: pathlib.Path | None,
) -> ml_collections.ConfigDict:
    """Returns the config that learns from the run that it describes, whose test split is not read."""
    described = teacher.teacher_config(config)
    folder = source.shared_folder(described, sources) if sources else workdir / teacher.FOLDER
    taught = copy.deepcopy(config)
    taught.objective.teacher, taught.objective.teacher_source = str(folder), ()
    if _is_finished(config, workdir):
        return taught
    _check(config, parts)
    console.say(f"teacher: {described.data.name}, in {folder}")
    own = dataclasses.replace(
        parts,
        source=parts.source if described.data.name == config.data.name else None,
        objective=None,
    )
    train = functools.partial(run, described, folder, stop_requested, own, sealed=True)
    _train("objective.teacher_source", train)
    if stop_requested():
        raise loops.Stopped(0)
    console.say(f"student: {config.data.name}, in {workdir}")
    return taught


def _train_members(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    run: Run,
    stop_requested: Callable[[], bool],
    parts: Parts,
) -> None:
    """Trains the members of a soup, whose test splits are not read."""
    if _is_finished(config, workdir):
        return
    _check(config, parts)
    members = soup.member_configs(config)
    for number, member in enumerate(members, 1):
        console.say(
            f"member {number} of {len(members)}: {', '.join(config.soup.members[number - 1])}"
        )
        folder = workdir / soup.FOLDER / str(number)
        train = functools.partial(run, member, folder, stop_requested, parts, sealed=True)
        _train(f"soup.members, member {number}", train)
        if stop_requested():
            raise loops.Stopped(0)


def _is_finished(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    return RunFolder.look(workdir, of_command(config), identity_of(config)) == "finished"


def _check(config: ml_collections.ConfigDict, parts: Parts) -> None:
    """Says what is wrong with a run before those that it needs are trained."""
    with sharding.together(), console.verbosity("silent"):
        check_config(config, parts)
        make_undecoded_splits(config, parts.source)


def _train(what: str, train: Callable[[], Any]) -> None:
    try:
        train()
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
