"""The network of a run, from its config or given as an object."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections

from tl_jax import freezing, models, trees
from tl_jax.config import FIELDS, naming_fields, phase_configs
from tl_jax.errors import InputError
from tl_jax.runs.parts import NOTHING_GIVEN, Parts, is_own, must_be_given

# Fields of the section that are not of the module: its name, how its programs are compiled, adapters.
_NOT_OPTIONS = ("name", "precision", "adapters", "adapter_rank")


def make_model(
    config: ml_collections.ConfigDict, num_classes: int, parts: Parts = NOTHING_GIVEN
) -> models.Network:
    """Returns the network that `config.model` describes, or the one that is given.

    Fields of the section that are not at their defaults are options of the network, but for `precision`.

    Raises:
        InputError: if the network is unknown or has no such option, or was given as an object before and is
            not now.
    """
    name = config.model.name
    options = {
        option: value
        for option, value in config.model.items()
        if option not in _NOT_OPTIONS and value != FIELDS[f"model.{option}"].default
    }
    if is_own(name) and parts.model is None:
        raise must_be_given("model.name", name, "model")
    if parts.model is not None:
        if options:
            given = ", ".join(f"model.{option}={value!r}" for option, value in options.items())
            raise InputError(f"{given}: {name} takes no options; expected them set in the module")
        return _adapted(config, parts.make_model(num_classes))
    named = [f"model.{option}" for option in options] or ["model.name"]
    with naming_fields(config, *named):
        return _adapted(config, models.create_model(name, num_classes, **options))


def _adapted(config: ml_collections.ConfigDict, model: models.Network) -> models.Network:
    """Returns the network with the adapters of `config.model`.

    Raises:
        InputError: if a rank is given and no adapter has one.
    """
    section = config.model
    if (
        section.adapters != "low_rank"
        and section.adapter_rank != FIELDS["model.adapter_rank"].default
    ):
        raise InputError(
            f"model.adapter_rank={section.adapter_rank} with model.adapters={section.adapters!r} has no effect; "
            "expected model.adapters=low_rank"
        )
    return (
        models.Adapted(model, section.adapters, section.adapter_rank) if section.adapters else model
    )


def check_stoch_norm(config: ml_collections.ConfigDict) -> None:
    """Raises InputError where each device would draw other channels for StochNorm."""
    updates = not config.solver.name
    if updates and config.model.stoch_norm and config.parallel.mode == "pmap":
        raise InputError(
            f"model.stoch_norm={config.model.stoch_norm} with parallel.mode=pmap: each device would draw other "
            "channels; expected parallel.mode=jit"
        )


def check_trained_adapters(config: ml_collections.ConfigDict, masks: Sequence[trees.Tree]) -> None:
    """Raises InputError where adapters are never trained: they would stay without effect.

    Args:
        config: of the run.
        masks: of each phase, trees of bools like params, True where frozen.
    """
    adapters = [
        frozen
        for mask in masks
        for name, frozen in trees.flatten(mask).items()
        if models.is_adapter(name)
    ]
    if config.model.adapters and all(adapters):
        frozen_by = f"freeze.strategy={config.freeze.strategy}"
        if config.freeze.patterns:
            frozen_by += f" with freeze.patterns={tuple(config.freeze.patterns)}"
        raise InputError(
            f"model.adapters={config.model.adapters}: {'every phase' if config.phases else frozen_by} freezes all "
            "adapters, which then have no effect; expected freeze.strategy=all_but_adapters, or no adapters "
            "(--config.model.adapters=)"
        )


def trainable_groups(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns the parts of the network of `config.model` that have parameters, from input to head.

    Raises:
        InputError: as `make_model`.
    """
    return _groups(make_model(config, 1), config.data.image_size or 32)


@functools.lru_cache(maxsize=32)
def _groups(model: models.Network, side: int) -> tuple[str, ...]:
    shapes = jax.eval_shape(
        lambda: models.init_variables(model, jax.random.key(0), (1, side, side, 3))
    )
    return freezing.groups(shapes["params"], model.boundaries)


def make_eval_forward(
    config: ml_collections.ConfigDict, model: models.Network
) -> Callable[..., tuple[jax.Array, Any]]:
    """Returns the forward pass of evaluations and predictions, as `train.eval_statistics` says.

    Raises:
        InputError: if each image is to have its own statistics, and the network drops features in training or the
            run is on stored activations.
    """
    if config.train.eval_statistics == "running":
        return models.make_forward(model)
    given = f"train.eval_statistics={config.train.eval_statistics}"
    for phase in phase_configs(config):
        if phase.cache.boundary:
            raise InputError(
                f"{given} with cache.boundary={phase.cache.boundary}: what is stored was computed with running "
                "statistics; expected running, or no cache (--config.cache.boundary=)"
            )
    if config.report.scatter:
        raise InputError(
            f"{given} with report.scatter={config.report.scatter}: features are drawn by running statistics; "
            "expected report.scatter=0"
        )
    dropout = getattr(model, "dropout", 0)
    if dropout:
        raise InputError(
            f"{given}: a network in training mode also drops features (model.dropout={dropout}); expected "
            "running, or model.dropout=0"
        )
    return models.one_by_one(model)


def check_network(
    config: ml_collections.ConfigDict, model: models.Network, num_classes: int, image_size: int
) -> None:
    """Compares a network of the user's with the contract, on images of the run's size."""
    name = config.model.name
    if is_own(name) or not models.is_built_in(name):
        models.check_network(model, num_classes, image_size)
