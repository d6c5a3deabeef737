"""From a config to the library's objects: splits, model, freezing, optimizer."""

import dataclasses
import sys
from typing import Any

import jax
import ml_collections
import optax

from experiments import weights
from tl_jax import activations, data, freezing, loops, models, optim, resident
from tl_jax.data import order
from tl_jax.errors import InputError, unknown


def check(config: ml_collections.ConfigDict) -> None:
    """Looks at all that can be judged without data and weights.

    Raises:
        InputError: listing what is out of range, or naming what does not exist.
    """
    ranges = {
        "seed": (config.seed, 0, 2**31 - 1),
        "data.seed": (config.data.seed, 0, 2**31 - 1),
        "data.workers": (config.data.workers, 0, 1024),
        "data.image_size": (config.data.image_size, 0, weights.LARGEST_IMAGE_SIZE),
        "preprocess.resize": (config.preprocess.resize, 0, weights.LARGEST_IMAGE_SIZE),
        "cache.views": (config.cache.views, 1, 10_000),
        "cache.view_seed": (config.cache.view_seed, 0, 2**31 - 1),
        "cache.verify": (config.cache.verify, 0, 2**31 - 1),
        "train.updates_per_dispatch": (config.train.updates_per_dispatch, 0, 10_000),
        "train.log_every_steps": (config.train.log_every_steps, 1, 2**31 - 1),
        "train.eval_every_steps": (config.train.eval_every_steps, 0, 2**31 - 1),
        "train.checkpoint_every_steps": (config.train.checkpoint_every_steps, 0, 2**31 - 1),
        "report.mistakes": (config.report.mistakes, 0, 10_000),
    }
    problems = [
        f"{name}={value}: expected an integer from {least} to {most}"
        for name, (value, least, most) in ranges.items()
        if not least <= value <= most
    ]
    if not 0 <= config.optim.label_smoothing < 1:
        problems.append(
            f"optim.label_smoothing={config.optim.label_smoothing}: expected a number in [0, 1)"
        )
    if problems:
        raise InputError("\n".join(problems))
    choices = {
        "data.placement": (config.data.placement, resident.PLACEMENTS),
        "cache.storage": (config.cache.storage, activations.STORAGES),
        "cache.dtype": (config.cache.dtype, activations.DTYPES),
        "cache.draw": (config.cache.draw, order.DRAWS),
    }
    for name, (value, known) in choices.items():
        if value not in known:
            raise unknown(name, value, known)
    weights.find(config)
    model = make_model(config, 1)
    shapes = jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0)))["params"]
    _make_partition(config, shapes, optim.make_schedule("constant", config.optim.learning_rate, 1))
    models.make_forward(model, norm_policy=config.freeze.batch_norm)


def make_splits(config: ml_collections.ConfigDict) -> data.Splits:
    """Returns the splits `train`, `test` and, where a part of train is held out, `validation`.

    Labels are loaded; images may still be decoding, see `data.wait_for`. What the user should know
    of the data is printed to stderr, by the first process.
    """
    section = config.data
    splits = data.load_splits(
        section.name,
        data_dir=section.data_dir or None,
        train=section.train_split,
        test=section.test_split,
        validation=section.validation_split,
        validation_fraction=section.validation_fraction,
        examples_per_class=section.examples_per_class,
        seed=section.seed,
        image_size=weights.host_size(config),
        wait=False,
        cache_dir=section.cache_dir or None,
    )
    if jax.process_index() == 0:
        for note in splits.notes:
            print(note, file=sys.stderr, flush=True)
    return splits


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
        raise InputError(
            f"train.steps={steps}, train.epochs={epochs}: exactly one must be above 0, set the other to 0"
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
    for name in ("warmup", "step"):
        if section[f"{name}_steps"] and section[f"{name}_epochs"]:
            raise InputError(f"optim.{name}_steps and optim.{name}_epochs: give one of them")
    boundaries = section.step_steps or [
        in_steps(config, float(epochs), num_examples) for epochs in section.step_epochs
    ]
    return optim.make_schedule(
        section.schedule,
        learning_rate,
        steps,
        warmup_steps=section.warmup_steps or in_steps(config, section.warmup_epochs, num_examples),
        boundaries=tuple(int(step) for step in boundaries),
        decay=section.step_decay,
        final_fraction=section.final_fraction,
    )


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
            "augment.flip=False and augment.crop_padding=0, or cache.views above 1"
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
    frozen_mask = freezing.frozen_mask(params, config.freeze.strategy, patterns)
    rates = tuple(filter(None, config.optim.lr_multipliers))
    multipliers = optim.lr_multipliers(params, rates, config.optim.layerwise_decay)
    tx = make_tx(config, params, schedule, multipliers, frozen_mask)
    norms = freezing.frozen_norms(params, frozen_mask)
    return Optimisation(frozen_mask, norms, multipliers, schedule, tx)
