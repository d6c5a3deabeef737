"""The pure training step of a run, and what its training images become before it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from tl_jax import augment
from tl_jax.runs.objective import exact_prefix, make_passes
from tl_jax.runs.setup import Setup
from tl_jax.training import steps


def make_transform(setup: Setup) -> steps.Transform | steps.Once:
    """Returns what becomes of training images before the network sees them."""
    transform = augment.make_train_transform(setup.preprocessing, setup.augmentation)
    return steps.Once(transform) if setup.config.augment.once else transform


def _as_stored(key: jax.Array, positions: jax.Array, stored: jax.Array) -> jax.Array:
    return stored.astype(jnp.float32)


def gradient_options(config: ml_collections.ConfigDict) -> steps.GradientOptions:
    """Returns how the gradient of a batch is taken."""
    return steps.GradientOptions(config.optim.accumulation, config.optim.sam_rho)


def make_pure_step(setup: Setup, transform: Callable | None = None) -> Callable[..., Callable]:
    """Returns `make_step(axis_name)`, which returns the pure training step of a run.

    Args:
        setup: of the run; once it has activations, the step is that of the part after the boundary.
        transform: from what a batch holds to what the network takes, where not the usual one.
    """
    config = setup.config
    start = setup.boundary if setup.cache is not None else None
    prefix = None
    # In a later phase the frozen part need not be that of the source any more.
    if setup.minimised.passes_source and not setup.first_step:
        prefix = exact_prefix(
            setup.model,
            setup.optimisation.frozen_mask,
            setup.optimisation.frozen_norms,
            config.freeze.batch_norm,
            setup.preprocessing.image_size,
        )
    seen: steps.Transform | steps.Once
    if transform is not None:
        seen = transform
    elif start is None:
        seen = make_transform(setup)
    else:
        seen = _as_stored

    def make_step(axis_name):
        passes = make_passes(
            setup.minimised,
            setup.model,
            setup.preprocessing,
            start=start,
            prefix=prefix,
            frozen_norms=setup.optimisation.frozen_norms,
            norm_policy=config.freeze.batch_norm,
            axis_name=axis_name,
        )
        step = steps.make_train_step(
            passes,
            seen,
            setup.optimisation.tx,
            frozen_mask=setup.optimisation.frozen_mask,
            objective=setup.minimised.objective,
            gradient=gradient_options(config),
            mixing=setup.mixing,
            axis_name=axis_name,
        )
        return step if setup.averaging is None else setup.averaging.averaged(step)

    return make_step
