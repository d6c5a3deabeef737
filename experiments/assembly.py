"""From a config to the library's objects: splits, model, variables, preprocessing, freezing, optimizer."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from tl_jax import data, freezing, models, optim, porting
from tl_jax.errors import InputError, unknown
from tl_jax.preprocessing import Preprocessing

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# Above anything that any registered network was trained with: a larger side is a slip of the pen, which
# would end in an allocation failure after the run folder was made.
LARGEST_IMAGE_SIZE = 4096
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def make_splits(config: ml_collections.ConfigDict) -> dict[str, data.Split]:
    """Returns the splits `train`, `test` and, where a part of train is held out, `validation`."""
    section = config.data
    return data.load_splits(
        section.name,
        data_dir=section.data_dir or None,
        train=section.train_split,
        test=section.test_split,
        validation=section.validation_split,
        validation_fraction=section.validation_fraction,
        examples_per_class=section.examples_per_class,
        seed=section.seed,
        image_size=section.image_size,
    )


def make_model(config: ml_collections.ConfigDict, num_classes: int):
    """Returns the model that `config.model` describes."""
    section = config.model
    if section.dtype not in DTYPES:
        raise unknown("model.dtype", section.dtype, DTYPES)
    return models.create_model(
        section.name,
        num_classes,
        stem=section.stem or None,
        dtype=DTYPES[section.dtype],
        zero_init_residual=section.zero_init_residual,
    )


@dataclasses.dataclass(frozen=True)
class Initial:
    """Where a run starts.

    Attributes:
        variables: {"params", "batch_stats"}.
        preprocessing: what the weights were trained with; None where nobody says.
        port_report: the audit of ported weights; None for random ones.
    """

    variables: dict[str, Any]
    preprocessing: dict[str, Any] | None
    port_report: dict[str, Any] | None


def make_initial(config: ml_collections.ConfigDict, model) -> Initial:
    """Returns the variables that training starts from: ported, from a run folder, or random."""
    key = jax.random.key(config.seed)
    weights = config.init.weights
    if not weights:
        return Initial(models.init_variables(model, key), None, None)
    run_folder = pathlib.Path(weights).expanduser()
    if run_folder.is_dir():
        weights = str(run_folder / EXPORTED_WEIGHTS)
        if not pathlib.Path(weights).is_file():
            raise InputError(
                f"init.weights={run_folder}: no {EXPORTED_WEIGHTS} in this folder; expected a finished run, "
                f"a weights file, or one of models.list_pretrained()"
            )
    variables, report = porting.load_pretrained(weights, model, head=config.init.head, key=key)
    return Initial(variables, _preprocessing_of(weights), report.to_json())


EXPORTED_WEIGHTS = "weights.safetensors"
METADATA_KEY = "tl_jax"


def _preprocessing_of(weights: str) -> dict[str, Any] | None:
    path = pathlib.Path(weights).expanduser()
    if path.suffix == ".safetensors" and path.is_file():
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        if METADATA_KEY in metadata:
            return json.loads(metadata[METADATA_KEY])["preprocessing"]
    if weights in models.list_pretrained():
        known = models.get_pretrained(weights)
        return {
            "mean": known.mean,
            "std": known.std,
            "interpolation": known.interpolation,
            "image_size": known.image_size,
            "resize": known.resize_size,
        }
    return None


def make_preprocessing(
    config: ml_collections.ConfigDict, initial: Initial, image_shape: tuple[int, int, int]
) -> tuple[Preprocessing, list[str]]:
    """Returns the preprocessing and a line for each deviation from that of the weights.

    The weights decide unless the config does. A stored size is resized to the network's input size;
    where neither says one, images keep the size at which they are stored. Where the config asks for
    another image size only, the resize before the centre crop keeps its proportion to it.

    Raises:
        InputError: if a value is out of range.
    """
    if not 0 <= config.data.image_size <= LARGEST_IMAGE_SIZE:
        raise InputError(
            f"data.image_size={config.data.image_size}: expected 0 (as the weights say, else as "
            f"stored) or 1 to {LARGEST_IMAGE_SIZE} pixels"
        )
    own = initial.preprocessing or {
        "mean": CIFAR10_MEAN,
        "std": CIFAR10_STD,
        "interpolation": "bilinear",
        "image_size": image_shape[0],
        "resize": 0,
    }
    chosen = {
        "mean": config.preprocess.mean,
        "std": config.preprocess.std,
        "interpolation": config.preprocess.interpolation,
        "image_size": config.data.image_size,
        "resize": config.preprocess.resize,
    }
    used, deviations = {}, []
    for name, value in chosen.items():
        theirs = tuple(own[name]) if isinstance(own[name], (list, tuple)) else own[name]
        if name == "resize":
            theirs = round(theirs * used["image_size"] / own["image_size"])
        # A config read back from its JSON holds lists.
        used[name] = (
            tuple(map(float, value)) if isinstance(theirs, tuple) and value else value or theirs
        )
        if initial.preprocessing is not None and used[name] != theirs:
            deviations.append(
                f"preprocessing {name} is {used[name]}, the weights were trained with {theirs}"
            )
    if config.init.weights and initial.preprocessing is None:
        deviations.append(
            f"{config.init.weights} does not say what it was trained with; used: mean {used['mean']}, "
            f"std {used['std']}, {used['interpolation']} (config.preprocess changes it)"
        )
    spec = Preprocessing(
        image_size=used["image_size"],
        resize=used["resize"] or None,
        interpolation=used["interpolation"],
        mean=used["mean"],
        std=used["std"],
        crop_padding=config.augment.crop_padding,
        flip=config.augment.flip,
    )
    return spec, deviations


def describe_preprocessing(spec: Preprocessing) -> dict[str, Any]:
    """Returns what a network's input must look like, as plain values: the inverse of reading it back."""
    return {
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "image_size": spec.image_size,
        "resize": spec.resize or 0,
    }


def check_training(config: ml_collections.ConfigDict) -> None:
    """Raises InputError for what would only be noticed while the first update is traced."""
    problems = []
    if not 0 <= config.seed < 2**31:
        problems.append(f"seed={config.seed}: expected an integer from 0 to 2147483647")
    if not 0 <= config.optim.label_smoothing < 1:
        problems.append(
            f"optim.label_smoothing={config.optim.label_smoothing}: expected a number in [0, 1)"
        )
    if problems:
        raise InputError("\n".join(problems))


def total_steps(config: ml_collections.ConfigDict, num_examples: int) -> int:
    """Returns the updates in the run.

    Raises:
        InputError: unless exactly one of `train.steps` and `train.epochs` is positive.
    """
    steps, epochs = config.train.steps, config.train.epochs
    if (steps > 0) == (epochs > 0):
        raise InputError(f"train.steps={steps}, train.epochs={epochs}: exactly one must be above 0")
    return steps or max(1, in_steps(config, epochs, num_examples))


def in_steps(config: ml_collections.ConfigDict, epochs: float, num_examples: int) -> int:
    """Returns how many updates see `epochs` times the training split, rounded."""
    return round(epochs * num_examples / config.data.batch_size)


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
    """Returns what `config.freeze` and `config.optim` say of these parameters."""
    section = config.optim
    frozen_mask = freezing.frozen_mask(params, config.freeze.strategy, config.freeze.patterns)
    if section.warmup_steps and section.warmup_epochs:
        raise InputError("optim.warmup_steps and optim.warmup_epochs: at most one may be above 0")
    warmup = section.warmup_steps or in_steps(config, section.warmup_epochs, num_examples)
    schedule = optim.make_schedule(
        section.schedule,
        section.learning_rate,
        steps,
        warmup_steps=warmup,
        boundaries=tuple(in_steps(config, float(e), num_examples) for e in section.step_epochs),
        decay=section.step_decay,
        final_fraction=section.final_fraction,
    )
    multipliers = optim.lr_multipliers(params, section.lr_multipliers, section.layerwise_decay)
    tx = optim.make_optimizer(
        params,
        schedule,
        name=section.name,
        momentum=section.momentum,
        nesterov=section.nesterov,
        b1=section.b1,
        b2=section.b2,
        eps=section.eps,
        weight_decay=section.weight_decay,
        decay_bias_and_norm=section.decay_bias_and_norm,
        clip_norm=section.clip_norm,
        multipliers=multipliers,
        frozen_mask=frozen_mask,
    )
    norms = freezing.frozen_norms(params, frozen_mask)
    return Optimisation(frozen_mask, norms, multipliers, schedule, tx)
