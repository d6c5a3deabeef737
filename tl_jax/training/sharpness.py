"""Sharpness-aware minimisation: the gradient is taken where the loss is highest nearby.

g: the gradient of the trainable parameters w; its norm is over all of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tl_jax.training.state import TrainState

# (state, batch_stats, rows, key) -> (gradients, new batch_stats, metrics).
Gradients = Callable[..., tuple[Any, Any, dict[str, jax.Array]]]

# So that a gradient of 0 leaves the parameters where they are.
_TINY = 1e-12


def aware(
    gradients: Gradients, rho: float, frozen_mask: dict[str, Any], axis_name: str | None
) -> Gradients:
    """Returns gradients at w + rho g / |g|, with the statistics and metrics of w.

    Both passes see the same images with the same dropout. BatchNorm records its statistics in the first pass alone,
    and normalises by the batch in both.

    Args:
        gradients: at the parameters of a state.
        rho: the length of the step to where the loss is higher, above 0.
        frozen_mask: tree of bools like params, True where frozen; such leaves stay and do not count in |g|.
        axis_name: the mapped axis (pmap) over which the first gradient is averaged, so that |g| is that of the global
            batch, as under jit; None where arrays are global. The paper's own runs perturb on each device by itself.

    Source: Foret et al. 2021 (arXiv:2010.01412), equations 2 and 3, p = 2, the second-order term dropped. The code of
    the authors, google-research/sam, has weight decay in the loss, and so in g; here it is the optimizer's alone.
    """

    def sharp(state: TrainState, batch_stats: Any, rows: Any, key: jax.Array):
        first, new_stats, measured = gradients(state, batch_stats, rows, key)
        if axis_name is not None:
            first = jax.lax.pmean(first, axis_name)
        length = rho / (norm_of_trainable(first, frozen_mask) + _TINY)
        params = jax.tree.map(
            lambda frozen, leaf, grad: leaf if frozen else leaf + length * grad,
            frozen_mask,
            state.params,
            first,
        )
        second, _, _ = gradients(state.replace(params=params), batch_stats, rows, key)
        return second, new_stats, measured

    return sharp


def norm_of_trainable(grads: dict[str, Any], frozen_mask: dict[str, Any]) -> jax.Array:
    """Returns the float32 global norm of the gradient of what is trained."""
    trained = jax.tree.map(
        lambda frozen, grad: optax.MaskedNode() if frozen else grad, frozen_mask, grads
    )
    return optax.tree.norm(trained).astype(jnp.float32)
