"""From a config to a run that is checked to fit together, before anything is compiled or downloaded."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from experiments import assembly, config_fields, weights
from experiments.evaluator import Evaluator
from tl_jax import data, loops, models, preprocessing, sharding, steps
from tl_jax.data import order
from tl_jax.train_state import TrainState


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
    optimisation: assembly.Optimisation
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


def prepare(config: ml_collections.ConfigDict) -> Setup:
    """Returns the run that `config` describes, having looked at everything it names.

    What needs neither data nor weights is checked first: typos are reported before any download.

    Raises:
        InputError: if fields, data or weights do not fit; nothing has been written then.
    """
    assembly.check(config)
    mesh = sharding.make_mesh(config.parallel.devices)
    sharding.check_mode(config.parallel.mode)
    sharding.local_rows(mesh, config.data.batch_size)
    with config_fields.naming(config, "optim.accumulation", "data.batch_size"):
        steps.check_accumulation(config.data.batch_size, config.optim.accumulation, mesh.size)
    splits = assembly.make_splits(config)
    train_split = splits["train"]
    examples = order.Order(
        config.seed,
        config.data.batch_size,
        len(train_split),
        config.cache.views if config.cache.boundary else 1,
        config.cache.draw,
    )
    total = assembly.total_steps(config, len(train_split))
    model = assembly.make_model(config, len(train_split.class_names))
    initial = weights.make_initial(config, model, train_split.class_names)
    spec, deviations = weights.make_preprocessing(config, initial, train_split.image_shape)
    optimisation = assembly.make_optimisation(
        config, initial.variables["params"], total, len(train_split)
    )
    boundary = assembly.choose_boundary(config, model, optimisation, spec.image_size)
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
        assembly.make_intervals(config, splits, total),
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
