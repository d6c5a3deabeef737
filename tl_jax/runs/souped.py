"""A run whose weights are the mean of those of other runs, its members, which are trained first and sealed."""

import copy
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from tl_jax import reporting, trees
from tl_jax.parallel import sharding
from tl_jax.reporting import tables
from tl_jax.runs import found, results, target_statistics, weights
from tl_jax.runs.recording import Callback
from tl_jax.runs.run_folder import SEALED, RunFolder
from tl_jax.runs.setup import Setup
from tl_jax.runs.updates import Prepared, Trained
from tl_jax.training.metrics import SELECTION
from tl_jax.training.soups import greedy, mean
from tl_jax.training.state import TrainState


def cook(
    prepared: Prepared,
    folder: RunFolder,
    members: Sequence[pathlib.Path],
    stop_requested: Callable[[], bool],
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Returns the mean of the members' weights, made now or found in the folder; see `found.once`.

    Running statistics of BatchNorm are those of the only member, or what all members have alike; otherwise they do
    not fit the mean, and are estimated again on training images.

    Args:
        prepared: the run.
        folder: of the run.
        members: the folders of those that are averaged, in the order of `soup.members`.
        stop_requested: whether to stop.
        callbacks: called with (0, split, metrics).

    Raises:
        loops.Stopped: when asked to.
    """
    trained = found.once(
        "soup",
        prepared,
        folder,
        functools.partial(_cooked, folders=members),
        stop_requested,
        callbacks,
    )
    reporting.print_table("Members of the soup", trained.found["soup"]["members"])
    return trained


def _cooked(
    setup: Setup, folders: Sequence[pathlib.Path]
) -> tuple[TrainState, dict[str, Any], dict[str, dict[str, float]]]:
    """Returns the state of the soup, what `soup.json` holds, and the metrics of the soup by split."""
    name, members = setup.config.soup.name, setup.config.soup.members
    start = setup.initial_state()
    ingredients = [_variables(setup, folder) for folder in folders]

    def soup(places: Sequence[int]) -> TrainState:
        whole = sharding.replicate(setup.mesh, _mean(setup, [ingredients[p] for p in places]))
        return start.replace(**whole)

    def measure(state: TrainState, split: str) -> dict[str, float]:
        return setup.evaluator.measure(state.params, state.batch_stats, setup.inputs[split])

    rows: list[dict[str, Any]] = [
        {"member": number, "changes": ", ".join(changes), "seconds": _seconds(folder)}
        for number, (changes, folder) in enumerate(zip(members, folders, strict=True), 1)
    ]
    chosen, metric = tuple(range(len(members))), setup.selected_by
    if "validation" in setup.inputs:
        of_members = [measure(soup((place,)), "validation") for place in chosen]
        for row, metrics in zip(rows, of_members, strict=True):
            row |= {
                name: metrics[name] for name in dict.fromkeys(("top1_accuracy", "loss", metric))
            }
        if name == "greedy":
            chosen = greedy(
                [metrics[metric] for metrics in of_members],
                lambda places: measure(soup(places), "validation")[metric],
                1 if SELECTION[metric] == "max" else -1,
            )
    for place, row in enumerate(rows):
        row["added"] = chosen.index(place) + 1 if place in chosen else None
    state = soup(chosen)
    splits: list[str] = [name for name in ("train", "validation") if name in setup.inputs]
    measured: dict[str, dict[str, float]] = {name: measure(state, name) for name in splits}
    text = f"{name} soup, the mean of {len(chosen)} of {len(members)} members"
    if name == "greedy":
        text += f", each added for its {tables.label(metric)} on validation"
    facts = {
        "name": name,
        "selection": text,
        "by_validation": name == "greedy",
        "members": rows,
    }
    return state, facts, measured


def _variables(setup: Setup, member: pathlib.Path) -> dict[str, Any]:
    """Returns what a member exported, {"params", "batch_stats"} on the host."""
    config = copy.deepcopy(setup.config)
    weights.start_from(config, member)
    names, side = setup.splits["train"].class_names, setup.preprocessing.image_size
    made = weights.make_initial(config, setup.model, names, side).variables
    return {name: jax.device_get(made[name]) for name in ("params", "batch_stats")}


def _seconds(folder: pathlib.Path) -> float:
    """Returns how long the updates of a member took."""
    sealed = folder / SEALED
    # One that several runs share may be the source of another, whose test split was read.
    path = sealed if sealed.is_file() else folder / "result.json"
    return results.read_result(path)["wall_seconds"]


def _mean(setup: Setup, ingredients: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole = dict(mean(ingredients))
    first, *others = (trees.flatten(one["batch_stats"]) for one in ingredients)
    alike = all(
        np.array_equal(leaf, other[name]) for other in others for name, leaf in first.items()
    )
    if not alike:
        whole["batch_stats"] = target_statistics.estimated(setup, whole)
    return whole
