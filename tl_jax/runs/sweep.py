"""Trains many combinations of hyperparameters and seeds as one program, and chooses by validation.

`config.sweep` holds the values of each swept field; an empty one is the config's own. Every member is the
run that `experiments.finetune` would make with these values, on activations of the frozen prefix. The result is
the mean test accuracy, over seeds, of the combination with the best mean validation accuracy.
"""

import contextlib
import copy
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from tl_jax import console, objectives, reporting, statistics
from tl_jax.config import check, flat
from tl_jax.errors import InputError
from tl_jax.reporting import intervals
from tl_jax.runs import activation_cache, members, relationship, results
from tl_jax.runs.members import FIELDS, Grid
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup, prepare
from tl_jax.runs.skeleton import facts_of, in_folder, introduce
from tl_jax.runs.source_head import Relationship
from tl_jax.training import vmapped
from tl_jax.training.loops import Stopped


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Sweeps as `config` says, in `workdir`; returns `result.json`, of the chosen member.

    Args:
        config: of the sweep.
        workdir: the run folder.
        stop_requested: whether to stop; asked between updates.

    Raises:
        InputError: before anything is compiled, if config, workdir, data or weights do not fit.
        loops.Stopped: when asked to stop; the same command then starts over, with the activations kept.
    """
    began = time.perf_counter()
    check(config)
    grid = read_grid(config)

    def prepared() -> Setup:
        setup = prepare(_run_config(config))
        _check(setup, grid)
        return setup

    return in_folder(
        config,
        workdir,
        "sweep",
        prepare=prepared,
        introduce=introduce,
        make=lambda setup, folder, parameters: _sweep(
            setup, grid, folder, parameters, began, stop_requested
        ),
    )


def _sweep(
    setup: Setup,
    grid: Grid,
    folder: RunFolder,
    parameters: list[dict[str, Any]],
    began: float,
    stop_requested: Callable[[], bool],
) -> dict[str, Any]:
    learned: dict[Any, Relationship] = {}
    setup = relationship.use(setup, learned)
    relationship.write(folder, learned)
    setup = activation_cache.use(setup, stop_requested)
    starts = [members.start(setup, grid, seed) for seed in grid.seeds]
    prepared = time.perf_counter()
    with _progress(grid, setup) as show:
        found = members.train(
            setup,
            grid,
            [state for state, _ in starts],
            show=show,
            stop_requested=stop_requested,
        )
    if found is None:
        raise Stopped(0)  # Nothing but the activations is kept: a sweep is short.
    seconds = {"prepare": prepared - began, "train": time.perf_counter() - prepared}
    console.say(f"{len(grid)} members trained in {seconds['train']:.1f} s")
    return _conclude(setup, grid, folder, found, [of for _, of in starts], seconds, parameters)


def read_grid(config: ml_collections.ConfigDict) -> Grid:
    """Returns what `config.sweep` asks for.

    Raises:
        InputError: if a value is there twice.
    """
    section = config.sweep
    values = {name: section[name] or (flat(config)[field],) for name, field in FIELDS.items()}
    seeds = tuple(section.seed) or (config.seed,)
    problems = [
        f"sweep.{name}={list(given)}: a value is there twice"
        for name, given in {**values, "seed": seeds}.items()
        if len(set(given)) < len(given)
    ]
    if problems:
        raise InputError("\n".join(problems))
    values = {name: tuple(map(float, given)) for name, given in values.items()}
    return Grid(values, seeds, section.patience, section.width, section.test)


def _run_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of an ordinary run on activations, on one device: what runs at once is members."""
    if config.objective.distillation:
        raise InputError(
            f"objective.distillation={config.objective.distillation}: a sweep trains on stored activations, and a "
            "teacher looks at the images; expected 0"
        )
    plain = copy.deepcopy(config)
    seeds = read_grid(config).seeds
    if len(seeds) == 1:
        plain.seed = seeds[0]  # Also of what is drawn of the frozen part.
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
    redrawn = members.frozen_resets(setup) if len(grid.seeds) > 1 else []
    if redrawn:
        problems.append(
            f"sweep.seed={list(grid.seeds)} with init.reset={tuple(setup.config.init.reset)}: every seed would draw "
            f"other values for {', '.join(redrawn[:3])}{', ...' if redrawn[3:] else ''}, and activations after "
            f"{setup.boundary} are computed once; expected patterns of what comes after it, or one seed"
        )
    if setup.config.train.patience:
        problems.append(
            f"train.patience={setup.config.train.patience}: of single runs; expected 0, and sweep.patience"
        )
    if setup.selected_by != "top1_accuracy":
        problems.append(
            f"train.select_by={setup.selected_by}: a sweep chooses by validation top-1; expected top1_accuracy"
        )
    if setup.averaging is not None:
        problems.append(
            f"average.name={setup.config.average.name}: the members of a sweep keep no averages; expected ''"
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
    found: vmapped.Results,
    initial: list[dict[str, Any]],
    seconds: dict[str, float],
    parameters: list[dict[str, Any]],
) -> dict[str, Any]:
    """Chooses by validation, reads the test split, writes everything; returns what `result.json` holds."""
    rows = _rows(grid, found)
    chosen = choose(found.best_top1)

    def variables(place: tuple[int, int]) -> dict[str, Any]:
        own = {"params": objectives.of_network(found.params), "batch_stats": found.batch_stats}
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
    results.save_weights(folder, setup, variables(chosen))
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
    reporting.print_table(
        "Validation top-1 of the best combinations, over seeds", table[:10], level="normal"
    )
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
        **facts_of(setup, parameters),
    }
    console.say(
        f"Its best seed by validation, {seed}, is the one whose weights and report are saved:"
    )
    result = results.finish(folder, setup.config, setup.splits["test"], logits, result)
    console.say(
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


def _rows(grid: Grid, found: vmapped.Results) -> list[dict[str, Any]]:
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


def _write_curve(folder: RunFolder, found: vmapped.Results, chosen: tuple[int, int]) -> None:
    """Writes the chosen member's metrics, as an ordinary run does."""
    with reporting.MetricWriter(folder.path, tensorboard=False) as writer:
        for turn, step in enumerate(found.steps):
            of = {name: float(values[(turn, *chosen)]) for name, values in found.history.items()}
            if np.isnan(of["train_loss"]):
                break
            writer.write(int(step), "train", {"loss": of["train_loss"]})
            measured = {"loss": of["validation_loss"], "top1_accuracy": of["validation_top1"]}
            writer.write(int(step), "validation", measured)
