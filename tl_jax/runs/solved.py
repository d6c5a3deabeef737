"""A run whose head is solved: no update is made, the head is found from the features of all training images at once.

Heads are fitted to train alone, one for each strength, and measured on validation; the best one is the run's. It is
kept in a checkpoint of step 0 and in `solver.json`: a run that was sealed, or stopped after that, goes on with it,
one that was stopped before begins again.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import console, models, reporting
from tl_jax.config import default_config
from tl_jax.errors import InputError
from tl_jax.parallel import memory, sharding
from tl_jax.reporting import tables
from tl_jax.runs import found, solver
from tl_jax.runs.recording import Callback
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup
from tl_jax.runs.updates import Prepared, Trained
from tl_jax.training import logistic, solvers
from tl_jax.training.metrics import SELECTION
from tl_jax.training.state import TrainState

# Largest difference of logits, as a share of the largest, between a head and `features @ kernel + bias`: that of
# products in bfloat16.
_TOLERANCE = 0.02


def check(setup: Setup) -> None:
    """Looks at what data, devices and network say, before anything is computed.

    Raises:
        InputError: if there are several processes, classes have no image that a mean could be of, the head does
            something else than a dense layer, or the host has too little memory.
    """
    name = setup.config.solver.name
    if jax.process_count() > 1:
        raise InputError(
            f"solver.name={name}: a head is solved in one process, not in {jax.process_count()}"
        )
    train = setup.splits["train"]
    if len(train.class_names) < 2:
        raise InputError(f"solver.name={name}: the data have one class; expected two or more")
    present = set(np.unique(train.labels).tolist())
    lacking = [of for place, of in enumerate(train.class_names) if place not in present]
    if name == "nearest_mean" and lacking:
        more = f" and {len(lacking) - 5} more" if lacking[5:] else ""
        raise InputError(
            f"solver.name={name}: no training image of {', '.join(lacking[:5])}{more}, and so no mean; expected an "
            "image of each class, or solver.name=ridge"
        )
    _check_memory(setup)
    _check_dense(setup)


def solve(
    prepared: Prepared,
    folder: RunFolder,
    stop_requested: Callable[[], bool],
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Finds the head of a run, or the one that was found before; see `updates.train`.

    Raises:
        loops.Stopped: when asked to, before the head is found.
    """
    trained = found.once("solver", prepared, folder, _solved, stop_requested, callbacks)
    reporting.print_table("Heads by L2 strength", trained.found["solver"]["heads"])
    return trained


def _solved(setup: Setup) -> tuple[TrainState, dict[str, Any], dict[str, dict[str, float]]]:
    """Returns the state with the chosen head, what `solver.json` holds, and the metrics of that head by split."""
    assert setup.cache is not None
    config, split = setup.config, setup.inputs["train"]
    strengths = solver.strengths_of(config)
    options = default_config().probe
    heads = solvers.solve(
        config.solver.name,
        split.gather(np.arange(len(split))).astype(np.float32),
        split.labels,
        len(split.class_names),
        strengths,
        max_evaluations=options.max_evaluations,
        tolerance=options.tolerance,
        compilation=setup.compilation,
    )
    start = setup.initial_state()

    def with_head(place: int) -> TrainState:
        # One head after the other on the devices: of many classes, all of them are large.
        head = {"kernel": heads.kernel[place], "bias": heads.bias[place]}
        return start.replace(params={**start.params, "head": sharding.replicate(setup.mesh, head)})

    rows = [dict(facts) for facts in heads.facts]
    chosen, of_heads = 0, []
    if "validation" in setup.inputs:
        of_heads = [_measured(setup, with_head(place), "validation") for place in range(len(rows))]
        for row, metrics in zip(rows, of_heads, strict=True):
            row |= {
                name: metrics[name]
                for name in dict.fromkeys(("top1_accuracy", "loss", setup.selected_by))
            }
        chosen = choose(
            [metrics[setup.selected_by] for metrics in of_heads], strengths, setup.selected_by
        )
    state = with_head(chosen)
    measured = {"train": _measured(setup, state, "train")}
    if of_heads:
        measured["validation"] = of_heads[chosen]
    facts = {
        "name": config.solver.name,
        "strength": float(strengths[chosen]) if strengths else None,
        "selection": _selection(setup, strengths, chosen, rows[chosen]),
        "heads": [{**row, "chosen": place == chosen} for place, row in enumerate(rows)],
        "by_validation": len(rows) > 1,
    }
    return state, facts, measured


def choose(values: Sequence[float], strengths: Sequence[float], metric: str) -> int:
    """Returns the place of the best value on validation, the strongest of equals; one that is not finite is last.

    Args:
        values: of each strength.
        strengths: the L2 strengths; empty where there is a single value.
        metric: of `metrics.SELECTION`.

    Example:
        >>> choose([0.5, 0.9, 0.9], [0.1, 1.0, 10.0], "top1_accuracy"), choose([0.5, 0.9], [0.1, 1.0], "loss")
        (2, 0)
    """
    if len(values) == 1:
        return 0
    sign = 1 if SELECTION[metric] == "max" else -1
    better = [sign * value if math.isfinite(value) else -math.inf for value in values]
    return logistic.choose(np.array(better), strengths)


def _measured(setup: Setup, state: TrainState, name: str) -> dict[str, float]:
    return setup.evaluator.measure(state.params, state.batch_stats, setup.inputs[name])


def _selection(setup: Setup, strengths: Sequence[float], chosen: int, row: dict[str, Any]) -> str:
    """Returns which head this is, and what chose it."""
    text = solvers.SOLVERS[setup.config.solver.name]
    if strengths:
        text += f", L2 strength {strengths[chosen]:.3g}"
    if not row.get("converged", True):
        text += f" (not converged after {row['evaluations']} evaluations)"
    if len(strengths) < 2:
        return text
    best = "lowest" if SELECTION[setup.selected_by] == "min" else "best"
    label = tables.label(setup.selected_by)
    held_out = console.count(len(setup.inputs["validation"]), "image")
    return f"{text}, the {best} {label} of {len(strengths)} on {held_out} held out of train"


def _check_memory(setup: Setup) -> None:
    """Raises InputError if the host has no room for features, and for the matrices of ridge regression."""
    assert setup.boundary is not None
    (width,) = models.boundary_shapes(setup.model, setup.preprocessing.image_size)[setup.boundary]
    examples = len(setup.splits["train"])
    count = len(solver.strengths_of(setup.config)) or 1
    classes = len(setup.splits["train"].class_names)
    parts = {
        f"{examples:,} x {width:,} features": 4 * examples * width,
        f"heads of {width:,} x {classes:,}, {count}": 8 * count * width * classes,
    }
    if setup.config.solver.name == "ridge":
        side = min(examples, width)
        # The matrix, its eigenvectors, and what the decomposition works in; few examples are in float64, too.
        parts[f"matrices of {side:,} x {side:,}"] = 8 * (
            4 * side**2 + (examples < width) * examples * width
        )
    needed, room = sum(parts.values()), memory.host_available()
    if needed > room:
        raise InputError(
            f"solver.name={setup.config.solver.name} needs {memory.format_bytes(needed)} of the host's memory, which "
            f"has {memory.format_bytes(room)}: {'; '.join(parts)}; expected fewer images "
            "(data.examples_per_class), or updates (solver.name='')"
        )


def _check_dense(setup: Setup) -> None:
    """Raises InputError unless the head is `features @ kernel + bias`; it is asked with random numbers."""
    params, batch_stats = (setup.variables[name] for name in ("params", "batch_stats"))
    rng = np.random.default_rng(0)
    head = {
        name: rng.standard_normal(leaf.shape).astype(np.float32)
        for name, leaf in params["head"].items()
    }
    features = rng.standard_normal((3, head["kernel"].shape[0])).astype(np.float32)
    forward = models.make_forward(setup.model, start=setup.boundary)
    logits, _ = forward({**params, "head": head}, batch_stats, jnp.asarray(features), train=False)
    expected = features @ head["kernel"] + head["bias"]
    difference = np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max()
    if not difference <= _TOLERANCE:
        raise InputError(
            f"solver.name={setup.config.solver.name}: the head of {setup.config.model.name} does something else "
            "than features @ kernel + bias, which is what is solved for; expected one dense layer"
        )
