"""The range or the choices of each field of a config that can be judged alone."""

import math

import ml_collections

from configs import base
from experiments import config_fields, weights
from tl_jax import activations, models, optim, porting, resident, sharding
from tl_jax.data import order
from tl_jax.errors import InputError, unknown
from tl_jax.models.batch_norm import NORM_POLICIES
from tl_jax.models.registry import DTYPES
from tl_jax.models.rematerialisation import REMATS

_LARGEST = 2**31 - 1
_INTEGERS = {  # from the first number to the second
    "seed": (0, _LARGEST),
    "data.seed": (0, _LARGEST),
    "data.examples_per_class": (0, _LARGEST),
    "data.batch_size": (1, _LARGEST),
    "data.eval_batch_size": (1, _LARGEST),
    "data.workers": (0, 1024),
    "data.image_size": (0, weights.LARGEST_IMAGE_SIZE),
    "preprocess.resize": (0, weights.LARGEST_IMAGE_SIZE),
    "augment.crop_padding": (0, weights.LARGEST_IMAGE_SIZE),
    "optim.warmup_steps": (0, _LARGEST),
    "optim.accumulation": (1, _LARGEST),
    "cache.views": (1, 10_000),
    "cache.view_seed": (0, _LARGEST),
    "cache.verify": (0, _LARGEST),
    "train.steps": (0, _LARGEST),
    "train.updates_per_dispatch": (0, 10_000),
    "train.log_every_steps": (1, _LARGEST),
    "train.eval_every_steps": (0, _LARGEST),
    "train.checkpoint_every_steps": (0, _LARGEST),
    "parallel.devices": (0, _LARGEST),
    "report.mistakes": (0, 10_000),
}
_NUMBERS = {
    "data.validation_fraction": "[0, 1)",
    "optim.learning_rate": "[0, inf)",
    "optim.momentum": "[0, 1)",
    "optim.b1": "[0, 1)",
    "optim.b2": "[0, 1)",
    "optim.eps": "(0, inf)",
    "optim.weight_decay": "[0, inf)",
    "optim.l2_sp": "[0, inf)",
    "optim.clip_norm": "[0, inf)",
    "optim.warmup_epochs": "[0, inf)",
    "optim.step_decay": "(0, 1]",
    "optim.final_fraction": "[0, 1]",
    "optim.layerwise_decay": "(0, 1]",
    "optim.label_smoothing": "[0, 1)",
    "train.epochs": "[0, inf)",
    "train.eval_every_epochs": "[0, inf)",
    "train.checkpoint_every_seconds": "[0, inf)",
}
_CHOICES = {
    "model.dtype": DTYPES,
    "model.remat": REMATS,
    "init.head": porting.HEAD_CHOICES,
    "preprocess.interpolation": ("", "bilinear", "bicubic"),
    "freeze.batch_norm": NORM_POLICIES,
    "optim.name": optim.OPTIMIZERS,
    "optim.schedule": optim.SCHEDULES,
    "parallel.mode": sharding.MODES,
    "data.placement": resident.PLACEMENTS,
    "cache.storage": activations.STORAGES,
    "cache.dtype": activations.DTYPES,
    "cache.draw": order.DRAWS,
}


def check(config: ml_collections.ConfigDict) -> None:
    """Looks at the type and the value of every field of base.

    Raises:
        InputError: listing all fields that have another type, or else all that are out of range.
    """
    values, defaults = config_fields.flat(config), config_fields.flat(base.get_config())
    mistyped = [
        config_fields.type_problem(name, values[name], default)
        for name, default in defaults.items()
    ]
    if any(mistyped):
        raise InputError("\n".join(filter(None, mistyped)))
    problems = [
        f"{name}={values[name]}: expected an integer from {least} to {most}"
        for name, (least, most) in _INTEGERS.items()
        if not least <= values[name] <= most
    ]
    problems += [
        f"{name}={values[name]}: expected a number in {interval}"
        for name, interval in _NUMBERS.items()
        if not _is_inside(values[name], interval)
    ]
    choices = {"model.name": models.list_models(), **_CHOICES}
    problems += [
        str(unknown(name, values[name], known))
        for name, known in choices.items()
        if values[name] not in known
    ]
    for name in ("mean", "std"):
        given = [value for value in config.preprocess[name] if value != ""]
        interval = "[0, 1]" if name == "mean" else "(0, 1]"
        if len(given) not in (0, 3) or not all(_is_inside(value, interval) for value in given):
            problems.append(
                f"preprocess.{name}={tuple(given)}: {name} has {len(given)} channels; expected numbers in "
                f"{interval}, three of them, or none: as the weights say"
            )
    if not config.data.train_split:
        problems.append("data.train_split='': expected a split, such as train or train[:80%]")
    if problems:
        raise InputError("\n".join(problems))


def _is_inside(value: float, interval: str) -> bool:
    """Returns whether a number is in an interval such as `[0, 1)`."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = low <= value if interval[0] == "[" else low < value
    return (
        math.isfinite(value) and above and (value <= high if interval[-1] == "]" else value < high)
    )
