"""What of a network is trained, how it moves, and which average of it is kept."""

import dataclasses
import decimal
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import optax

from tl_jax import freezing, models, objectives, optim, trees
from tl_jax.config import FIELDS, naming_fields
from tl_jax.errors import InputError
from tl_jax.runs.lengths import in_steps
from tl_jax.runs.parts import is_own, must_be_given
from tl_jax.training import averaging
from tl_jax.training.averaging import Averaging
from tl_jax.training.loops import Intervals

# From the run's schedule to any gradient transformation, such as `optax.lion`.
Optimizer = Callable[[optax.Schedule], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Optimisation:
    """The trainable part of a run and how it moves.

    Attributes:
        frozen_mask: tree of bools like params, True where frozen.
        frozen_norms: names of the BatchNorm modules to which the policy applies.
        multipliers: tree of floats like params.
        schedule: step -> learning rate.
        tx: the gradient transformation.
    """

    frozen_mask: dict[str, Any]
    frozen_norms: frozenset[str]
    multipliers: dict[str, Any]
    schedule: optax.Schedule
    tx: optax.GradientTransformation


def make_optimisation(
    config: ml_collections.ConfigDict,
    model: models.Network,
    params: dict[str, Any],
    steps: int,
    num_examples: int,
    optimizer: Optimizer | None = None,
) -> Optimisation:
    """Returns what `config.freeze` and `config.optim` say of these parameters.

    Args:
        config: of the run.
        model: the network.
        params: nested dict of arrays.
        steps: updates in the run.
        num_examples: of the training split, which makes steps of epochs.
        optimizer: takes the place of the rule where `config.optim.name` says `own:NAME`.

    Raises:
        InputError: if a pattern matches nothing or a value is out of range.
    """
    schedule = make_schedule(config, config.optim.learning_rate, steps, num_examples)
    plateau = make_plateau(config, num_examples)
    every = rgn_updates(config, num_examples)
    return make_partition(config, model, params, schedule, optimizer, plateau, every)


def make_plateau(config: ml_collections.ConfigDict, num_examples: int) -> optim.Plateau | None:
    """Returns what lowers the rate by the loss where `optim.schedule` is "plateau", else None."""
    section = config.optim
    if section.schedule != "plateau":
        return None
    every = max(1, in_steps(config, section.decay_epochs, num_examples))
    with naming_fields(config, factor="optim.step_decay", patience="optim.plateau_patience"):
        return optim.Plateau(section.step_decay, section.plateau_patience, every)


def rgn_updates(config: ml_collections.ConfigDict, num_examples: int) -> int:
    """Returns the updates of an epoch where `optim.auto_rgn` is set, else 0."""
    return max(1, in_steps(config, 1.0, num_examples)) if config.optim.auto_rgn else 0


def make_schedule(
    config: ml_collections.ConfigDict,
    learning_rate: float | jax.Array,
    steps: int,
    num_examples: int,
) -> optax.Schedule:
    """Returns the schedule of `config.optim` with this peak, a number or data of the program."""
    section = config.optim
    warmup_steps = section.warmup_steps or in_steps(config, section.warmup_epochs, num_examples)
    boundaries = list(section.step_steps) or [
        in_steps(config, float(epochs), num_examples) for epochs in section.step_epochs
    ]
    _check_schedule(config, steps, warmup_steps, boundaries)
    with naming_fields(config, "optim.schedule", "optim.learning_rate"):
        return optim.make_schedule(
            section.schedule,
            learning_rate,
            steps,
            warmup_steps=warmup_steps,
            boundaries=tuple(boundaries),
            decay=section.step_decay,
            decay_steps=max(1.0, section.decay_epochs * num_examples / config.data.batch_size),
            final_fraction=section.final_fraction,
        )


def _check_schedule(
    config: ml_collections.ConfigDict, steps: int, warmup_steps: int, boundaries: Sequence[int]
) -> None:
    """Raises InputError unless warm-up and boundaries, in updates, are within a run of so many."""
    section = config.optim
    length = (
        f"the run has {steps:,} updates (train.steps)"
        if config.train.steps
        else f"the run has {steps:,} updates (train.epochs={config.train.epochs:g})"
    )
    problems = []
    for name, empty in (("warmup", 0), ("step", "()")):
        pair = [f"optim.{name}_{unit}={section[f'{name}_{unit}']}" for unit in ("steps", "epochs")]
        if section[f"{name}_steps"] and section[f"{name}_epochs"]:
            problems.append(f"{pair[0]}, {pair[1]}: give one of them, set the other to {empty}")
    if warmup_steps > steps:
        given = (
            f"optim.warmup_steps={section.warmup_steps}"
            if section.warmup_steps
            else f"optim.warmup_epochs={section.warmup_epochs:g} ({warmup_steps:,} updates)"
        )
        field = given.partition("=")[0]
        # Rounded down, or the advice would be refused again.
        epochs = _round_down(steps / warmup_steps * section.warmup_epochs)
        problems.append(
            f"{given}: longer than the run; {length}; add --config.{field}=0 for no warm-up, or at most "
            f"{steps if section.warmup_steps else epochs}"
        )
    if section.schedule == "step":
        unit = "epochs" if section.step_epochs and not section.step_steps else "steps"
        given = f"optim.step_{unit}={tuple(section[f'step_{unit}'])}"
        in_updates = (
            f" (after {', '.join(map(str, boundaries))} updates)" if unit == "epochs" else ""
        )
        inside = all(1 <= step < steps for step in boundaries)
        rising = all(low < high for low, high in itertools.pairwise(boundaries))
        shorter = ""
        if steps >= 4:
            shorter = f"--config.optim.step_steps='({steps // 2}, {steps * 3 // 4})'"
            shorter += " --config.optim.step_epochs='()', or " if unit == "epochs" else ", or "
        if not boundaries or not inside or not rising:
            problems.append(
                f"{given}{in_updates}: optim.schedule=step needs one or more increasing updates below the "
                f"length of the run; {length}; add {shorter}--config.optim.schedule=constant"
            )
    if problems:
        raise InputError("\n".join(problems))


def _round_down(value: float) -> str:
    """Returns a number above 0 with three significant digits, rounded towards 0."""
    digits = decimal.Context(prec=3, rounding=decimal.ROUND_DOWN)
    return f"{digits.create_decimal_from_float(value):f}"


def check_optimizer(config: ml_collections.ConfigDict, given: Optimizer | None) -> None:
    """Looks at an own optimizer.

    Raises:
        InputError: if the config names one and none is given, or has fields that it does not read.
    """
    if not is_own(config.optim.name):
        return
    if given is None:
        raise must_be_given("optim.name", config.optim.name, "optimizer")
    read = ("name", "clip_norm")
    fields = [f.name for f in dataclasses.fields(optim.Rule) if f.name not in read]
    values = {f"optim.{name}": config.optim[name] for name in fields}
    changed = [f"{name}={value}" for name, value in values.items() if value != FIELDS[name].default]
    if changed:
        raise InputError(
            f"{', '.join(changed)}: of sgd and adamw, and without effect on optim.name={config.optim.name}; expected "
            "the defaults here, and these numbers in the optimizer"
        )


def _transformation(optimizer: Optimizer, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns the transformation that an own optimizer makes of the run's schedule."""
    made = optimizer(schedule) if callable(optimizer) else optimizer
    if callable(optimizer) and hasattr(made, "init") and hasattr(made, "update"):
        return made
    raise InputError(
        f"optimizer is {type(optimizer).__name__}, expected a function from the schedule to an optax "
        "transformation, such as optax.lion or lambda schedule: optax.adam(schedule, b1=0.8)"
    )


def make_tx(
    config: ml_collections.ConfigDict,
    params: dict[str, Any],
    schedule: optax.Schedule,
    multipliers: dict[str, Any],
    frozen_mask: dict[str, Any],
    plateau: optim.Plateau | None = None,
    every: int = 0,
    **regularisation: float | jax.Array,
) -> optax.GradientTransformation:
    """Returns the gradient transformation of `config.optim`.

    Args:
        config: of the run.
        params: nested dict of arrays; `multipliers` and `frozen_mask` have its leaves.
        schedule: step -> learning rate.
        multipliers: tree of floats.
        frozen_mask: tree of bools, True where frozen.
        plateau: see `make_plateau`.
        every: see `rgn_updates`.
        **regularisation: `weight_decay` and `l2_sp` where they are not those of the config; numbers, or
            data of the program.
    """
    section = config.optim
    fields = dataclasses.fields(optim.Rule)
    values = {field.name: section[field.name] for field in fields}
    if "weight_decay" in regularisation:
        values["weight_decay"] = regularisation["weight_decay"]
    with naming_fields(config, *(f"optim.{field.name}" for field in fields)):
        rule = optim.Rule(**values)
    return optim.make_optimizer(
        params,
        schedule,
        rule,
        multipliers=multipliers,
        frozen_mask=frozen_mask,
        undecayed=objectives.L2SP.pulled(
            params, regularisation.get("l2_sp", config.objective.l2_sp)
        ),
        plateau=plateau,
        rgn_updates=every,
    )


def make_partition(
    config: ml_collections.ConfigDict,
    model: models.Network,
    params: dict[str, Any],
    schedule: optax.Schedule,
    optimizer: Optimizer | None = None,
    plateau: optim.Plateau | None = None,
    every: int = 0,
) -> Optimisation:
    """Returns what `config.freeze` and `config.optim` say of parameters, with a schedule that is given.

    Args:
        config: of the run.
        model: whose boundaries say the order of its parts.
        params: nested dict of arrays or shapes.
        schedule: step -> learning rate.
        optimizer: takes the place of the rule where `config.optim.name` says `own:NAME`.
        plateau: see `make_plateau`.
        every: see `rgn_updates`.
    """
    patterns = tuple(config.freeze.patterns)
    with naming_fields(config, "freeze.strategy", "freeze.patterns"):
        frozen_mask = freezing.frozen_mask(
            params, config.freeze.strategy, patterns, boundaries=model.boundaries
        )
    if config.optim.auto_rgn:
        _check_layers(config, frozen_mask)
    rates = tuple(config.optim.lr_multipliers)
    with naming_fields(config, "optim.lr_multipliers", "optim.layerwise_decay"):
        multipliers = optim.lr_multipliers(
            params, rates, config.optim.layerwise_decay, boundaries=model.boundaries
        )
    # A phase may name another rule than the one that was given.
    if optimizer is None or not is_own(config.optim.name):
        tx = make_tx(config, params, schedule, multipliers, frozen_mask, plateau, every)
    else:
        tx = optim.wrap_optimizer(
            _transformation(optimizer, schedule),
            multipliers=multipliers,
            frozen_mask=frozen_mask,
            clip_norm=config.optim.clip_norm,
            plateau=plateau,
            rgn_updates=every,
        )
    norms = freezing.frozen_norms(params, frozen_mask)
    if norms:
        norms &= frozenset(models.norm_names(model))
    return Optimisation(frozen_mask, norms, multipliers, schedule, tx)


def _check_layers(config: ml_collections.ConfigDict, frozen_mask: dict[str, Any]) -> None:
    """Raises InputError where one layer alone is trained: its relative gradient norm is the largest."""
    frozen = trees.flatten(frozen_mask)
    layers = {name.rpartition("/")[0] for name in frozen if not frozen[name]}
    if len(layers) < 2:
        raise InputError(
            f"optim.auto_rgn=True with freeze.strategy={config.freeze.strategy}: {', '.join(layers)} alone is "
            "trained, whose multiplier is always 1; expected optim.auto_rgn=False, or more that is trained"
        )


def make_averaging(
    config: ml_collections.ConfigDict,
    optimisation: Optimisation,
    batch_stats: dict[str, Any],
    intervals: Intervals,
    num_examples: int,
) -> Averaging | None:
    """Returns what `config.average` asks for; None for no average.

    Raises:
        InputError: if a value is out of range.
    """
    section = config.average
    if not section.name:
        return None
    length = intervals.total_steps - intervals.first_step
    first = intervals.first_step + max(1, round(section.start * length))
    every = section.every_steps or max(1, in_steps(config, 1.0, num_examples))
    averaged = averaging.averaged_leaves(
        optimisation.frozen_mask, batch_stats, optimisation.frozen_norms, config.freeze.batch_norm
    )
    if section.name == "wise_ft":
        _check_start(config, intervals)
    with naming_fields(config, "average.decay", "average.alpha"):
        return Averaging(section.name, averaged, section.decay, first, every, section.alpha)


def _check_start(config: ml_collections.ConfigDict, intervals: Intervals) -> None:
    """Raises InputError where WiSE-FT would average with a head that nothing has trained."""
    starts_at_random = config.init.head == "reset" or not config.init.weights
    if starts_at_random and not intervals.first_step:
        raise InputError(
            f"average.name=wise_ft from init.head={config.init.head}, init.weights={config.init.weights!r}: the "
            "weights at the start have a random head; expected a phase before that trains it (strategy wise_ft), "
            "or init.head=keep with weights of the same classes"
        )
