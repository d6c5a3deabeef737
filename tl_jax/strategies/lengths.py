"""The length of a run, divided among the phases of a strategy."""

import itertools
from collections.abc import Sequence

import ml_collections

from tl_jax.errors import InputError


def parts_of_run(
    config: ml_collections.ConfigDict, shares: Sequence[float]
) -> list[tuple[str, ...]]:
    """Returns the assignments that give each phase its share of the length of a run.

    The warm-up and the boundaries of the step schedule are divided likewise, so that each phase has a schedule of its
    own. Updates are rounded so that they add up to those of the run.

    Args:
        config: of the run.
        shares: of the phases, in their order; they add up to 1.

    Raises:
        InputError: if the config gives no length, is fitted to the data, has phases already, or is too short.

    Example:
        >>> from tl_jax.config import default_config
        >>> parts_of_run(default_config(train__steps=101), (0.5, 0.5))
        [('train.steps=50',), ('train.steps=51',)]
    """
    train, optim = config.train, config.optim
    if config.phases:
        raise InputError(
            "the strategy has phases of its own, and so has the config; expected --config.phases='()'"
        )
    if train.fit_to_data:
        raise InputError(
            "train.fit_to_data=True: a strategy of several phases divides a length that is known; expected "
            "train.fit_to_data=False, and train.steps or train.epochs"
        )
    if not (train.steps or train.epochs):
        raise InputError(
            "train.steps=0, train.epochs=0.0: a strategy of several phases divides the length of the run; expected "
            "one of them"
        )
    ends = [0.0, *itertools.accumulate(shares)]
    steps = [round(end * train.steps) for end in ends]
    phases = []
    for number, share in enumerate(shares):
        length = steps[number + 1] - steps[number]
        if train.steps and length < 1:
            raise InputError(
                f"train.steps={train.steps}: too few for {len(shares)} phases; expected {len(shares)} or more"
            )
        given = [f"train.steps={length}" if train.steps else f"train.epochs={share * train.epochs}"]
        if optim.warmup_steps:
            given.append(f"optim.warmup_steps={round(share * optim.warmup_steps)}")
        if optim.warmup_epochs:
            given.append(f"optim.warmup_epochs={share * optim.warmup_epochs}")
        if optim.step_steps:
            given.append(
                f"optim.step_steps={tuple(round(share * step) for step in optim.step_steps)}"
            )
        if optim.step_epochs:
            given.append(
                f"optim.step_epochs={tuple(share * epochs for epochs in optim.step_epochs)}"
            )
        phases.append(tuple(given))
    return phases
