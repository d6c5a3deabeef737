"""Models as functions of plain trees, which is all that the rest of the library sees."""

import functools
from collections.abc import Callable, Set
from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError

from tl_jax.errors import InputError, nearest, unknown
from tl_jax.models.batch_norm import NORM_POLICIES
from tl_jax.models.resnet import ResNet

Tree = dict[str, Any]


def init_variables(
    model: ResNet, key: jax.Array, input_shape: tuple[int, ...] = (1, 32, 32, 3)
) -> dict[str, Tree]:
    """Returns freshly initialised {"params", "batch_stats"}, nested dicts of float32 arrays.

    Each leaf depends on the key and its name only, not on `input_shape` [B, H, W, 3], whose values
    are never computed.
    """
    return _init(model, key, tuple(input_shape))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _init(model, key, input_shape):
    # Under jit the forward pass is dead code, and one program compiles faster than a draw per leaf.
    # Without `remat`: the transform that calls blocks draws other keys from the same one.
    variables = model.clone(remat="").init(key, jnp.zeros(input_shape, jnp.float32))
    return {"params": variables["params"], "batch_stats": variables["batch_stats"]}


def make_forward(
    model: ResNet,
    *,
    frozen_norms: Set[str] = frozenset(),
    norm_policy: str = "frozen",
    axis_name: str | None = None,
    start: str | None = None,
    stop: str | None = None,
) -> Callable[..., tuple[jax.Array, Tree]]:
    """Returns the model as a pure function of its parameters, statistics and inputs.

    Args:
        model: from `create_model`.
        frozen_norms: names of BatchNorm modules, such as "stage1/block0/bn1", to which
            `norm_policy` applies in training.
        norm_policy: "frozen", "batch_stats_no_update" or "update"; see `BatchNorm`.
        axis_name: named axis over which statistics are averaged (`pmap`), None under `jit`.
        start: the boundary whose features are the inputs; None for images.
        stop: the boundary to stop after; None for the whole network.

    Returns:
        forward(params, batch_stats, inputs, *, train, key=None) -> (float32 outputs, new batch_stats);
        without `train` the statistics are returned as they came. In training, `key` is that of dropout.

    Raises:
        InputError: if a boundary, the policy or a frozen module is unknown.
    """
    model.segment(start, stop)
    if norm_policy not in NORM_POLICIES:
        raise unknown("norm_policy", norm_policy, NORM_POLICIES)
    frozen_norms = frozenset(frozen_norms)
    if frozen_norms:
        _check_norms(frozen_norms, norm_names(model))
    module = model.clone(frozen_norms=frozen_norms, norm_policy=norm_policy, axis_name=axis_name)

    def forward(
        params: Tree,
        batch_stats: Tree,
        inputs: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
    ):
        variables = {"params": params, "batch_stats": batch_stats}
        if not train:
            outputs = module.apply(variables, inputs, train=False, start=start, stop=stop)
            return jnp.asarray(outputs, jnp.float32), batch_stats
        outputs, updated = module.apply(
            variables,
            inputs,
            train=True,
            start=start,
            stop=stop,
            mutable=["batch_stats"],
            rngs={} if key is None else {"dropout": key},
        )
        return jnp.asarray(outputs, jnp.float32), updated["batch_stats"]

    return forward


def same_in_training(
    model: ResNet, *, stop: str, frozen_norms: Set[str], norm_policy: str, image_size: int
) -> bool:
    """Returns whether the part up to a boundary is the same program in training as in evaluation.

    It is not where BatchNorm uses the batch's statistics, or something is dropped at random.

    Args:
        model: from `create_model`.
        stop: the boundary.
        frozen_norms: names of BatchNorm modules to which `norm_policy` applies in training.
        norm_policy: see `make_forward`.
        image_size: side of the input in pixels.
    """
    # What is computed again for the backward pass changes the text of the program, not what it computes.
    model = model.clone(remat="")
    shape = (1, image_size, image_size, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), shape))
    forward = make_forward(model, frozen_norms=frozen_norms, norm_policy=norm_policy, stop=stop)

    def program(train: bool) -> str:
        def outputs(params, batch_stats, images):
            return forward(params, batch_stats, images, train=train)[0]

        return str(jax.make_jaxpr(outputs)(variables["params"], variables["batch_stats"], images))

    try:
        return program(train=True) == program(train=False)
    except InvalidRngError:  # of a part that draws random numbers in training
        return False


@functools.lru_cache(maxsize=32)
def norm_names(model: ResNet) -> tuple[str, ...]:
    """Returns the names of the model's BatchNorm modules, in alphabetical order."""
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes["batch_stats"])]
    return tuple(sorted({"/".join(part.key for part in path[:-1]) for path in paths}))


def _check_norms(given: frozenset[str], known: tuple[str, ...]) -> None:
    lines = []
    for name in sorted(given.difference(known)):
        near = nearest(name, known)
        lines.append(f"{name!r} is no BatchNorm of the model; nearest: {', '.join(near) or 'none'}")
    if lines:
        raise InputError("\n".join([*lines, f"they are named like {known[0]!r}"]))
