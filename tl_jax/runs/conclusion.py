"""The end of a training run: the chosen state evaluated, its weights saved."""

from typing import Any

import jax
import numpy as np

from tl_jax.runs import attention, protocol, results, scatter, selection, target_statistics
from tl_jax.runs.run_folder import RunFolder
from tl_jax.runs.setup import Setup
from tl_jax.runs.skeleton import facts_of
from tl_jax.runs.updates import FrozenChanged, Trained


def conclude(
    setup: Setup, folder: RunFolder, trained: Trained, parameters: list[dict[str, Any]]
) -> dict[str, Any]:
    """Evaluates the chosen state, reading the test split once; returns what `result.json` holds."""
    state = trained.state
    result, logits = _measured(setup, trained, parameters, ("validation", "test"))
    if jax.process_index() == 0:
        results.save_weights(folder, setup, state.network)
    if setup.config.report.html and setup.config.report.scatter:
        scatter.save_of_state(folder, setup, **state.network)
    result["selection"] += f"; {setup.splits.reported} was read once, at the end"
    result = results.finish(folder, setup.config, setup.splits["test"], logits["test"], result)
    _check_frozen(result)
    return result


def seal(
    setup: Setup, folder: RunFolder, trained: Trained, parameters: list[dict[str, Any]]
) -> dict[str, Any]:
    """Evaluates the chosen state on validation alone, and saves its weights; returns what `sealed.json` holds.

    The run is not finished: the same config, not sealed, goes on with reading the test split.
    """
    result, _ = _measured(setup, trained, parameters, ("validation",))
    if jax.process_index() == 0:
        results.save_weights(folder, setup, trained.state.network)
    result["selection"] += f"; {setup.splits.reported} has not been read"
    _check_frozen(result)
    return results.sealed(folder, result)


def _measured(
    setup: Setup, trained: Trained, parameters: list[dict[str, Any]], names: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the result of a run, as far as it is known from these splits, and their logits."""
    state = trained.state
    splits, logits = {}, {}
    for name in names:
        if name in setup.inputs:
            splits[name], logits[name] = setup.evaluator(**state.network, split=setup.inputs[name])
    step, total = int(state.step), trained.steps
    every = setup.intervals.eval_every
    only_evaluation = len(trained.phases.rows) == 1 and not 0 < every < total
    chosen = selection.describe(
        setup.selected_by, step, total, splits.get("validation"), only_evaluation
    )
    selects = "validation" in splits
    for found in trained.found.values():
        chosen = found["selection"]
        selects = selects and found["by_validation"]
    if total < setup.total_steps:
        patience = setup.config.train.patience
        chosen += f"; stopped at step {total} of {setup.total_steps}, {patience} evaluations without a better one"
    result = {
        "splits": splits,
        "selection": f"{_weights_of(setup, trained)}{chosen}",
        "steps": total,
        "stopped_early": total < setup.total_steps,
        "selected_step": step,
        "selected_by": setup.selected_by if selects else None,
        "averaged": trained.averaging is not None,
        "resumed_at_step": trained.resumed_at_step,
        "train_examples": len(setup.splits["train"]),
        "wall_seconds": trained.seconds,
        "images_per_second": total
        * setup.config.data.batch_size
        / (trained.seconds - trained.storing_seconds)
        if total
        else None,
        "waiting_share": trained.waiting_share,
        "device_idle_share": trained.device_idle_share,
        "dispatch": trained.dispatch,
        **facts_of(setup, parameters),
        "frozen": trained.phases.frozen(step, _variables(trained)),
        "phases": trained.phases.rows,
        **protocol.of_run(trained.phases.setups),
        **target_statistics.facts(trained.phases.setups),
        **attention.facts(trained.phases.setups),
        **trained.found,
        **({"shared_seconds": trained.shared_seconds} if trained.shared_seconds else {}),
    }
    return result, logits


def _variables(trained: Trained) -> dict[str, Any]:
    return {"params": trained.state.params, "batch_stats": trained.state.batch_stats}


def _check_frozen(result: dict[str, Any]) -> None:
    if result["frozen"]["changed"]:
        raise FrozenChanged(f"frozen, but changed: {', '.join(result['frozen']['changed'])}")


def _weights_of(setup: Setup, trained: Trained) -> str:
    """Returns which weights were chosen, where a run has two kinds."""
    if trained.averaging is not None:
        return f"the averaged weights ({trained.averaging.label}) of "
    return "" if setup.averaging is None else "the live weights of "
