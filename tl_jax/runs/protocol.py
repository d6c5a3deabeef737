"""Whether a run keeps the terms of the protocol that it names."""

from collections.abc import Sequence
from typing import Any

from tl_jax import protocols
from tl_jax.runs import weights
from tl_jax.runs.setup import Setup


def of_run(phases: Sequence[Setup]) -> dict[str, Any]:
    """Returns {"protocol": what `protocols.report` says} of a run that names one in `report.protocol`, else {}.

    Args:
        phases: of the run.
    """
    last = phases[-1]
    name = last.config.report.protocol
    if not name:
        return {}
    facts = protocols.Facts(
        config=last.config,
        phases=tuple(setup.config for setup in phases),
        steps=last.total_steps - last.first_step,
        preprocessing=weights.describe_preprocessing(last.preprocessing),
        native=last.initial.preprocessing,
        train_examples=len(last.splits["train"]),
        validation_examples=len(last.splits["validation"]) if "validation" in last.splits else 0,
    )
    return {"protocol": protocols.report(name, facts)}
