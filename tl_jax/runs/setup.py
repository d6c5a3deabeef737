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
from tl_jax.config import check as check_fields
from tl_jax.config import naming_fields, naming_phase, phase_configs
from tl_jax.data import order
from tl_jax.errors import InputError, unknown
from tl_jax.parallel import sharding
from tl_jax.runs import weights
from tl_jax.runs.lengths import check_length, make_intervals, total_steps
from tl_jax.runs.optimisation import Optimisation, make_optimisation, make_partition
from tl_jax.runs.parts import NOTHING_GIVEN, Parts
from tl_jax.runs.splits import make_splits
from tl_jax.training import loops, steps
from tl_jax.training.evaluator import Evaluator
from tl_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that a run, or one of its phases, is made of, checked to fit together; nothing compiled yet.

    Attributes:
        config: what the user asked for.
        splits: `train`, `test` and, where one is held out, `validation`.
        model: the Linen module.
        initial: the variables before the first update, and where they came from.
        preprocessing: of the pixels; `deviations` from that of the weights, a line each.
        optimisation: what moves and how.
        evaluator: whole passes over splits.
        mesh: the devices.
        intervals: what happens when, and at which updates it begins and ends.
        order: of the training examples.
        boundary: where the run's activations are stored, None for a run on images.
        inputs: what steps and evaluation read: `splits`, or, once `activation_cache.use` has made them,
            their activations.
        cache: statistics of those activations for `result.json`; None before.
        start: params and batch_stats before its first update; None: those of `initial`. Of what is frozen,
            those of any later update.
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
    start: dict[str, Any] | None = None

    @property
    def first_step(self) -> int:
        """Completed updates when it begins: those of earlier phases."""
        return self.intervals.first_step

    @property
    def total_steps(self) -> int:
        """Completed updates when it ends."""
        return self.intervals.total_steps

    @property
    def variables(self) -> dict[str, Any]:
        """Params and batch_stats before the first update."""
        return self.initial.variables if self.start is None else self.start

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
        """Returns the state before the first update; that of the optimizer is fresh in every phase."""
        params = self.variables["params"]
        return TrainState(
            step=jnp.int32(self.first_step),
            seed=jnp.int32(self.config.seed),
            params=params,
            batch_stats=self.variables["batch_stats"],
            # One program instead of one for each shape of a leaf.
            opt_state=jax.jit(self.optimisation.tx.init)(params),
        )


def check_config(config: ml_collections.ConfigDict) -> None:
    """Looks at all that can be judged without data and weights.

    Raises:
        InputError: listing what is out of range, or naming what does not exist.
    """
    check_fields(config)
    with naming_fields(config, "model.stem"):
        model = make_model(config, 1)
    weights.find(config)
    shapes = jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0)))["params"]
    for number, phase in enumerate(phase_configs(config)):
        with naming_phase(config, number):
            if phase is not config:
                check_fields(phase)
                check_length(phase)
            _check_phase(phase, model, shapes)


def _check_phase(config: ml_collections.ConfigDict, model, params: dict[str, Any]) -> None:
    """Looks at what a phase, or a run without phases, says of the network; `params` are shapes."""
    boundaries = model.boundaries[: model.boundaries.index("pool") + 1]
    if config.cache.boundary not in ("", "auto", *boundaries):
        raise unknown("cache.boundary", config.cache.boundary, ("auto", *boundaries))
    make_partition(config, params, optim.make_schedule("constant", config.optim.learning_rate, 1))


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


def prepare(config: ml_collections.ConfigDict, parts: Parts = NOTHING_GIVEN) -> Setup:
    """Returns the run that `config` describes, having looked at everything it names; see `prepare_phases`.

    Raises:
        InputError: if it has phases, or as `prepare_phases`.
    """
    if config.phases:
        raise InputError(
            f"phases={tuple(map(tuple, config.phases))}: only finetune, pretrain and compare train in phases; "
            "expected --config.phases='()'"
        )
    (setup,) = prepare_phases(config, parts)
    return setup


def prepare_phases(
    config: ml_collections.ConfigDict, parts: Parts = NOTHING_GIVEN
) -> tuple[Setup, ...]:
    """Returns the phases of the run that `config` describes, one at least, having looked at everything it names.

    What needs neither data nor weights is checked first: typos are reported before any download. All phases
    have the same data, network and devices; each begins where the one before it ends.

    Args:
        config: of the run.
        parts: objects that are given instead of by name.

    Raises:
        InputError: if fields, data or weights do not fit; nothing has been written then.
    """
    check_config(config)
    mesh = sharding.make_mesh(config.parallel.devices)
    sharding.check_mode(config.parallel.mode)
    sharding.local_rows(mesh, config.data.batch_size)
    phases = phase_configs(config)
    for number, phase in enumerate(phases):
        with (
            naming_phase(config, number),
            naming_fields(phase, "optim.accumulation", "data.batch_size"),
        ):
            steps.check_accumulation(phase.data.batch_size, phase.optim.accumulation, mesh.size)
    splits = make_splits(config, parts.source)
    train_split = splits["train"]
    orders = [
        order.Order(
            phase.seed,
            phase.data.batch_size,
            len(train_split),
            phase.cache.views if phase.cache.boundary else 1,
            phase.cache.draw,
        )
        for phase in phases
    ]
    lengths = [total_steps(phase, len(train_split)) for phase in phases]
    model = make_model(config, len(train_split.class_names))
    initial = weights.make_initial(config, model, train_split.class_names)
    # What is seen of the pixels is the same in all phases, but for augmentation.
    spec, deviations = weights.make_preprocessing(config, initial, train_split.image_shape)
    evaluator = Evaluator(
        models.make_forward(model),
        preprocessing.make_eval_transform(spec),
        mesh,
        config.data.eval_batch_size,
        config.data.workers,
    )
    setups = []
    for number, (phase, length) in enumerate(zip(phases, lengths, strict=True)):
        with naming_phase(config, number):
            spec, _ = weights.make_preprocessing(phase, initial, train_split.image_shape)
            optimisation = make_optimisation(
                phase, initial.variables["params"], length, len(train_split)
            )
            boundary = _choose_boundary(phase, model, optimisation, spec.image_size)
        first_step, goes_on = sum(lengths[:number]), number + 1 < len(phases)
        setups.append(
            Setup(
                phase,
                splits,
                model,
                initial,
                spec,
                deviations,
                optimisation,
                evaluator,
                mesh,
                make_intervals(phase, splits, length, first_step, goes_on),
                orders[number],
                boundary,
                splits,
            )
        )
    return tuple(setups)


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
