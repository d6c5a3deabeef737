"""How many updates a run has, and what happens when."""

import ml_collections

from tl_jax import data
from tl_jax.errors import InputError
from tl_jax.training import loops


def total_steps(config: ml_collections.ConfigDict, num_examples: int) -> int:
    """Returns the updates in the run, or in the phase whose config it is.

    Raises:
        InputError: unless exactly one of `train.steps` and `train.epochs` is positive.
    """
    check_length(config)
    return config.train.steps or max(1, in_steps(config, config.train.epochs, num_examples))


def check_length(config: ml_collections.ConfigDict) -> None:
    """Raises InputError unless exactly one of `train.steps` and `train.epochs` is positive."""
    steps, epochs = config.train.steps, config.train.epochs
    if (steps > 0) == (epochs > 0):
        hint = "add --config.train.epochs=N or --config.train.steps=N"
        if steps:
            hint = (
                f"add --config.train.steps=0 to train {epochs:g} epochs, or --config.train.epochs=0 to train "
                f"{steps:,} updates"
            )
        raise InputError(
            f"train.steps={steps}, train.epochs={epochs:g}: exactly one must be above 0; {hint}"
        )


def in_steps(config: ml_collections.ConfigDict, epochs: float, num_examples: int) -> int:
    """Returns how many updates see `epochs` times the training split, rounded."""
    return round(epochs * num_examples / config.data.batch_size)


def make_intervals(
    config: ml_collections.ConfigDict,
    splits: dict[str, data.Split],
    steps: int,
    first_step: int = 0,
    goes_on: bool = False,
) -> loops.Intervals:
    """Returns what happens when, in updates; intervals in steps win over those in epochs.

    Without a validation split there is nothing to evaluate before the end.

    Args:
        config: of the run, or of the phase.
        splits: of the run.
        steps: updates in it.
        first_step: completed updates of earlier phases.
        goes_on: whether another phase follows.

    Raises:
        InputError: if patience is asked for and there is nothing to wait for.
    """
    section = config.train
    eval_every = section.eval_every_steps
    if not eval_every and section.eval_every_epochs > 0:
        eval_every = max(1, in_steps(config, section.eval_every_epochs, len(splits["train"])))
    if section.patience and (first_step or goes_on):
        raise InputError(
            f"train.patience={section.patience} in a run of several phases, each of which has a fixed length; "
            "expected 0"
        )
    if section.patience and ("validation" not in splits or not 0 < eval_every < steps):
        lacking = "nothing is held out" if "validation" not in splits else "validation is evaluated"
        when = "" if "validation" not in splits else " at the end only"
        raise InputError(
            f"train.patience={section.patience}: {lacking}{when}, so that there is nothing to wait for; expected "
            "data.validation_fraction or data.validation_split, and an evaluation interval below the length of the "
            "run (train.eval_every_epochs, train.eval_every_steps)"
        )
    return loops.Intervals(
        first_step + steps,
        # A short run still has some twenty points to a curve.
        log_every=min(section.log_every_steps, max(1, steps // 20)),
        eval_every=eval_every if "validation" in splits else 0,
        checkpoint_every=section.checkpoint_every_steps,
        first_step=first_step,
        goes_on=goes_on,
        patience=section.patience,
    )
