"""Models as functions of plain trees, which is all that the rest of the library sees."""

import functools
from collections.abc import Callable, Set
from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError, ModifyScopeVariableError

from tl_jax.errors import InputError, nearest, unknown
from tl_jax.models.batch_norm import NORM_POLICIES
from tl_jax.models.network import Network, has_field, segment, with_fields, without_remat

Tree = dict[str, Any]


def init_variables(
    model: Network, key: jax.Array, input_shape: tuple[int, ...] = (1, 32, 32, 3)
) -> dict[str, Tree]:
    """Returns freshly initialised {"params", "batch_stats"}, nested dicts of float32 arrays.

    `batch_stats` is empty where nothing has running statistics. In registered networks each leaf depends on
    the key and its name only, not on `input_shape` [B, H, W, 3] (but for the dense layer of `small_cnn`, whose
    shape does); no values are computed from it.
    """
    return _init(model, key, tuple(input_shape))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _init(model, key, input_shape):
    # Under jit the forward pass is dead code, and one program compiles faster than a draw per leaf.
    # Without `remat`: the transform that calls blocks draws other keys from the same one.
    images = jnp.zeros(input_shape, jnp.float32)
    variables = without_remat(model).init(key, images, train=False, start=None, stop=None)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def make_forward(
    model: Network,
    *,
    frozen_norms: Set[str] = frozenset(),
    norm_policy: str = "frozen",
    axis_name: str | None = None,
    start: str | None = None,
    stop: str | None = None,
) -> Callable[..., tuple[jax.Array, Tree]]:
    """Returns the model as a pure function of its parameters, statistics and inputs.

    Args:
        model: the Linen module.
        frozen_norms: names of the BatchNorm modules that follow `norm_policy` in training, such as
            "stage1/block0/bn1".
        norm_policy: "frozen", "batch_stats_no_update" or "update"; see `BatchNorm`.
        axis_name: named axis over which statistics are averaged (`pmap`), None under `jit`.
        start: the boundary whose features are the inputs; None for images.
        stop: the boundary to stop after; None for the whole network.

    Returns:
        forward(params, batch_stats, inputs, *, train, key=None) -> (float32 outputs, new batch_stats);
        without `train` the statistics are returned as they came. In training, `key` is that of dropout.

    Raises:
        InputError: if a boundary, the policy or a frozen module is unknown, or the module lacks a field that
            is needed, see `Network`.
    """
    segment(model, start, stop)
    if norm_policy not in NORM_POLICIES:
        raise unknown("norm_policy", norm_policy, NORM_POLICIES)
    frozen_norms = frozenset(frozen_norms)
    if frozen_norms:
        _check_norms(frozen_norms, norm_names(model))
    _check_fields(model, frozen_norms, norm_policy, axis_name)
    module = with_fields(
        model, frozen_norms=frozen_norms, norm_policy=norm_policy, axis_name=axis_name
    )

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
        return jnp.asarray(outputs, jnp.float32), updated.get("batch_stats", batch_stats)

    return forward


def one_by_one(model: Network) -> Callable[..., tuple[jax.Array, Tree]]:
    """Returns `make_forward(model)` for evaluation, each image normalised by its own statistics alone.

    That is what a network computes that was left in training mode and is given one image at a time; the running
    statistics count nothing. A map of one pixel is refused, as in training.

    Returns:
        forward(params, batch_stats, inputs, *, train) -> (float32 outputs, batch_stats as they came).
    """
    forward = make_forward(with_fields(model, batch_norm_rows=0, stoch_norm=0.0))

    def by_image(params: Tree, batch_stats: Tree, inputs: jax.Array, *, train: bool):
        assert not train

        def one(image: jax.Array) -> jax.Array:
            return forward(params, batch_stats, image[None], train=True)[0][0]

        return jax.vmap(one)(inputs), batch_stats

    return by_image


# Kept, as all that is found by tracing a whole network: other runs ask again.
@functools.lru_cache(maxsize=32)
def same_in_training(
    model: Network, *, stop: str, frozen_norms: Set[str], norm_policy: str, image_size: int
) -> bool:
    """Returns whether the part up to a boundary needs no rng in training and records no statistics.

    It is run in the abstract. A frozen BatchNorm that uses the statistics of the batch without recording
    them ("batch_stats_no_update") is not noticed here.

    Args:
        model: the Linen module.
        stop: the boundary.
        frozen_norms: names of the BatchNorm modules that follow `norm_policy` in training.
        norm_policy: see `make_forward`.
        image_size: side of the input in pixels.
    """
    shape = (1, image_size, image_size, 3)
    variables = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), shape))
    module = with_fields(
        without_remat(model),
        frozen_norms=frozenset(frozen_norms),
        norm_policy=norm_policy,
        batch_norm_rows=0,
    )

    def run(variables, images):
        return module.apply(variables, images, train=True, start=None, stop=stop)

    try:
        jax.eval_shape(run, variables, jax.ShapeDtypeStruct(shape, jnp.float32))
    except (InvalidRngError, ModifyScopeVariableError):
        return False
    return True


@functools.lru_cache(maxsize=32)
def features_dtype(model: Network, boundary: str, image_size: int) -> jnp.dtype:
    """Returns the type in which the features at a boundary are computed, before `make_forward` makes them float32."""
    shape = (1, image_size, image_size, 3)
    variables = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), shape))
    module = without_remat(model)

    def run(variables, images):
        return module.apply(variables, images, train=False, start=None, stop=boundary)

    return jax.eval_shape(run, variables, jax.ShapeDtypeStruct(shape, jnp.float32)).dtype


@functools.lru_cache(maxsize=32)
def norm_names(model: Network) -> tuple[str, ...]:
    """Returns the names of the modules that have running statistics, in alphabetical order."""
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes["batch_stats"])]
    return tuple(sorted({"/".join(part.key for part in path[:-1]) for path in paths}))


def _check_norms(given: frozenset[str], known: tuple[str, ...]) -> None:
    lines = []
    for name in sorted(given.difference(known)):
        near = nearest(name, known)
        lines.append(f"{name!r} is no BatchNorm of the model; nearest: {', '.join(near) or 'none'}")
    if lines:
        example = f"they are named like {known[0]!r}" if known else "the model has none"
        raise InputError("\n".join([*lines, example]))


def _check_fields(
    model: Network, frozen_norms: frozenset[str], norm_policy: str, axis_name: str | None
) -> None:
    """Raises InputError where a module lacks the field by which its BatchNorm would be told."""
    name = type(model).__name__
    fields = ("frozen_norms", "norm_policy")
    if frozen_norms and norm_policy != "update" and not all(has_field(model, f) for f in fields):
        raise InputError(
            f"network {name} has no fields frozen_norms and norm_policy, so its BatchNorm {min(frozen_norms)} "
            "cannot be frozen; expected these fields, given to models.BatchNorm, or "
            "freeze.batch_norm=update, or that its scale or bias is trained"
        )
    if axis_name is not None and not has_field(model, "axis_name") and norm_names(model):
        raise InputError(
            f"network {name} has BatchNorm and no field axis_name; expected that field, given to "
            "models.BatchNorm, or parallel.mode=jit"
        )
