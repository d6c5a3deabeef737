"""From a config to the library's objects: splits, model, freezing, optimizer."""

import dataclasses
import decimal
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import optax

from experiments import config_fields, config_values, weights
from tl_jax import activations, data, freezing, loops, memory, models, optim, sharding
from tl_jax.errors import InputError, unknown

# Decoded images that do not fit in this are decoded on access, each time: bytes, and of the host's memory.
MOST_DECODED, DECODED_SHARE = 8 << 30, 0.4


def check(config: ml_collections.ConfigDict) -> None:
    """Looks at all that can be judged without data and weights.

    Raises:
        InputError: listing what is out of range, or naming what does not exist.
    """
    config_values.check(config)
    with config_fields.naming(config, "model.stem"):
        model = make_model(config, 1)
    boundaries = model.boundaries[: model.boundaries.index("pool") + 1]
    if config.cache.boundary not in ("", "auto", *boundaries):
        raise unknown("cache.boundary", config.cache.boundary, ("auto", *boundaries))
    weights.find(config)
    shapes = jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0)))["params"]
    _make_partition(config, shapes, optim.make_schedule("constant", config.optim.learning_rate, 1))


def make_splits(config: ml_collections.ConfigDict) -> data.Splits:
    """Returns the splits `train`, `test` and, where a part of train is held out, `validation`.

    Labels are loaded; images may still be decoding, see `data.wait_for`. What the user should know
    of the data is printed to stderr, by the first process.

    Raises:
        InputError: if the data cannot be found or read, or the batch size does not fit the training split.
    """
    section = config.data
    splits = _load_splits(
        config,
        train=section.train_split,
        validation=section.validation_split,
        validation_fraction=section.validation_fraction,
        examples_per_class=section.examples_per_class,
    )
    _check_batch_size(config, splits["train"])
    return splits


def make_test_split(config: ml_collections.ConfigDict) -> data.Splits:
    """Returns the split `test` alone, for an evaluation; no other split need exist."""
    return _load_splits(config, train="")


def _load_splits(config: ml_collections.ConfigDict, **arguments: Any) -> data.Splits:
    section = config.data
    fields = {
        "train": "data.train_split",
        "test": "data.test_split",
        "validation": "data.validation_split",
        "validation_fraction": "data.validation_fraction",
        "examples_per_class": "data.examples_per_class",
        "image_size": "data.image_size",
        "seed": "data.seed",
    }
    # Besides the data set, messages name what was asked of it other than the usual.
    usual = {"data.data_dir": "", "data.train_split": "train", "data.test_split": "test"}
    values = config_fields.flat(config) | (
        {} if "validation" in arguments else {"data.train_split": "train"}
    )
    # The same in every process, so that all of them read images in the same way.
    room = sharding.least(min(MOST_DECODED, round(DECODED_SHARE * memory.host_available())))
    named = [name for name, value in usual.items() if values[name] != value]
    try:
        with config_fields.naming(config, "data.name", *named, **fields):
            splits = data.load_splits(
                section.name,
                data_dir=section.data_dir or None,
                test=section.test_split,
                seed=section.seed,
                image_size=weights.host_size(config),
                interpolation=weights.host_interpolation(config),
                max_memory_bytes=room,
                wait=False,
                cache_dir=section.cache_dir or None,
                **arguments,
            )
    except InputError as error:
        if "held out" in str(error) and section.validation_fraction:
            raise InputError(
                f"data.validation_fraction={section.validation_fraction}: {error}; expected 0 to hold "
                "nothing out, or a fraction that is at least one image"
            ) from error
        raise
    if jax.process_index() == 0:
        for note in splits.notes:
            print(note, file=sys.stderr, flush=True)
    return splits


def _check_batch_size(config: ml_collections.ConfigDict, split: data.Split) -> None:
    section, count = config.data, len(split)
    if section.batch_size <= count:
        return
    few = ""
    hint = f"add --config.data.batch_size={count} or a smaller number"
    if section.examples_per_class:
        classes = len(split.class_names)
        few = (
            f", {section.examples_per_class} of each of {classes} classes (data.examples_per_class)"
        )
        enough = -(-section.batch_size // classes)
        hint += f", or --config.data.examples_per_class={enough} or more (0: all images)"
    raise InputError(
        f"data.batch_size={section.batch_size} is larger than the training split of {count} images{few}; "
        f"{hint}"
    )


def make_model(config: ml_collections.ConfigDict, num_classes: int):
    """Returns the model that `config.model` describes."""
    section = config.model
    return models.create_model(
        section.name,
        num_classes,
        stem=section.stem or None,
        dtype=section.dtype,
        zero_init_residual=section.zero_init_residual,
        remat=section.remat,
    )


def total_steps(config: ml_collections.ConfigDict, num_examples: int) -> int:
    """Returns the updates in the run.

    Raises:
        InputError: unless exactly one of `train.steps` and `train.epochs` is positive.
    """
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
    return steps or max(1, in_steps(config, epochs, num_examples))


def in_steps(config: ml_collections.ConfigDict, epochs: float, num_examples: int) -> int:
    """Returns how many updates see `epochs` times the training split, rounded."""
    return round(epochs * num_examples / config.data.batch_size)


def make_intervals(
    config: ml_collections.ConfigDict, splits: dict[str, data.Split], total: int
) -> loops.Intervals:
    """Returns what happens when, in updates; intervals in steps win over those in epochs.

    Without a validation split there is nothing to evaluate before the end.
    """
    section = config.train
    eval_every = section.eval_every_steps
    if not eval_every and section.eval_every_epochs > 0:
        eval_every = max(1, in_steps(config, section.eval_every_epochs, len(splits["train"])))
    return loops.Intervals(
        total,
        # A short run still has some twenty points to a curve.
        log_every=min(section.log_every_steps, max(1, total // 20)),
        eval_every=eval_every if "validation" in splits else 0,
        checkpoint_every=section.checkpoint_every_steps,
    )


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
    config: ml_collections.ConfigDict, params: dict[str, Any], steps: int, num_examples: int
) -> Optimisation:
    """Returns what `config.freeze` and `config.optim` say of these parameters.

    Args:
        config: of the run.
        params: nested dict of arrays.
        steps: updates in the run.
        num_examples: of the training split, which makes steps of epochs.

    Raises:
        InputError: if a pattern matches nothing or a value is out of range.
    """
    schedule = make_schedule(config, config.optim.learning_rate, steps, num_examples)
    return _make_partition(config, params, schedule)


def make_schedule(
    config: ml_collections.ConfigDict,
    learning_rate: float | jax.Array,
    steps: int,
    num_examples: int,
) -> optax.Schedule:
    """Returns the schedule of `config.optim` with this peak, a number or data of the program."""
    section = config.optim
    warmup_steps = section.warmup_steps or in_steps(config, section.warmup_epochs, num_examples)
    # An empty value on the command line reads as one empty text.
    in_updates = [int(step) for step in section.step_steps if step != ""]
    boundaries = in_updates or [
        in_steps(config, float(epochs), num_examples)
        for epochs in section.step_epochs
        if epochs != ""
    ]
    _check_schedule(config, steps, warmup_steps, boundaries)
    with config_fields.naming(config, "optim.schedule", "optim.learning_rate"):
        return optim.make_schedule(
            section.schedule,
            learning_rate,
            steps,
            warmup_steps=warmup_steps,
            boundaries=tuple(boundaries),
            decay=section.step_decay,
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


def make_tx(
    config: ml_collections.ConfigDict,
    params: dict[str, Any],
    schedule: optax.Schedule,
    multipliers: dict[str, Any],
    frozen_mask: dict[str, Any],
    **regularisation: float | jax.Array,
) -> optax.GradientTransformation:
    """Returns the gradient transformation of `config.optim`.

    Args:
        config: of the run.
        params: nested dict of arrays; `multipliers` and `frozen_mask` have its leaves.
        schedule: step -> learning rate.
        multipliers: tree of floats.
        frozen_mask: tree of bools, True where frozen.
        **regularisation: `weight_decay` and `l2_sp` where they are not those of the config; numbers, or
            data of the program.
    """
    section = config.optim
    strengths = {"weight_decay": section.weight_decay, "l2_sp": section.l2_sp}
    names = ("nesterov", "momentum", "b1", "b2", "eps", "clip_norm", *strengths)
    with config_fields.naming(config, "optim.name", **{name: f"optim.{name}" for name in names}):
        return optim.make_optimizer(
            params,
            schedule,
            name=section.name,
            momentum=section.momentum,
            nesterov=section.nesterov,
            b1=section.b1,
            b2=section.b2,
            eps=section.eps,
            decay_bias_and_norm=section.decay_bias_and_norm,
            clip_norm=section.clip_norm,
            multipliers=multipliers,
            frozen_mask=frozen_mask,
            **(strengths | regularisation),
        )


def choose_boundary(
    config: ml_collections.ConfigDict, model, optimisation: Optimisation, image_size: int
) -> str | None:
    """Returns where activations are stored, or None where `cache.boundary` asks for none.

    Raises:
        InputError: if training on what is stored there would not be what the config says.
    """
    section = config.cache
    if not section.boundary:
        return None
    augments = config.augment.flip or config.augment.crop_padding
    if augments and section.views == 1:
        raise InputError(
            f"cache.views=1 stores every image as it is, but augment.flip={config.augment.flip} and "
            f"augment.crop_padding={config.augment.crop_padding} change it at every update; expected "
            "--config.augment.flip=False --config.augment.crop_padding=0, or cache.views above 1 (without a "
            "cache: --config.cache.boundary=; a sweep always has one)"
        )
    if section.views > 1 and not augments:
        raise InputError(
            f"cache.views={section.views}: without augment.flip and augment.crop_padding all views are "
            "the same; expected cache.views=1, or one of them"
        )
    return activations.choose_boundary(
        model,
        section.boundary,
        frozen_mask=optimisation.frozen_mask,
        frozen_norms=optimisation.frozen_norms,
        norm_policy=config.freeze.batch_norm,
        image_size=image_size,
    )


def _make_partition(
    config: ml_collections.ConfigDict, params: dict[str, Any], schedule: optax.Schedule
) -> Optimisation:
    # An empty value on the command line reads as one empty text.
    patterns = tuple(filter(None, config.freeze.patterns))
    with config_fields.naming(config, "freeze.strategy", "freeze.patterns"):
        frozen_mask = freezing.frozen_mask(params, config.freeze.strategy, patterns)
    rates = tuple(filter(None, config.optim.lr_multipliers))
    with config_fields.naming(config, "optim.lr_multipliers", "optim.layerwise_decay"):
        multipliers = optim.lr_multipliers(params, rates, config.optim.layerwise_decay)
    tx = make_tx(config, params, schedule, multipliers, frozen_mask)
    norms = freezing.frozen_norms(params, frozen_mask)
    return Optimisation(frozen_mask, norms, multipliers, schedule, tx)
