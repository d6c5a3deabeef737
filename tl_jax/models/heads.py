"""Heads that are one dense layer of pooled features: those that can be exchanged, or stand beside each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import trees
from tl_jax.errors import InputError
from tl_jax.models.forward import init_variables, make_forward
from tl_jax.models.network import HEAD, Network, before_head
from tl_jax.models.taps import boundary_shapes

# Of what is compared, all near 1: bfloat16 and TF32 are far inside, another computation is far outside.
_TOLERANCE = 0.1


@functools.lru_cache(maxsize=32)
def dense_head(model: Network, image_size: int) -> tuple[str, int]:
    """Returns the boundary whose features the head takes, and how many these are.

    The head is applied once to numbers drawn at random, and compared with a dense layer.

    Args:
        model: the Linen module.
        image_size: side of its input in pixels.

    Raises:
        InputError: if the head is anything but one dense layer on features [B, F].
    """
    boundary = before_head(model)[-1]
    shape = boundary_shapes(model, image_size)[boundary]
    variables = jax.eval_shape(
        lambda: init_variables(model, jax.random.key(0), (1, image_size, image_size, 3))
    )
    leaves = trees.flatten(variables["params"].get(HEAD, {}))
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    described = ", ".join(f"{name} {list(leaf)}" for name, leaf in shapes.items()) or "nothing"
    problem = (
        f"the head of {type(model).__name__} has {described} on features {['B', *shape]} after {boundary!r}; "
        "expected one dense layer, kernel [F, K] and bias [K], on features [B, F]"
    )
    classes = shapes.get("kernel", ())[-1:]
    wanted = {"kernel": (*shape, *classes), "bias": classes}
    if len(shape) != 1 or "kernel" not in shapes or not shapes.items() <= wanted.items():
        raise InputError(problem)
    rng = np.random.default_rng(0)
    head = {name: rng.normal(size=leaf).astype(np.float32) for name, leaf in shapes.items()}
    head["kernel"] /= np.float32(shape[0] ** 0.5)
    features = rng.normal(size=(8, *shape)).astype(np.float32)
    params = {HEAD: {name: jnp.asarray(leaf) for name, leaf in head.items()}}
    logits, _ = make_forward(model, start=boundary)(params, {}, jnp.asarray(features), train=False)
    dense = features @ head["kernel"] + head.get("bias", np.zeros(classes, np.float32))
    if not np.allclose(logits, dense, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise InputError(f"{problem}: it computes something else with them")
    return boundary, shape[0]
