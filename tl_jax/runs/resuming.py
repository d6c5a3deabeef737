"""What a run folder says of the data and teachers of its run, and what a run that goes on must share with it."""

import itertools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from tl_jax import porting
from tl_jax.config import completed, flat
from tl_jax.data import InMemorySplit, Split, Splits, fingerprint, listing
from tl_jax.errors import InputError
from tl_jax.runs.lengths import in_steps
from tl_jax.runs.results import SKIPPED, class_names_of
from tl_jax.runs.run_folder import RunFolder, read_json
from tl_jax.runs.setup import Setup

# In the folder of a run that distils: digests of its teachers' weights.
_TEACHERS = "teachers.json"
# In the folder of every training run: images of each split and what tells them from others.
DATA = "data.json"


def write_teachers(folder: RunFolder, phases: Sequence[Setup]) -> None:
    """Writes the digests of the teachers' weights, for a run that is resumed."""
    if _teachers(phases):
        folder.write_json(_TEACHERS, _teachers(phases))


def _teachers(phases: Sequence[Setup]) -> list[str]:
    """Returns the digests of the teachers' weights."""
    teachers = (setup.minimised.teacher for setup in phases)
    return [teacher.digest for teacher in teachers if teacher is not None]


def check_teachers(phases: Sequence[Setup], workdir: pathlib.Path) -> None:
    """Raises InputError where a run goes on with a teacher whose weights are others than at its start."""
    path = workdir / _TEACHERS
    if path.is_file() and json.loads(path.read_text()) != _teachers(phases):
        raise InputError(
            f"--workdir {workdir} holds a run with other weights of its teacher than "
            f"objective.teacher={phases[-1].config.objective.teacher} has now; put them back, or give a new --workdir"
        )


def check_extension(setup: Setup, workdir: pathlib.Path) -> None:
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


def check_class_names(run: pathlib.Path, class_names: Sequence[str]) -> None:
    """Compares the classes of the data with those of a run that is resumed.

    Raises:
        InputError: if they have other names or another order: the run's head would mean other classes.
    """
    names = class_names_of(run)
    if names and list(names) != list(class_names):
        # Of many classes, messages list the first ones alone.
        pairs = itertools.zip_longest(names, class_names)
        place = next(number for number, (there, here) in enumerate(pairs) if there != here)
        raise InputError(
            f"--workdir {run} holds a run whose classes are, in this order, {porting.list_names(names)}; "
            f"those of the data are {porting.list_names(class_names)}; the first that "
            f"differs is class {place}. Its head would mean other classes: give a new "
            f"--workdir, with --config.init.weights={run} to start from its weights"
        )


def check_skipped(run: pathlib.Path, splits: Splits) -> None:
    """Compares the images that are left out with those at the start of a run that is resumed.

    Raises:
        InputError: if they are others: every later batch would be another one.
    """
    path = run / SKIPPED
    if splits.skipped is None or not path.is_file():
        return
    before, now = set(json.loads(path.read_text())), set(splits.skipped)
    lines = [
        f"{what}: {listing.some(sorted(names))}"
        for what, names in (
            ("readable since then", before - now),
            ("not readable any more", now - before),
        )
        if names
    ]
    if lines:
        raise InputError(
            f"--workdir {run} holds a run that left out {len(before)} images (data.unreadable=skip), of the data "
            f"are now {len(now)} left out; {'; '.join(lines)}. Its batches would be others: put the files back "
            "as they were, or give a new --workdir"
        )


def write_data(folder: RunFolder, splits: Splits) -> None:
    """Writes what tells the data of a run from others, for a run that is resumed."""
    folder.write_json(DATA, facts_of(splits))


def were_square(run: pathlib.Path, side: int) -> bool:
    """Returns whether a run saw its images as squares of `side` pixels; False where its folder does not say."""
    path = run / DATA
    if not path.is_file():
        return False
    return read_json(path)["train"]["shape"][:2] == [side, side]


def check_data(run: pathlib.Path, splits: Splits) -> None:
    """Compares the images and labels of every split with those at the start of a run that is resumed.

    Raises:
        InputError: if they are others: every later batch would be another one, and what was trained on might be
            measured as new.
    """
    path = run / DATA
    if not path.is_file():
        return
    before = read_json(path)
    now = facts_of(splits)
    lines = []
    for role in sorted(before.keys() | now.keys()):
        there, here = (facts.get(role, {"examples": 0}) for facts in (before, now))
        if not _differ(there, here):
            continue
        counts = [facts["examples"] for facts in (there, here)]
        lines.append(
            f"{role} had {counts[0]:,} images and has {counts[1]:,}"
            if counts[0] != counts[1]
            else f"the {counts[0]:,} images of {role} are others, or in another order, or have other labels"
        )
    if lines:
        raise InputError(
            f"--workdir {run} holds a run on other data: {'; '.join(lines)}. Its batches would be others: put the "
            "files back as they were (and the version of Pillow that decodes them), or give a new --workdir"
        )


def facts_of(splits: Splits) -> dict[str, Any]:
    """Returns, by role, what tells the data of a run from others."""
    return {role: _facts_of(split) for role, split in splits.items()}


def _facts_of(split: Split) -> dict[str, Any]:
    """Returns what tells a split from others: names of files, and the content of images that are in memory.

    The content of images that are decoded on access would have to be read whole at every start.
    """
    names = "\n".join(os.path.basename(split.file(row)) for row in range(len(split)))
    facts = {
        "examples": len(split),
        "shape": list(split.image_shape),
        "names": fingerprint.combine(os.fsencode(names), split.whole()[1]),
    }
    if isinstance(split, InMemorySplit):
        facts["content"] = fingerprint.combine(split.fingerprint(), split.labels)
    return facts


def _differ(there: dict[str, Any], here: dict[str, Any]) -> bool:
    """Returns whether facts differ, of those that both have: the memory of a machine says where images are."""
    return any(there[name] != here[name] for name in there.keys() & here.keys())
