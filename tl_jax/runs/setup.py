"""From a config to a run that is checked to fit together, before anything is compiled or downloaded."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tl_jax import augment, data, features, models, objectives, optim, porting, trees
from tl_jax.augment import preprocessing
from tl_jax.compilation import Compilation, computed
from tl_jax.config import check as check_fields
from tl_jax.config import naming_fields, naming_phase, phase_configs, without_updates
from tl_jax.data import order
from tl_jax.errors import InputError, unknown
from tl_jax.parallel import sharding
from tl_jax.runs import augmentation, fitted, weights
from tl_jax.runs.class_weights import check_effective_beta
from tl_jax.runs.lengths import check_length, make_intervals, total_steps
from tl_jax.runs.network import (
    check_network,
    check_stoch_norm,
    check_trained_adapters,
    make_eval_forward,
    make_model,
)
from tl_jax.runs.numerics import make_compilation
from tl_jax.runs.objective import (
    Minimised,
    check_objective,
    check_stored,
    make_minimised,
    make_objective,
    reference_variables,
)
from tl_jax.runs.optimisation import (
    Optimisation,
    check_optimizer,
    make_averaging,
    make_optimisation,
    make_partition,
)
from tl_jax.runs.parts import NOTHING_GIVEN, Parts
from tl_jax.runs.solver import check_no_phases, check_solver, run_config
from tl_jax.runs.soup import check_soup, member_configs
from tl_jax.runs.soup import run_config as soup_config
from tl_jax.runs.source import source_config
from tl_jax.runs.source_head import (
    Relationship,
    check_effects,
    check_reaches_network,
    check_source_head,
    own_params,
    own_shapes,
)
from tl_jax.runs.splits import make_splits
from tl_jax.runs.teacher import teacher_config
from tl_jax.training import loops, steps
from tl_jax.training.averaging import Averaging
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
        augmentation: of the training images, and `mixings` of the training batches.
        optimisation: what moves and how.
        minimised: the objective, and the frozen networks that it looks at.
        averaging: of the weights; None for none.
        evaluator: whole passes over splits.
        mesh: the devices.
        compilation: of every program that computes with the network.
        intervals: what happens when, and at which updates it begins and ends.
        order: of the training examples.
        boundary: where the run's activations are stored, None for a run on images.
        inputs: what steps and evaluation read: `splits`, or, once `activation_cache.use` has made them,
            their activations.
        cache: statistics of those activations for `result.json`; None before.
        start: params and batch_stats before its first update; None: those of `initial`. Of what is frozen,
            those of any later update.
        own: parameters of objectives at the start of the run, {group: tree}.
        relationship: of the classes of source and data, once `relationship.use` has learned it; None before.
    """

    config: ml_collections.ConfigDict
    splits: data.Splits
    model: Any
    initial: weights.Initial
    preprocessing: preprocessing.Preprocessing
    deviations: list[str]
    augmentation: augment.Augmentation
    mixings: tuple[augment.Mixing, ...]
    optimisation: Optimisation
    minimised: Minimised
    averaging: Averaging | None
    evaluator: Evaluator
    mesh: jax.sharding.Mesh
    compilation: Compilation
    intervals: loops.Intervals
    order: order.Order
    boundary: str | None
    inputs: dict[str, Any]
    cache: dict[str, Any] | None = None
    start: dict[str, Any] | None = None
    own: dict[str, Any] = dataclasses.field(default_factory=dict)
    relationship: Relationship | None = None

    @property
    def first_step(self) -> int:
        """Completed updates when it begins: those of earlier phases."""
        return self.intervals.first_step

    @property
    def total_steps(self) -> int:
        """Completed updates when it ends."""
        return self.intervals.total_steps

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The splits that are evaluated, in the order in which devices store them."""
        return tuple(name for name in ("validation", "test") if name in self.splits)

    @property
    def may_store_on_devices(self) -> bool:
        """Whether data may be stored on the devices, where they fit."""
        return self.config.data.placement != "host" and self.config.parallel.mode == "jit"

    @property
    def mixing(self) -> steps.Mix | None:
        """What a step mixes its batch with; None for nothing."""
        return augment.make_mixing(self.mixings, len(self.splits["train"].class_names))

    @property
    def selected_by(self) -> str:
        """The metric on validation that chooses the best step, of `metrics.SELECTION`."""
        return self.config.train.select_by

    @property
    def variables(self) -> dict[str, Any]:
        """Params, those of objectives among them, and batch_stats before the first update.

        What its objective owns goes on from the phase before where that owned it too, and else begins as at the
        start.
        """
        start = self.initial.variables if self.start is None else self.start
        before = objectives.of_objectives(start["params"])
        own = {group: before.get(group, tree) for group, tree in self.own.items()}
        return {**start, "params": objectives.with_own(objectives.of_network(start["params"]), own)}

    @functools.cached_property
    def state_shapes(self) -> TrainState:
        """The shapes of the state (`jax.ShapeDtypeStruct`)."""
        related = self.relationship
        if self.minimised.source_head is not None and related is None:
            shape = (
                len(self.splits["train"].class_names),
                len(self.minimised.source_head.class_names),
            )
            related = Relationship(np.zeros(shape, np.float32), {})
        setup = dataclasses.replace(self, relationship=related)
        return jax.eval_shape(lambda: setup._state(lambda made, params: made(params)))

    @property
    def decoded_splits(self) -> list[data.InMemorySplit]:
        """The splits in memory from which all others are taken, each once."""
        wholes = {id(split.whole()[0]): split.whole()[0] for split in self.splits.values()}
        return [split for split in wholes.values() if isinstance(split, data.InMemorySplit)]

    def initial_state(self) -> TrainState:
        """Returns the state before the first update, on every device."""
        return sharding.replicate(self.mesh, self.initial_state_on_host())

    def initial_state_on_host(self) -> TrainState:
        """Returns the state before the first update; optimizer and average begin anew in every phase."""
        return self._state(computed)

    def _state(self, init: Callable[[Callable, Any], Any]) -> TrainState:
        params, batch_stats = (self.variables[name] for name in ("params", "batch_stats"))
        average = {}
        if self.averaging is not None:
            average = self.averaging.init(params, batch_stats)
        return TrainState(
            step=jnp.int32(self.first_step),
            seed=jnp.int32(self.config.seed),
            params=params,
            batch_stats=batch_stats,
            # One program instead of one for each shape of a leaf.
            opt_state=init(self.optimisation.tx.init, params),
            average=average,
            references=self._references(),
        )

    def _references(self) -> dict[str, Any]:
        start = self.boundary if self.cache is not None else None
        related = None if self.relationship is None else self.relationship.probabilities
        return reference_variables(
            self.minimised, self.initial.variables, self.model, start, related
        )

    def with_references(self, state: TrainState) -> TrainState:
        """Returns a restored state with the frozen networks that objectives look at, on every device."""
        return state.replace(references=sharding.replicate(self.mesh, self._references()))


def check_config(config: ml_collections.ConfigDict, parts: Parts = NOTHING_GIVEN) -> None:
    """Looks at all that can be judged without data and weights.

    Args:
        config: of the run.
        parts: objects that are given instead of by name.

    Raises:
        InputError: listing what is out of range, or naming what does not exist.
    """
    check_fields(config)
    if config.init.source:
        check_fields(source_config(config))
    check_optimizer(config, parts.optimizer)
    model = make_model(config, 1, parts)
    weights.find(config)
    # The names alone matter here; the size of the data's images is not known yet.
    side = config.data.image_size or 32
    variables = jax.eval_shape(
        lambda: models.init_variables(model, jax.random.key(0), (1, side, side, 3))
    )
    with naming_fields(config, "init.reset"):
        porting.reset_rules(trees.flatten(variables), "keep", tuple(config.init.reset))
    if config.init.batch_stats == "target" and not jax.tree.leaves(variables["batch_stats"]):
        raise InputError(
            f"init.batch_stats=target: {config.model.name} has no running statistics; expected weights"
        )
    phases = phase_configs(config)
    described = config.objective.teacher_source
    teacher = "teacher_source" if described else "teacher" if config.objective.teacher else ""
    if teacher and not any(phase.objective.distillation for phase in phases):
        raise InputError(
            f"objective.{teacher}={config.objective[teacher]!r} without objective.distillation has no effect; "
            "expected a weight above 0, or no teacher"
        )
    if described:
        teacher_config(config)
    check_soup(config)
    for number, member in enumerate(member_configs(config) if config.soup.name else (), 1):
        try:
            check_fields(member)
            check_config(member, parts)
        except InputError as error:
            raise InputError(f"soup.members, member {number}: {error}") from error
    fitted.check_rule(config)
    check_stoch_norm(config)
    check_effective_beta([phase.objective for phase in phases])
    check_no_phases(config)
    check_effects(phases, parts.objective)
    masks = []
    for number, phase in enumerate(phases):
        with naming_phase(config, number):
            if phase is not config:
                check_fields(phase)
                check_length(phase)
            masks.append(_check_phase(phase, parts, model, variables["params"]))
    check_trained_adapters(config, masks)


def _check_phase(
    config: ml_collections.ConfigDict, parts: Parts, model: Any, params: dict[str, Any]
) -> dict[str, Any]:
    """Looks at what a phase, or a run without phases, says of the network; `params` are shapes.

    Returns:
        Tree of bools like params, True where frozen.
    """
    asked, config = config, without_updates(config) if config.solver.name else config
    boundaries = models.before_head(model)
    if config.cache.boundary not in ("", "auto", *boundaries):
        raise unknown("cache.boundary", config.cache.boundary, ("auto", *boundaries))
    augmentation.make_augmentation(config, parts)
    augmentation.make_mixings(config, parts)
    check_objective(config, parts.objective)
    _check_views(config)
    augmentation.check_repeats(config)
    objective = make_objective(config, model, parts.objective)
    check_source_head(config, objective, model)
    schedule = optim.make_schedule("constant", config.optim.learning_rate, 1)
    params = objectives.with_own(params, own_shapes(config, objective, model))
    partition = make_partition(config, model, params, schedule, parts.optimizer)
    check_reaches_network(config, partition.frozen_mask)
    check_solver(asked, model, params, partition.frozen_mask)
    return partition.frozen_mask


def prepare(config: ml_collections.ConfigDict, parts: Parts = NOTHING_GIVEN) -> Setup:
    """Returns the run that `config` describes, having looked at everything it names; see `prepare_phases`.

    Raises:
        InputError: if it has phases, or as `prepare_phases`.
    """
    if config.phases:
        raise InputError(
            f"phases={tuple(map(tuple, config.phases))}: only finetune, pretrain, compare and "
            "cross_validate train in phases, and preview_augment shows them; expected --config.phases='()'"
        )
    if config.init.source:
        raise InputError(
            f"init.source={tuple(config.init.source)}: only finetune, compare and cross_validate train a run to "
            "start from; expected the folder of a finished run, as --config.init.weights=FOLDER"
        )
    if config.init.batch_stats != "weights":
        raise InputError(
            f"init.batch_stats={config.init.batch_stats}: only finetune, pretrain, compare, ablate and "
            "cross_validate estimate statistics; expected weights"
        )
    if config.objective.teacher_source:
        raise InputError(
            f"objective.teacher_source={tuple(config.objective.teacher_source)}: only finetune, pretrain, compare, "
            "ablate and cross_validate train a teacher first; expected the folder of a run, as objective.teacher"
        )
    if config.soup.name:
        raise InputError(
            f"soup.name={config.soup.name}: only finetune, pretrain, compare, ablate and cross_validate train "
            "members; expected soup.name=''"
        )
    if config.objective.delta_attention:
        raise InputError(
            "objective.delta_attention=True: only finetune, pretrain, compare, ablate and cross_validate learn the "
            "attention; expected False"
        )
    if config.solver.name:
        raise InputError(
            f"solver.name={config.solver.name}: only finetune, pretrain, compare, ablate and cross_validate solve "
            "for a head; expected solver.name=''"
        )
    (setup,) = prepare_phases(config, parts)
    return setup


def prepare_phases(
    config: ml_collections.ConfigDict, parts: Parts = NOTHING_GIVEN
) -> tuple[Setup, ...]:
    """Returns the phases of the run that `config` describes, one at least, having looked at everything it names.

    What needs neither data nor weights is checked first: typos are reported before any download. All phases
    have the same data, network and devices; each begins where the one before it ends. A run whose head is solved has
    one, of images as they are and activations before the head.

    Args:
        config: of the run.
        parts: objects that are given instead of by name.

    Raises:
        InputError: if fields, data or weights do not fit; nothing has been written then.
    """
    check_config(config, parts)
    if config.solver.name:
        config = run_config(config)
    elif config.soup.name:
        config = soup_config(config)
    mesh = sharding.make_mesh(config.parallel.devices)
    sharding.check_mode(config.parallel.mode)
    compilation = make_compilation(config, mesh)
    if not config.train.fit_to_data:
        _check_batches(config, mesh)
    splits = make_splits(config, parts.source)
    train_split = splits["train"]
    if config.train.fit_to_data:
        config = fitted.fitted(config, len(train_split))
        _check_batches(config, mesh)
    phases = phase_configs(config)
    orders = [
        order.Order(
            phase.seed,
            phase.data.batch_size,
            len(train_split),
            phase.cache.views if phase.cache.boundary else 1,
            phase.cache.draw,
            phase.data.order,
            phase.augment.repeats,
            order.examples_by_class(train_split.labels)
            if phase.data.order == order.BALANCED
            else (),
        )
        for phase in phases
    ]
    lengths = [total_steps(phase, len(train_split)) for phase in phases]
    num_classes = len(train_split.class_names)
    model = make_model(config, num_classes, parts)
    image_size = weights.input_size(config, train_split.image_shape)
    check_network(config, model, num_classes, image_size)
    initial = weights.make_initial(config, model, train_split.class_names, image_size)
    # What is seen of the pixels is the same in all phases, but for augmentation.
    spec, deviations = weights.make_preprocessing(config, initial, train_split.image_shape)
    evaluator = Evaluator(
        make_eval_forward(config, model),
        preprocessing.make_eval_transform(spec),
        mesh,
        config.data.eval_batch_size,
        config.data.workers,
        compilation,
    )
    shared = _Shared(parts, splits, model, initial, spec, deviations, evaluator, mesh, compilation)
    setups: list[Setup] = []
    for number, (phase, length) in enumerate(zip(phases, lengths, strict=True)):
        intervals = make_intervals(
            phase, splits, length, sum(lengths[:number]), number + 1 < len(phases)
        )
        with naming_phase(config, number):
            setups.append(_make_phase(shared, phase, intervals, orders[number]))
    return tuple(setups)


def _check_batches(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> None:
    """Raises InputError unless batches and their microbatches spread evenly over devices and groups of BatchNorm."""
    sharding.local_rows(mesh, config.data.batch_size)
    for number, phase in enumerate(phase_configs(config)):
        with (
            naming_phase(config, number),
            naming_fields(phase, "optim.accumulation", "data.batch_size"),
        ):
            steps.check_accumulation(phase.data.batch_size, phase.optim.accumulation, mesh.size)
            _check_groups(phase, mesh.size)


def _check_groups(config: ml_collections.ConfigDict, num_devices: int) -> None:
    """Raises InputError unless what BatchNorm sees at once splits into groups of `model.batch_norm_rows`."""
    batch_size, parts = config.data.batch_size, config.optim.accumulation
    origin = [f"data.batch_size={batch_size}", f"optim.accumulation={parts}"]
    if config.parallel.mode == "pmap":
        # A program for one device knows no rows of the others.
        parts *= num_devices
        origin += [f"parallel.mode=pmap on {num_devices} devices"]
    with naming_fields(config, "model.batch_norm_rows"):
        models.check_rows(
            config.model.batch_norm_rows, batch_size // parts, f"at once ({', '.join(origin)})"
        )


@dataclasses.dataclass(frozen=True)
class _Shared:
    """What the phases of a run have in common; see `Setup`."""

    parts: Parts
    splits: data.Splits
    model: Any
    initial: weights.Initial
    preprocessing: preprocessing.Preprocessing
    deviations: list[str]
    evaluator: Evaluator
    mesh: jax.sharding.Mesh
    compilation: Compilation


def _make_phase(
    shared: _Shared,
    phase: ml_collections.ConfigDict,
    intervals: loops.Intervals,
    examples: order.Order,
) -> Setup:
    """Returns one phase of a run, checked to fit together."""
    parts, model, spec = shared.parts, shared.model, shared.preprocessing
    params, batch_stats = (shared.initial.variables[name] for name in ("params", "batch_stats"))
    train_split = shared.splits["train"]
    length = intervals.total_steps - intervals.first_step
    minimised = make_minimised(phase, model, spec, train_split, parts.objective)
    own = own_params(
        phase,
        minimised.objective,
        model,
        num_classes=len(train_split.class_names),
        image_size=spec.image_size,
        source_head=minimised.source_head,
    )
    optimisation = make_optimisation(
        phase,
        model,
        objectives.with_own(params, own),
        length,
        len(train_split),
        parts.optimizer,
    )
    boundary = (
        models.before_head(model)[-1]
        if phase.solver.name
        else _choose_boundary(phase, model, optimisation, spec.image_size)
    )
    check_stored(minimised, model, boundary)
    if boundary is not None and minimised.passes_source and intervals.first_step:
        raise InputError(
            f"cache.boundary={phase.cache.boundary}: an objective looks at features of the network at the start of "
            "the run, and the activations of a later phase are those of another; expected no cache here"
        )
    augmented = augmentation.make_augmentation(phase, parts)
    mixings = augmentation.make_mixings(phase, parts)
    augmentation.check_operations(phase, augmented.operations, spec.image_size)
    shape: tuple[int, ...] = (spec.image_size, spec.image_size, 3)
    if mixings and boundary is not None:
        shape = models.boundary_shapes(model, spec.image_size)[boundary]
    num_classes = len(train_split.class_names)
    augmentation.check_mixings(phase, mixings, shared.mesh.size, shape, num_classes)
    of_teacher = () if minimised.teacher is None else minimised.teacher.deviations
    return Setup(
        config=phase,
        splits=shared.splits,
        model=model,
        initial=shared.initial,
        preprocessing=spec,
        deviations=[*shared.deviations, *of_teacher],
        augmentation=augmented,
        mixings=mixings,
        optimisation=optimisation,
        minimised=minimised,
        averaging=make_averaging(phase, optimisation, batch_stats, intervals, len(train_split)),
        evaluator=shared.evaluator,
        mesh=shared.mesh,
        compilation=shared.compilation,
        intervals=intervals,
        order=examples,
        boundary=boundary,
        inputs=shared.splits,
        own=own,
    )


def _choose_boundary(
    config: ml_collections.ConfigDict, model, optimisation: Optimisation, image_size: int
) -> str | None:
    """Returns where activations are stored, or None where `cache.boundary` asks for none.

    Raises:
        InputError: if training on what is stored there would not be what the config says.
    """
    if not config.cache.boundary:
        return None
    return features.choose_boundary(
        model,
        config.cache.boundary,
        frozen_mask=optimisation.frozen_mask,
        frozen_norms=optimisation.frozen_norms,
        norm_policy=config.freeze.batch_norm,
        image_size=image_size,
    )


def _check_views(config: ml_collections.ConfigDict) -> None:
    """Raises InputError unless a cache holds what training would see."""
    section = config.cache
    if not section.boundary:
        return
    if config.augment.once:
        raise InputError(
            f"augment.once=True with cache.boundary={section.boundary}: views of a cache are drawn by "
            "cache.view_seed; expected augment.once=False, or no cache (--config.cache.boundary=)"
        )
    augments = augmentation.changes_images(config)
    if augments and section.views == 1:
        raise InputError(
            f"cache.views=1 stores every image as it is, but augment.flip={config.augment.flip}, "
            f"augment.crop_padding={config.augment.crop_padding} and "
            f"augment.operations={augmentation.operations_of(config)} change it at every update; expected "
            "--config.augment.flip=False --config.augment.crop_padding=0 --config.augment.operations=, or "
            "cache.views above 1 (without a cache: --config.cache.boundary=; a sweep always has one)"
        )
    if section.views > 1 and not augments:
        raise InputError(
            f"cache.views={section.views}: without augment.flip, augment.crop_padding and augment.operations "
            "all views are the same; expected cache.views=1, or one of them"
        )
