"""From a config to a run that is checked to fit together, before anything is compiled or downloaded."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from tl_jax import data, features, models, optim
from tl_jax.augment import preprocessing
from tl_jax.config import FIELDS, naming_fields
from tl_jax.config import check as check_fields
from tl_jax.data import order
from tl_jax.errors import InputError, unknown
from tl_jax.parallel import sharding
from tl_jax.runs import weights
from tl_jax.runs.lengths import make_intervals, total_steps
from tl_jax.runs.optimisation import Optimisation, make_optimisation, make_partition
from tl_jax.runs.parts import NOTHING_GIVEN, Parts, is_own, must_be_given
from tl_jax.runs.splits import make_splits
from tl_jax.training import loops, steps
from tl_jax.training.evaluator import Evaluator
from tl_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that a run is made of, checked to fit together; nothing compiled yet.

    Attributes:
        config: what the user asked for.
        splits: `train`, `test` and, where one is held out, `validation`.
        model: the Linen module.
        initial: the variables before the first update, and where they came from.
        preprocessing: of the pixels; `deviations` from that of the weights, a line each.
        optimisation: what moves and how.
        evaluator: whole passes over splits.
        mesh: the devices.
        intervals: what happens when; `total_steps` updates in all.
        order: of the training examples.
        boundary: where the run's activations are stored, None for a run on images.
        inputs: what steps and evaluation read: `splits`, or, once `activation_cache.use` has made them,
            their activations.
        cache: statistics of those activations for `result.json`; None before.
    """

    config: ml_collections.ConfigDict
    splits: data.Splits
    model: Any
    initial: weights.Initial
    preprocessing: preprocessing.Preprocessing
    deviations: list[str]
    optimisation: Optimisation
    evaluator: Evaluator
    mesh: jax.sharding.Mesh
    intervals: loops.Intervals
    order: order.Order
    boundary: str | None
    inputs: dict[str, Any]
    cache: dict[str, Any] | None = None

    @property
    def total_steps(self) -> int:
        """Updates in the run."""
        return self.intervals.total_steps

    @functools.cached_property
    def state_shapes(self) -> TrainState:
        """The shapes of the state (`jax.ShapeDtypeStruct`)."""
        return jax.eval_shape(self.initial_state_on_host)

    @property
    def decoded_splits(self) -> list[data.InMemorySplit]:
        """The splits in memory from which all others are taken, each once."""
        wholes = {id(split.whole()[0]): split.whole()[0] for split in self.splits.values()}
        return [split for split in wholes.values() if isinstance(split, data.InMemorySplit)]

    def initial_state(self) -> TrainState:
        """Returns the state before the first update, on every device."""
        return sharding.replicate(self.mesh, self.initial_state_on_host())

    def initial_state_on_host(self) -> TrainState:
        """Returns the state before the first update."""
        params = self.initial.variables["params"]
        return TrainState(
            step=jnp.int32(0),
            seed=jnp.int32(self.config.seed),
            params=params,
            batch_stats=self.initial.variables["batch_stats"],
            # One program instead of one for each shape of a leaf.
            opt_state=jax.jit(self.optimisation.tx.init)(params),
        )


def check_config(config: ml_collections.ConfigDict, parts: Parts = NOTHING_GIVEN) -> None:
    """Looks at all that can be judged without data and weights.

    Args:
        config: of the run.
        parts: objects that are given instead of by name.

    Raises:
        InputError: listing what is out of range, or naming what does not exist.
    """
    check_fields(config)
    model = make_model(config, 1, parts)
    boundaries = models.before_head(model)
    if config.cache.boundary not in ("", "auto", *boundaries):
        raise unknown("cache.boundary", config.cache.boundary, ("auto", *boundaries))
    weights.find(config)
    # The names alone matter here; the size of the data's images is not known yet.
    side = config.data.image_size or 32
    shapes = jax.eval_shape(
        lambda: models.init_variables(model, jax.random.key(0), (1, side, side, 3))
    )["params"]
    make_partition(
        config, model, shapes, optim.make_schedule("constant", config.optim.learning_rate, 1)
    )


def make_model(
    config: ml_collections.ConfigDict, num_classes: int, parts: Parts = NOTHING_GIVEN
) -> models.Network:
    """Returns the network that `config.model` describes, or the one that is given.

    Fields of the section that are not at their defaults are options of the network.

    Raises:
        InputError: if the network is unknown or has no such option, or was given as an object before and is
            not now.
    """
    name = config.model.name
    options = {
        option: value
        for option, value in config.model.items()
        if option != "name" and value != FIELDS[f"model.{option}"].default
    }
    if is_own(name) and parts.model is None:
        raise must_be_given("model.name", name, "model")
    if parts.model is not None:
        if options:
            given = ", ".join(f"model.{option}={value!r}" for option, value in options.items())
            raise InputError(f"{given}: {name} takes no options; expected them set in the module")
        return parts.make_model(num_classes)
    named = [f"model.{option}" for option in options] or ["model.name"]
    with naming_fields(config, *named):
        return models.create_model(name, num_classes, **options)


def _check_network(
    config: ml_collections.ConfigDict, model: models.Network, num_classes: int, image_size: int
) -> None:
    """Compares a network of the user's with the contract, on images of the run's size."""
    name = config.model.name
    if is_own(name) or not models.is_built_in(name):
        models.check_network(model, num_classes, image_size)


def prepare(config: ml_collections.ConfigDict, parts: Parts = NOTHING_GIVEN) -> Setup:
    """Returns the run that `config` describes, having looked at everything it names.

    What needs neither data nor weights is checked first: typos are reported before any download.

    Args:
        config: of the run.
        parts: objects that are given instead of by name.

    Raises:
        InputError: if fields, data or weights do not fit; nothing has been written then.
    """
    check_config(config, parts)
    mesh = sharding.make_mesh(config.parallel.devices)
    sharding.check_mode(config.parallel.mode)
    sharding.local_rows(mesh, config.data.batch_size)
    with naming_fields(config, "optim.accumulation", "data.batch_size"):
        steps.check_accumulation(config.data.batch_size, config.optim.accumulation, mesh.size)
    splits = make_splits(config, parts.source)
    train_split = splits["train"]
    examples = order.Order(
        config.seed,
        config.data.batch_size,
        len(train_split),
        config.cache.views if config.cache.boundary else 1,
        config.cache.draw,
    )
    total = total_steps(config, len(train_split))
    num_classes = len(train_split.class_names)
    model = make_model(config, num_classes, parts)
    image_size = weights.input_size(config, train_split.image_shape)
    _check_network(config, model, num_classes, image_size)
    initial = weights.make_initial(config, model, train_split.class_names, image_size)
    spec, deviations = weights.make_preprocessing(config, initial, train_split.image_shape)
    optimisation = make_optimisation(
        config, model, initial.variables["params"], total, len(train_split)
    )
    boundary = _choose_boundary(config, model, optimisation, spec.image_size)
    evaluator = Evaluator(
        models.make_forward(model),
        preprocessing.make_eval_transform(spec),
        mesh,
        config.data.eval_batch_size,
        config.data.workers,
    )
    return Setup(
        config,
        splits,
        model,
        initial,
        spec,
        deviations,
        optimisation,
        evaluator,
        mesh,
        make_intervals(config, splits, total),
        examples,
        boundary,
        splits,
    )


def make_pure_step(setup: Setup, transform: Callable | None = None) -> Callable[..., Callable]:
    """Returns `make_step(axis_name)`, which returns the pure training step of a run.

    Args:
        setup: of the run; once it has activations, the step is that of the part after the boundary.
        transform: from what a batch holds to what the network takes, where not the usual one.
    """
    config = setup.config
    start = setup.boundary if setup.cache is not None else None
    if transform is None and start is None:
        transform = preprocessing.make_train_transform(setup.preprocessing)

    def make_step(axis_name):
        forward = models.make_forward(
            setup.model,
            frozen_norms=setup.optimisation.frozen_norms,
            norm_policy=config.freeze.batch_norm,
            axis_name=axis_name,
            start=start,
        )
        return steps.make_train_step(
            forward,
            transform or (lambda key, positions, stored: stored.astype(jnp.float32)),
            setup.optimisation.tx,
            frozen_mask=setup.optimisation.frozen_mask,
            label_smoothing=config.optim.label_smoothing,
            accumulation=config.optim.accumulation,
            axis_name=axis_name,
        )

    return make_step


def _choose_boundary(
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
    return features.choose_boundary(
        model,
        section.boundary,
        frozen_mask=optimisation.frozen_mask,
        frozen_norms=optimisation.frozen_norms,
        norm_policy=config.freeze.batch_norm,
        image_size=image_size,
    )
