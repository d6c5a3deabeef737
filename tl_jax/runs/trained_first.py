"""Runs that another one needs, trained before it in folders of their own.

They are what it starts from (`init.source`), learns from (`objective.teacher_source`) or averages (`soup.members`).
"""

import contextlib
import copy
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import filelock
import jax
import ml_collections

from tl_jax import console, files
from tl_jax.config import identity_of, of_command
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.runs import soup, source, teacher, weights
from tl_jax.runs.parts import Parts
from tl_jax.runs.run_folder import SEALED, RunFolder, read_json
from tl_jax.runs.setup import check_config
from tl_jax.runs.splits import make_undecoded_splits
from tl_jax.training import loops

# As `training.run`, which trains them.
Run = Callable[..., dict[str, Any]]
_WAIT = 0.5  # seconds between two looks at a folder that another process trains in


@dataclasses.dataclass(frozen=True)
class Begun:
    """A run whose needs are met.

    Attributes:
        config: of the run, with the folders of its source and its teacher.
        members: the folders of what its soup averages, in the order of `soup.members`.
        shared_seconds: what those took, with their preparation, that other runs trained; less the time that this one
            waited for them.
    """

    config: ml_collections.ConfigDict
    members: tuple[pathlib.Path, ...] = ()
    shared_seconds: float = 0.0


def begun(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    run: Run,
    stop_requested: Callable[[], bool],
    parts: Parts,
    sources: pathlib.Path | None,
) -> Begun:
    """Returns a run with the folders of those that it needs; what is not finished of them is trained.

    Args:
        config: of the run.
        workdir: its folder.
        run: trains the others.
        stop_requested: whether to stop.
        parts: objects that are given instead of by name.
        sources: a folder of sources, teachers and members that several runs share; None: they are in `workdir`.

    Raises:
        InputError: if what is described is wrong, or does not fit the run.
        loops.Stopped: when asked to.
    """
    needs = _Needs(config, workdir, run, stop_requested, parts, sources)
    started = config
    members: tuple[pathlib.Path, ...] = ()
    if config.init.source:
        started = needs.source(started)
    if config.objective.teacher_source:
        started = needs.teacher(started)
    if config.soup.name:
        members = needs.members(started)
    return Begun(started, members, sum(needs.shared_seconds))


@dataclasses.dataclass(frozen=True)
class _Needs:
    """What one run needs of others; attributes as the arguments of `begun`."""

    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    run: Run
    stop_requested: Callable[[], bool]
    parts: Parts
    sources: pathlib.Path | None
    shared_seconds: list[float] = dataclasses.field(default_factory=list)

    def source(self, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
        """Returns the config that starts from the weights of its source run."""
        described = source.source_config(config)
        folder = self._folder(described, source.FOLDER)
        started = copy.deepcopy(config)
        started.init.weights, started.init.source = str(folder), ()
        if self._is_finished():
            return started
        # What is wrong with the target, or does not fit it, is said before its source is trained.
        for name in ("name", "stem"):
            if described.model[name] != config.model[name]:
                raise InputError(
                    f"init.source: model.{name}={described.model[name]!r}, and the weights are for "
                    f"model.{name}={config.model[name]!r}; expected the same network in both"
                )
        self._check(config)
        console.say(f"source: {described.data.name}, in {folder}")
        self._train("init.source", described, folder, self._parts_of(described), sealed=False)
        with sharding.together():  # its weights are written by the first process
            weights.find(started)
        console.say(f"target: {config.data.name}, in {self.workdir}")
        return started

    def teacher(self, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
        """Returns the config that learns from the run that it describes, whose test split is not read."""
        described = teacher.teacher_config(config)
        folder = self._folder(described, teacher.FOLDER)
        taught = copy.deepcopy(config)
        taught.objective.teacher, taught.objective.teacher_source = str(folder), ()
        if self._is_finished():
            return taught
        self._check(config)
        console.say(f"teacher: {described.data.name}, in {folder}")
        what = "objective.teacher_source"
        self._train(what, described, folder, self._parts_of(described), sealed=True)
        console.say(f"student: {config.data.name}, in {self.workdir}")
        return taught

    def members(self, config: ml_collections.ConfigDict) -> tuple[pathlib.Path, ...]:
        """Returns the folders of the members of a soup, whose test splits are not read."""
        members = soup.member_configs(config)
        folders = tuple(
            self._folder(member, f"{soup.FOLDER}/{number}")
            for number, member in enumerate(members, 1)
        )
        if self._is_finished():
            return folders
        self._check(config)
        for number, (member, folder) in enumerate(zip(members, folders, strict=True), 1):
            changes = ", ".join(config.soup.members[number - 1])
            console.say(f"member {number} of {len(members)}: {changes}, in {folder}")
            what = f"soup.members, member {number}"
            self._train(what, member, folder, self.parts, sealed=True)
        return folders

    def _folder(self, config: ml_collections.ConfigDict, own: str) -> pathlib.Path:
        """Returns the folder of another run: one that is shared, or `own` of the run that needs it."""
        return source.shared_folder(config, self.sources) if self.sources else self.workdir / own

    def _is_finished(self) -> bool:
        return (
            RunFolder.look(self.workdir, of_command(self.config), identity_of(self.config))
            == "finished"
        )

    def _check(self, config: ml_collections.ConfigDict) -> None:
        """Says what is wrong with a run before those that it needs are trained."""
        with sharding.together(), console.verbosity("silent"):
            check_config(config, self.parts)
            make_undecoded_splits(config, self.parts.source)

    def _parts_of(self, described: ml_collections.ConfigDict) -> Parts:
        """Returns the objects that a source or a teacher is given."""
        same = described.data.name == self.config.data.name
        return dataclasses.replace(
            self.parts, source=self.parts.source if same else None, objective=None
        )

    def _train(
        self,
        what: str,
        config: ml_collections.ConfigDict,
        folder: pathlib.Path,
        parts: Parts,
        sealed: bool,
    ) -> None:
        """Trains another run, or finds it trained; what is shared is waited for where another run trains it."""
        times = folder.with_name(f"{folder.name}.times.json")
        asked = time.perf_counter()
        with _alone_in(folder, self.stop_requested) if self.sources else contextlib.nullcontext():
            began = time.perf_counter()
            taken = read_json(times) if self.sources and times.is_file() else {}
            mine = os.path.relpath(self.workdir, folder.parent)
            of_others = sum(seconds for run, seconds in taken.items() if run != mine)
            if of_others:
                self.shared_seconds.append(max(0.0, of_others - (began - asked)))
            found = (folder / (SEALED if sealed else "result.json")).is_file()
            try:
                self.run(config, folder, self.stop_requested, parts, sealed=sealed)
            except InputError as error:
                raise InputError(f"{what}: {error}") from error
            finally:
                if self.sources and not found and jax.process_index() == 0:
                    spent = time.perf_counter() - began
                    files.write(times, files.to_json({**taken, mine: taken.get(mine, 0.0) + spent}))
        if self.stop_requested():
            raise loops.Stopped(0)


@contextlib.contextmanager
def _alone_in(folder: pathlib.Path, stop_requested: Callable[[], bool]) -> Iterator[None]:
    """Waits until no other run trains in a shared folder; what it trained there is then found."""
    if jax.process_index() != 0:  # the first process of a run holds its folder
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock, said = filelock.FileLock(folder.with_name(f"{folder.name}.lock")), False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_WAIT)
        except filelock.Timeout:
            if stop_requested():
                raise loops.Stopped(0) from None
            if not said:
                console.say(f"{folder}: another run trains there; waiting for it")
            said = True
    try:
        yield
    finally:
        lock.release()
