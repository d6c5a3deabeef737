"""Features at several boundaries of a network, from one forward pass."""

import functools
import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tl_jax.errors import unknown
from tl_jax.models.forward import init_variables, make_forward
from tl_jax.models.network import Network, before_head

LOGITS = "logits"


def make_tapped_forward(
    model: Any,
    taps: Sequence[str],
    *,
    start: str | None = None,
    stop: str | None = None,
    **options: Any,
) -> Callable[..., tuple[dict[str, jax.Array], dict[str, Any]]]:
    """Returns `forward` as `make_forward` does, with features besides the logits.

    Args:
        model: from `create_model`.
        taps: boundaries, at or after `start`.
        start: the boundary whose features the inputs are; None for images.
        stop: the boundary to stop after; None for the whole network.
        **options: `frozen_norms`, `norm_policy`, `axis_name`; see `make_forward`.

    Returns:
        forward(params, batch_stats, inputs, *, train, key=None) -> ({boundary: float32 features, "logits":
        float32 [B, K]}, new batch_stats); with `stop`, its features under its name take the place of the
        logits. Dropout draws other units than in a pass without taps.

    Raises:
        InputError: if a tap is no boundary between `start` and `stop`.
    """
    order = list(model.boundaries)
    order = order[: order.index(stop) + 1] if stop else order
    first = 0 if start is None else order.index(start)
    for tap in taps:
        if tap not in order[first:]:
            raise unknown("boundary", tap, order[first:])
    cuts = [name for name in order[first:-1] if name in taps and name != start]
    edges = [start, *cuts, order[-1]]
    parts = [
        make_forward(model, start=begin, stop=end, **options)
        for begin, end in itertools.pairwise(edges)
    ]

    def forward(
        params: dict[str, Any],
        batch_stats: dict[str, Any],
        inputs: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
    ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
        features = {} if start is None else {start: inputs}
        for number, (part, name) in enumerate(zip(parts, edges[1:], strict=True)):
            # Flax counts unnamed dropout modules anew in every part: the same key would drop the same units.
            own = key if key is None or not number else jax.random.fold_in(key, number)
            inputs, batch_stats = part(params, batch_stats, inputs, train=train, key=own)
            features[name] = inputs
        outputs = {tap: jnp.asarray(features[tap], jnp.float32) for tap in taps}
        last = order[-1] if stop else LOGITS
        return {**outputs, last: jnp.asarray(features[order[-1]], jnp.float32)}, batch_stats

    return forward


@functools.lru_cache(maxsize=32)
def boundary_shapes(model: Network, image_size: int) -> Mapping[str, tuple[int, ...]]:
    """Returns {boundary before the head: shape of what it makes of one image}; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), images.shape))
    boundaries = before_head(model)
    forward = make_tapped_forward(model, boundaries)
    made, _ = jax.eval_shape(
        functools.partial(forward, train=False),
        variables["params"],
        variables["batch_stats"],
        images,
    )
    return types.MappingProxyType({name: made[name].shape[1:] for name in boundaries})
