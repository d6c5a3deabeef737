"""Auto-RGN: the learning rate of each layer in proportion to the relative norm of its gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class RelativeGradientsState(NamedTuple):
    """The state of `by_relative_gradients`.

    Attributes:
        step: completed updates, int32.
        multipliers: {layer: float32 in [0, 1]}.
        inner: state of the transformation that is scaled.
    """

    step: jax.Array
    multipliers: dict[str, jax.Array]
    inner: Any


def by_relative_gradients(
    tx: optax.GradientTransformation, every: int
) -> optax.GradientTransformationExtraArgs:
    """Returns `tx` with the updates of each layer multiplied by its relative gradient norm.

    A layer is a module with its leaves, such as `stage1/block0/conv1`; its relative gradient norm is |g| / |w| over
    all of them, divided by the largest of all layers. It is computed at updates 0, `every`, 2 `every`, ... from the
    gradient of that batch (the paper averages over several). A layer whose parameters are all 0 has the whole rate.

    Args:
        tx: from gradients to updates, learning rate included.
        every: updates of an epoch, at least 1.

    Source: Lee et al. 2023 (arXiv:2210.11466), section 5, "Auto-RGN".
    """
    tx = optax.with_extra_args_support(tx)

    def init(params: Any) -> RelativeGradientsState:
        ones = {layer: jnp.float32(1) for layer in _by_layer(params)}
        return RelativeGradientsState(jnp.int32(0), ones, tx.init(params))

    def update(grads: Any, state: RelativeGradientsState, params: Any = None, **extra: Any):
        multipliers = jax.lax.cond(
            state.step % every == 0,
            lambda: _relative_norms(grads, params),
            lambda: state.multipliers,
        )
        updates, inner = tx.update(grads, state.inner, params, **extra)
        scaled = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * multipliers[_layer(path)].astype(leaf.dtype), updates
        )
        return scaled, RelativeGradientsState(state.step + 1, multipliers, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _relative_norms(grads: Any, params: Any) -> dict[str, jax.Array]:
    """Returns {layer: |g| / |w|, divided by the largest}."""
    of_grads, of_params = _by_layer(grads), _by_layer(params)
    norms = {
        layer: jnp.where(of_params[layer] > 0, jnp.sqrt(squares / of_params[layer]), 0.0)
        for layer, squares in of_grads.items()
    }
    largest = jnp.max(jnp.stack(list(norms.values())))
    return {
        layer: jnp.where(
            of_params[layer] > 0, jnp.where(largest > 0, norm / largest, 0.0), 1.0
        ).astype(jnp.float32)
        for layer, norm in norms.items()
    }


def _by_layer(tree: Any) -> dict[str, jax.Array]:
    """Returns {layer: sum of squares of its leaves}, in the order of the tree."""
    sums: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        layer = _layer(path)
        sums[layer] = sums.get(layer, 0.0) + jnp.sum(jnp.square(jnp.asarray(leaf, jnp.float32)))
    return sums


def _layer(path: Any) -> str:
    return "/".join(str(entry.key) for entry in path[:-1])
