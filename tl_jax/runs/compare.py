"""Compares methods over seeds; every cell is an ordinary run, and a finished one is not run again.

`config.compare.methods` names the methods and the fields that each of them sets; `config.compare.seeds` are given
to `seed` and `data.seed` alike, so that the methods of a seed see the same examples and are compared in pairs.
A method is chosen by validation: what `data.validation_fraction` holds out of train is shown beside test.
"""

import contextlib
import copy
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections

from tl_jax import console, reporting
from tl_jax.config import check, phase_configs, set_field
from tl_jax.errors import InputError, unknown
from tl_jax.runs import training
from tl_jax.runs.setup import check_config
from tl_jax.runs.skeleton import alone
from tl_jax.training.loops import Stopped
from tl_jax.training.metrics import CLASS_AVERAGES


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """Runs all cells and writes the comparison into `workdir`; returns the rows of `run_cells`.

    Args:
        config: of the comparison.
        workdir: of its cells, a run folder each.
        stop_requested: whether to stop; asked between updates.
    """
    results = run_cells(config, workdir, stop_requested)
    if jax.process_index() == 0:
        rows = reporting.write_comparison(
            workdir, title(config), results, shown=tuple(config.compare.metrics)
        )
        reporting.print_table(title(config), rows, level="normal")
        console.say(json.loads((workdir / "comparison.json").read_text())["choice"])
        console.say(f"{workdir / 'comparison.html'}: every run, with a link to its report")
    return results


def title(config: ml_collections.ConfigDict) -> str:
    """Returns the network, the data set and the number of labelled images, as one line."""
    few = config.data.examples_per_class
    shots = f", {few} labelled images per class" if few else ""
    return f"{config.model.name} on {config.data.name}{shots}"


def run_cells(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """Returns a row for each method and seed: run folder, metrics on test and validation, time.

    The validation fields are missing where nothing is held out of train.

    Raises:
        InputError: before the first cell trains, if the config names no methods or seeds, a seed twice, a
            field that does not exist, or a value out of range.
    """
    check(config)
    section, seeds = config.compare, tuple(config.compare.seeds)
    # A ConfigDict gives its names in alphabetical order; the baseline is what others are compared with.
    baseline = section.baseline
    methods = sorted(section.methods, key=lambda name: name != baseline)
    cells = [
        (method, seed, cell_config(config, method, seed)) for seed in seeds for method in methods
    ]
    if not cells:
        raise InputError("compare.methods and compare.seeds: expected at least one of each")
    if baseline not in methods:
        raise unknown("compare.baseline", baseline, methods)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"compare.seeds={seeds}: a seed is there twice")
    # All of them before the first one trains. The cells of a method differ in their seeds alone.
    for method, _, cell in cells[: len(methods)]:
        with _naming_method(method):
            check_config(cell)
    rows, notes = [], []
    with reporting.RunTable(title(config), methods, seeds) as table:
        for method, seed, cell in cells:
            folder = workdir / method / f"seed{seed}"
            lengths = [phase.train.steps for phase in phase_configs(cell)]
            updates = sum(lengths) if all(lengths) else 0  # unknown where a length is in epochs
            with table.run(method, seed, updates) as shown, alone(f"{method}, seed {seed}"):
                result = training.run(
                    cell,
                    folder,
                    stop_requested,
                    callbacks=[shown.logged],
                    sources=workdir / "sources",
                )
                shown.finished(result)
            if stop_requested():
                raise Stopped(result["steps"])
            notes += [*result.get("deviations", ()), *result.get("data_notes", ())]
            rows.append(_row(method, seed, str(folder.relative_to(workdir)), result))
    for line in dict.fromkeys(notes) if not console.shows("verbose") else ():
        console.note(line)
    return rows


@contextlib.contextmanager
def _naming_method(method: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"compare.methods.{method}: {error}") from error


def _row(method: str, seed: int, run: str, result: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": method,
        "seed": seed,
        "run": run,
        **_measured(result),
        "trainable_parameters": sum(group["trainable"] for group in result["parameters"]),
        "wall_seconds": result["wall_seconds"],
        "git_revision": result.get("git_revision"),
    }


def _measured(result: dict[str, Any]) -> dict[str, Any]:
    test, validation = result["splits"]["test"], result["splits"].get("validation")
    row = {**_metrics_of(test), "test_examples": test["examples"]}
    if validation is not None:
        measured = _metrics_of(validation)
        row |= {f"validation_{name}": value for name, value in measured.items()}
        row["validation_examples"] = validation["examples"]
    return row


def _metrics_of(split: dict[str, Any]) -> dict[str, float]:
    """Returns the metrics that are compared; a run of an earlier version has no averages over classes."""
    return {name: split[name] for name in ("top1_accuracy", *CLASS_AVERAGES) if name in split}


def cell_config(
    config: ml_collections.ConfigDict, method: str, seed: int
) -> ml_collections.ConfigDict:
    """Returns the config of one ordinary run: the fields of `method` set, the comparison gone."""
    cell = copy.deepcopy(config)
    methods = cell.compare.methods
    if method not in methods:
        raise unknown("method", method, methods)
    assignments = methods[method]
    for assignment in (*assignments, f"seed={seed}", f"data.seed={seed}"):
        set_field(cell, assignment)
    return cell
