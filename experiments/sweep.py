"""Trains many combinations of hyperparameters and seeds as one program, and chooses by validation.

    python -m experiments.sweep --config=configs/digits_sweep.py --workdir=runs/digits_sweep

`config.sweep` holds the values of each swept field; an empty one is the config's own. Every member is the
run that `experiments.finetune` would make with these values, on activations of the frozen prefix. The result is
the mean test accuracy, over seeds, of the combination with the best mean validation accuracy.
"""

import contextlib
import copy
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments import activation_cache, cli, config_fields, members, outcome, training, weights
from experiments.members import FIELDS, Grid
from experiments.preparation import Setup, prepare
from tl_jax import data, population, reporting, statistics
from tl_jax.errors import InputError, unknown
from tl_jax.loops import Stopped
from tl_jax.reporting import intervals
from tl_jax.run_folder import RunFolder

_CONFIG = cli.define_config()
_WORKDIR = cli.define_workdir()


def main() -> None:
    """Runs the sweep and prints its result."""
    run(cli.required(_CONFIG), cli.required_path(_WORKDIR))


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Sweeps as `config` says, in `workdir`; returns `result.json`, of the chosen member.

    Raises:
        InputError: before anything is compiled, if config, workdir, data or weights do not fit.
        loops.Stopped: when asked to stop; the same command then starts over, with the activations kept.
    """
    record, identity = json.loads(config.to_json()), config_fields.identity(config, "sweep")
    if RunFolder.look(workdir, record, identity) == "finished":
        return outcome.read(workdir, record, identity)
    began = time.perf_counter()
    grid = read_grid(config)
    setup = prepare(_run_config(config))
    _check(setup, grid)
    data.wait_for(setup.splits)
    with contextlib.ExitStack() as held:
        folder = held.enter_context(RunFolder.open(workdir, record, identity=identity))
        parameters = training.introduce(setup, folder)
        setup = activation_cache.use(setup)
        starts = [members.start(setup, grid, seed) for seed in grid.seeds]
        prepared = time.perf_counter()
        with _progress(grid, setup) as show:
            found = members.train(
                setup,
                grid,
                [state for state, _ in starts],
                show=show,
                stop_requested=lambda: cli.STOP.requested,
            )
        if found is None:
            raise Stopped(0)  # Nothing but the activations is kept: a sweep is short.
        seconds = {"prepare": prepared - began, "train": time.perf_counter() - prepared}
        print(f"{len(grid)} members trained in {seconds['train']:.1f} s")
        return _conclude(setup, grid, folder, found, [of for _, of in starts], seconds, parameters)


def read_grid(config: ml_collections.ConfigDict) -> Grid:
    """Returns what `config.sweep` asks for, every field in range.

    Raises:
        InputError: listing what is not, or if there is no such section.
    """
    section = config.get("sweep")
    if section is None:
        raise InputError("the config has no section `sweep`; see configs/digits_sweep.py for one")
    known = (*FIELDS, "seed", "patience", "width", "test")
    for name in section:
        if name not in known:
            raise unknown("field of sweep", name, known)
    values = {name: _numbers(section, name, float) or (config.optim[name],) for name in FIELDS}
    grid = Grid(
        values,
        _numbers(section, "seed", int) or (config.seed,),
        section.get("patience", 0),
        section.get("width", 0),
        section.get("test", "chosen"),
    )
    problems = [
        f"sweep.{name}={value}: expected numbers "
        + ("in [0, 1)" if name == "label_smoothing" else "of at least 0")
        for name, given in values.items()
        for value in given
        if not 0 <= value < (1 if name == "label_smoothing" else np.inf)
    ]
    problems += [
        f"sweep.{name}={list(given)}: a value is there twice"
        for name, given in {**values, "seed": grid.seeds}.items()
        if len(set(given)) < len(given)
    ]
    problems += [
        f"sweep.seed={seed}: expected integers from 0 to {2**31 - 1}"
        for seed in grid.seeds
        if not 0 <= seed < 2**31
    ]
    problems += [
        f"sweep.{name}={value}: expected at least 0"
        for name, value in {"patience": grid.patience, "width": grid.width}.items()
        if value < 0
    ]
    if problems:
        raise InputError("\n".join(problems))
    if grid.test not in ("chosen", "all"):
        raise unknown("sweep.test", grid.test, ("chosen", "all"))
    return grid


def _numbers(section: ml_collections.ConfigDict, name: str, kind: type) -> tuple[Any, ...]:
    """Returns the values of a field; an empty value on the command line reads as one empty text."""
    given = [value for value in section.get(name, ()) if value != ""]
    try:
        return tuple(map(kind, given))
    except (TypeError, ValueError) as error:
        raise InputError(f"sweep.{name}={given}: expected numbers") from error


def _run_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of an ordinary run on activations, on one device: what runs at once is members."""
    plain = copy.deepcopy(config)
    with plain.unlocked():
        del plain.sweep
    plain.cache.boundary = plain.cache.boundary or "auto"
    plain.parallel.devices = 1
    if plain.cache.storage == "auto":
        plain.cache.storage = "device"  # Or an error that says what there is room for.
    return plain


def _check(setup: Setup, grid: Grid) -> None:
    problems = []
    if "validation" not in setup.splits:
        problems.append(
            "a sweep chooses by validation, and nothing is held out: expected data.validation_split, or "
            "data.validation_fraction above 0"
        )
    if not setup.config.init.weights and len(grid.seeds) > 1:
        problems.append(
            f"sweep.seed={list(grid.seeds)} with init.weights='': the frozen part would be another one "
            "for every seed; expected pretrained weights, or one seed"
        )
    if setup.config.cache.storage != "device":
        problems.append(
            f"cache.storage={setup.config.cache.storage}: the members of a sweep gather their batches on "
            "the device; expected auto or device"
        )
    if setup.config.parallel.mode != "jit" or jax.process_count() > 1:
        problems.append(
            f"parallel.mode={setup.config.parallel.mode} in {jax.process_count()} processes: expected jit "
            "in one; the members of a sweep are what runs at once"
        )
    if problems:
        raise InputError("\n".join(problems))


@contextlib.contextmanager
def _progress(grid: Grid, setup: Setup) -> Iterator[Any]:
    """Gives what shows the updates done, over all groups of members."""
    total = setup.total_steps
    with reporting.Progress(total, batch_size=setup.config.data.batch_size * len(grid)) as bar:
        yield lambda group, groups, step: bar.update((group * total + step) // groups)


def _conclude(
    setup: Setup,
    grid: Grid,
    folder: RunFolder,
    found: population.Outcome,
    initial: list[dict[str, Any]],
    seconds: dict[str, float],
    parameters: list[dict[str, Any]],
) -> dict[str, Any]:
    """Chooses by validation, reads the test split, writes everything; returns what `result.json` holds."""
    rows = _rows(grid, found)
    chosen = choose(found.best_top1)

    def variables(place: tuple[int, int]) -> dict[str, Any]:
        own = {"params": found.params, "batch_stats": found.batch_stats}
        whole = initial[place[0]]
        return {
            name: {**whole[name], **jax.tree.map(lambda leaf: leaf[place], own[name])}
            for name in own
        }

    def evaluated(place: tuple[int, int], split: str) -> tuple[dict[str, float], np.ndarray]:
        weights_of = variables(place)
        return setup.evaluator(weights_of["params"], weights_of["batch_stats"], setup.inputs[split])

    columns = len(grid.combinations)
    validation, _ = evaluated(chosen, "validation")
    test, logits = evaluated(chosen, "test")
    places = [
        place
        for place in np.ndindex(*found.best_top1.shape)
        if grid.test == "all" or place[1] == chosen[1]
    ]
    for place in places:
        measured = test if place == chosen else evaluated(place, "test")[0]
        rows[place[0] * columns + place[1]]["test_top1"] = measured["top1_accuracy"]
    over_seeds = {
        name: statistics.mean_over_seeds([row[field] for row in rows[chosen[1] :: columns]])
        for name, field in [("validation", "best_validation_top1"), ("test", "test_top1")]
    }
    combination = grid.combinations[chosen[1]]
    described = combination | {"seed": grid.seeds[chosen[0]]}
    preprocessing = weights.describe_preprocessing(setup.preprocessing)
    class_names = setup.splits["train"].class_names
    outcome.save_weights(folder, setup.config, variables(chosen), preprocessing, class_names)
    _write_curve(folder, found, chosen)
    test_was_read = (
        "for every member"
        if grid.test == "all"
        else f"for the {len(grid.seeds)} seeds of this combination"
        if len(grid.seeds) > 1
        else "for this member"
    ) + ", at the end, and chose nothing"
    content = {
        "title": f"{setup.config.model.name} on {setup.config.data.name}",
        "fields": [name for name, values in grid.values.items() if len(values) > 1],
        "chosen": {**described, "place": chosen[0] * columns + chosen[1]},
        "over_seeds": {name: mean.to_json() for name, mean in over_seeds.items()},
        "test_was_read": test_was_read,
        "members": rows,
        "steps": found.steps.tolist(),
        "history": {
            name: np.moveaxis(values, 0, -1).reshape(len(rows), -1).tolist()
            for name, values in found.history.items()
        },
        "seconds": seconds,
        "validation_examples": validation["examples"],
        "test_examples": test["examples"],
    }
    table = reporting.write_sweep(folder.path, content)
    reporting.print_table("Validation top-1 of the best combinations, over seeds", table[:10])
    of_what = _described(combination)
    seed = grid.seeds[chosen[0]]
    result = {
        "splits": {"validation": validation, "test": test},
        "over_seeds": content["over_seeds"],
        "selection": (
            f"the best of {len(grid.combinations)} combinations by mean validation top-1 over seeds: {of_what}; "
            f"its best seed by validation: {seed}, at step {int(found.best_step[chosen])} of "
            f"{setup.total_steps}; {validation['examples']:,} images were held out of train; "
            f"{setup.splits.reported} was read {test_was_read}"
        ),
        "steps": setup.total_steps,
        "selected_step": int(found.best_step[chosen]),
        "train_examples": len(setup.splits["train"]),
        "wall_seconds": sum(seconds.values()),
        "seconds": seconds,
        "members": len(rows),
        "chosen": described,
        "cache": setup.cache,
        "parameters": parameters,
        "preprocessing": preprocessing,
        "deviations": setup.deviations,
        "data_notes": setup.splits.notes,
    }
    print(f"Its best seed by validation, {seed}, is the one whose weights and report are saved:")
    result = outcome.finish(folder, setup.config, setup.splits["test"], logits, result)
    print(
        f"{folder.path / 'sweep.html'}: chosen {of_what}: test top-1 "
        f"{intervals.mean(over_seeds['test'])} over {len(grid.seeds)} seeds"
    )
    return result


def _described(combination: dict[str, float]) -> str:
    """Returns "learning_rate=0.1, weight_decay=0.001, ..."."""
    return ", ".join(f"{name}={value:g}" for name, value in combination.items())


def choose(top1: np.ndarray) -> tuple[int, int]:
    """Returns the chosen (seed, combination): the best mean over seeds, then its best seed.

    Hyperparameters are thus not chosen for the luck of one seed. Among equals the first one wins.

    Args:
        top1: best validation accuracy of every member, [S, K].
    """
    combination = int(top1.mean(0).argmax())
    return int(top1[:, combination].argmax()), combination


def _rows(grid: Grid, found: population.Outcome) -> list[dict[str, Any]]:
    return [
        {
            **grid.combinations[column],
            "seed": grid.seeds[row],
            "best_validation_top1": float(found.best_top1[row, column]),
            "best_step": int(found.best_step[row, column]),
            "stopped_at": int(found.stopped_at[row, column]),
            "diverged": bool(found.diverged[row, column]),
        }
        for row, column in np.ndindex(*found.best_top1.shape)
    ]


def _write_curve(folder: RunFolder, found: population.Outcome, chosen: tuple[int, int]) -> None:
    """Writes the chosen member's metrics, as an ordinary run does."""
    with reporting.MetricWriter(folder.path, tensorboard=False) as writer:
        for turn, step in enumerate(found.steps):
            of = {name: float(values[(turn, *chosen)]) for name, values in found.history.items()}
            if np.isnan(of["train_loss"]):
                break
            writer.write(int(step), "train", {"loss": of["train_loss"]})
            measured = {"loss": of["validation_loss"], "top1_accuracy": of["validation_top1"]}
            writer.write(int(step), "validation", measured)


if __name__ == "__main__":
    cli.run(main)
