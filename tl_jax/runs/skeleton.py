"""What training runs, evaluations, probes and sweeps have in common: from a config to a finished folder."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import jax
import ml_collections

from tl_jax import console, data, freezing, reporting
from tl_jax.config import Identity, identity_of, of_command
from tl_jax.data import Split
from tl_jax.parallel import sharding
from tl_jax.runs import agreement, fitted, overlap, results, weights
from tl_jax.runs.phases import trainable_parameters
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup


class Prepared(Protocol):
    """What `in_folder` asks of a run that is prepared."""

    @property
    def splits(self) -> Mapping[str, Split]:
        """The data, whose images may still be decoding."""


P = TypeVar("P", bound=Prepared)


def in_folder(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    command: str,
    *,
    prepare: Callable[[], P],
    introduce: Callable[[P, RunFolder], Any],
    make: Callable[[P, RunFolder, Any], dict[str, Any]],
    read: Callable[[pathlib.Path, dict[str, Any], Identity], dict[str, Any]] = results.read,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns `result.json` of the run in `workdir`, made now unless it is there already.

    What is wrong with config, data, weights or folder is found before anything is written. Until the
    introduction has ended, an error of one process ends all of them.

    Args:
        config: of the run.
        workdir: the run folder.
        command: whose section of the config counts, such as "sweep"; "" for a training run.
        prepare: checks all that can be checked, and returns what the other two are given.
        introduce: prints and writes what the run is; what it returns is given to `make`.
        make: makes the run, and returns what `result.json` holds.
        read: returns that of a finished run, given its folder, config and identity.
        extra: what `config.json` holds besides the config.

    Raises:
        InputError: if `workdir` is not the folder of this run, or from `prepare`.
    """
    record = {**of_command(config, command), **(extra or {})}
    identity = identity_of(config, command)
    if jax.process_index() > 0:
        # The folder is written by the first process, whose machine may have the data elsewhere.
        identity = dataclasses.replace(
            identity, without_effect=(*identity.without_effect, *agreement.OF_A_MACHINE)
        )
    if RunFolder.look(workdir, record, identity) == "finished":
        return read(workdir, record, identity)
    with contextlib.ExitStack() as held:
        with sharding.together():
            agreement.check_config(config)
            prepared = prepare()
            data.wait_for(prepared.splits)
            is_primary = jax.process_index() == 0
            folder = held.enter_context(
                RunFolder.open(workdir, record, is_primary=is_primary, identity=identity)
            )
            introduced = introduce(prepared, folder)
        return make(prepared, folder, introduced)


@contextlib.contextmanager
def alone(title: str) -> Iterator[None]:
    """Keeps what one of several runs prints out of their table; with `--verbose` it is printed instead of that.

    Args:
        title: of the run, such as "fold 2".
    """
    if console.shows("verbose"):
        console.say(f"\n{title}")
        yield
    else:
        with console.verbosity("silent"):
            yield


def introduce(
    setup: Setup, folder: RunFolder, phases: Sequence[Setup] = (), solver: str = ""
) -> list[dict[str, Any]]:
    """Prints and writes what will be trained and from what; returns the rows of the freezing table.

    Args:
        setup: of the run; of several phases, the one that trains most.
        folder: of the run.
        phases: all of them, where there are several.
        solver: what finds the trained parameters, where it is not the config's optimizer.
    """
    state = setup.state_shapes
    rows = freezing.summary(
        state.params,
        state.batch_stats,
        setup.optimisation.frozen_mask,
        setup.config.freeze.batch_norm,
        setup.optimisation.multipliers,
        state.opt_state,
        boundaries=setup.model.boundaries,
    )
    introduce_inputs(setup, folder)
    whole = sum(row["parameters"] for row in rows)
    for number, phase in enumerate(phases or (setup,), 1):
        which = f"phase {number}, " if phases else ""
        console.say(which + _of_parameters(phase, whole, solver))
    folder.write_json("freezing.json", rows)
    overlap.record(folder.path, setup.splits["train"])
    reporting.print_table("Parameters", rows)
    return rows


def introduce_inputs(setup: Setup, folder: RunFolder) -> None:
    """Prints and writes the network's weights, the data, and how pixels are preprocessed."""
    if setup.initial.port_report is None:
        console.say("weights: random")
    else:
        results.print_port_report(folder, setup.initial.port_report)
    results.print_deviations(setup.deviations)
    console.say(_of_data(setup))
    chosen = fitted.facts(setup.config)
    if chosen is not None:
        # Without a number of updates where the length is in epochs.
        given = {name: value for name, value in chosen.items() if value or name != "train.steps"}
        shown = ", ".join(f"{name}={value}" for name, value in given.items())
        console.say(
            f"fitted to {console.count(len(setup.splits['train']), 'training image')}: {shown}"
        )
    folder.write_json("preprocessing.json", weights.describe_preprocessing(setup.preprocessing))
    names = list(setup.splits["train"].class_names)
    folder.write_json(results.CLASS_NAMES, {"class_names": names})
    results.write_skipped(folder, setup.splits)


def _of_data(setup: Setup) -> str:
    """Returns a line about the data."""
    names = [name for name in ("train", "validation", "test") if name in setup.splits]
    counts = [f"{len(setup.splits[name]):,} {name}" for name in names]
    train = setup.splits["train"]
    height, width, _ = train.image_shape
    side = setup.preprocessing.image_size
    seen = "" if (height, width) == (side, side) else f", seen at {side}x{side}"
    return (
        f"data: {setup.config.data.name}: {', '.join(counts)} images of {height}x{width} pixels{seen}, "
        f"{console.count(len(train.class_names), 'class')}"
    )


def _of_parameters(setup: Setup, whole: int, solver: str) -> str:
    """Returns a line about what is trained, of so many parameters."""
    config, updates = setup.config, setup.total_steps - setup.first_step
    by = solver or (
        f"{config.optim.name}, {console.count(updates, 'update')} of "
        f"{console.count(config.data.batch_size, 'image')}"
    )
    owner = f"{config.model.name} and its objective" if setup.own else config.model.name
    return f"trained: {trainable_parameters(setup):,} of {whole:,} parameters of {owner} ({by})"


def facts_of(setup: Setup, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what the results of all runs on a setup say of it."""
    weights_of_classes = {}
    if setup.minimised.class_weights:
        names = setup.splits["train"].class_names
        pairs = zip(names, setup.minimised.class_weights, strict=True)
        weights_of_classes["class_weights"] = dict(pairs)
    return {
        **weights_of_classes,
        "cache": setup.cache,
        "numerics": setup.compilation.facts(),
        "fitted": fitted.facts(setup.config),
        "parameters": parameters,
        "preprocessing": weights.describe_preprocessing(setup.preprocessing),
        "deviations": setup.deviations,
        "data_notes": setup.splits.notes,
        **results.skipped_of(setup.splits),
    }
