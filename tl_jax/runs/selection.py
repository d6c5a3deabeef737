"""Which metric on validation chooses the step that a run reports on, and how the result says so."""

import math
from collections.abc import Mapping
from typing import Any

import ml_collections

from tl_jax import console
from tl_jax.reporting import tables
from tl_jax.training.metrics import SELECTION


def metric_and_mode(config: ml_collections.ConfigDict) -> tuple[str, str]:
    """Returns the metric that says which checkpoint of a run is best, and "max" or "min"."""
    name = config.train.select_by
    return name, SELECTION[name]


def describe(
    name: str,
    step: int,
    total_steps: int,
    validation: Mapping[str, Any] | None,
    only_evaluation: bool,
) -> str:
    """Returns which step of a run was chosen by what.

    Args:
        name: of the metric.
        step: the chosen one.
        total_steps: of the run.
        validation: metrics of the chosen step on validation; None where nothing was held out.
        only_evaluation: whether the run was evaluated at its last step alone.

    Example:
        >>> describe("macro_f1", 20, 50, {"macro_f1": 0.5, "examples": 1000}, False)
        'step 20 of 50, the best macro F1 on 1,000 images held out of train'
    """
    last = f"the last step, {total_steps}"
    if validation is None:
        return f"{last}; nothing was held out to choose by"
    if step == total_steps and only_evaluation:
        return f"{last}, the only one evaluated on validation"
    # The others are finite, those of a network that has diverged too.
    if not math.isfinite(validation[name]):
        return f"{last}; the {name} on validation was never finite"
    best = "lowest" if SELECTION[name] == "min" else "best"
    label = (
        tables.label(name).removesuffix(" accuracy")
        if name.startswith("top")
        else tables.label(name)
    )
    images = console.count(validation["examples"], "image")
    return f"step {step} of {total_steps}, the {best} {label} on {images} held out of train"
