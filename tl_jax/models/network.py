"""The contract between a network and the rest of the library, and what checks it.

Shapes: B batch, H and W height and width, C channels, K classes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from tl_jax.errors import InputError, unknown

HEAD = "head"
# The group of params that objectives own, beside those of the network: no boundary has this name.
OBJECTIVE = "objective"
COLLECTIONS = ("params", "batch_stats")


class Network(Protocol):
    """A Linen module that can be entered and left at its boundaries.

    Its variables are `params`, grouped by boundary (`params["stage1"]`, ..., `params["head"]`; a boundary
    may have none), and `batch_stats`, grouped likewise and empty where nothing has running statistics. In
    training it may ask for the rng `dropout`. Its fields are hashable: tuples, not lists.

    The classes are the last axis of every leaf of `params["head"]`. Checks of a config
    initialise the network on images of 32 x 32 pixels, unless `data.image_size` says another size; `norm_names`
    always takes 32 x 32.

    These fields are optional; the library sets them where a module has them, and refuses what would need
    them where it has not:

    - `frozen_norms`, `norm_policy`: which BatchNorm modules are frozen, and what these do in training;
      `models.BatchNorm` takes both. Without them BatchNorm can be trained, not frozen.
      Called as `norm(x, train, convolution)`, with a `models.Convolution` that it calls itself, it is folded into
      the convolution wherever it can be.
    - `axis_name`: over which BatchNorm averages, for `parallel.mode=pmap`.
    - `batch_norm_rows`: the `rows` of its BatchNorm; set to 0 where images pass one at a time.
    - `stoch_norm`: that of its BatchNorm; set to 0 where statistics of batches are estimated.
    - `remat`: what the backward pass computes again; "" for nothing.
    - `groups`: 1 says that all convolutions are `models.Convolution`s of one group, whose gradients are fast
      in loops on CPUs, too.

    Attributes:
        boundaries: names of the parts in order, from input to head; the last one is "head", none is "objective".
    """

    @property
    def boundaries(self) -> tuple[str, ...]:
        """Names of the parts in order, from input to head."""

    def __call__(
        self, x: jax.Array, train: bool = False, start: str | None = None, stop: str | None = None
    ) -> jax.Array:
        """Returns the features after boundary `stop`.

        Args:
            x: normalised images [B, H, W, 3], or the features after boundary `start`.
            train: whether BatchNorm uses and records the statistics of the batch, and dropout drops.
            start: the boundary whose features `x` is; None for images.
            stop: the boundary to stop after; None for the whole network, which gives logits [B, K].
        """

    @property
    def init(self) -> Callable[..., Any]:
        """`flax.linen.Module.init`."""

    @property
    def apply(self) -> Callable[..., Any]:
        """`flax.linen.Module.apply`."""

    @property
    def clone(self) -> Callable[..., Any]:
        """`flax.linen.Module.clone`."""

    def __hash__(self) -> int:
        """Networks are keys of caches."""


def segment(model: Network, start: str | None, stop: str | None) -> tuple[int, int]:
    """Returns the slice of `boundaries` to run between two boundaries.

    Raises:
        InputError: if a boundary is unknown, or `start` comes after `stop`.
    """
    boundaries = model.boundaries
    for boundary in (start, stop):
        if boundary is not None and boundary not in boundaries:
            raise unknown("boundary", boundary, boundaries)
    first = 0 if start is None else boundaries.index(start) + 1
    last = len(boundaries) if stop is None else boundaries.index(stop) + 1
    if first > last:
        raise InputError(
            f"start {start!r} comes after stop {stop!r}; order: {', '.join(boundaries)}"
        )
    return first, last


def before_head(model: Network) -> tuple[str, ...]:
    """Returns the boundaries before the head."""
    return tuple(name for name in model.boundaries if name != HEAD)


def check_input(x: jax.Array, start: str | None, channels: int, *, spatial: bool) -> None:
    """Raises InputError unless `x` is what the part after boundary `start` takes.

    Args:
        x: [B, H, W, C] or, where not `spatial`, [B, C].
        start: None for images.
        channels: C.
        spatial: whether there are H and W.
    """
    what = "images" if start is None else f"features after {start!r}"
    axes = ("B", "H", "W") if spatial else ("B",)
    if x.ndim != len(axes) + 1 or x.shape[-1] != channels:
        raise InputError(
            f"{what} have shape {tuple(x.shape)}, expected [{', '.join(axes)}, {channels}]"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{what} have dtype {x.dtype}, expected floating point (normalised)")


def has_field(model: Network, name: str) -> bool:
    """Returns whether the module has one of the optional fields of the contract."""
    return name in {field.name for field in dataclasses.fields(_module(model))}


def _module(model: Any) -> Any:
    """Returns the Linen module: of a network with adapters, the one inside."""
    return model.network if getattr(type(model), "has_adapters", False) else model


def with_fields(model: Network, **values: Any) -> Network:
    """Returns the module with those of these fields set that it has."""
    return model.clone(**{name: value for name, value in values.items() if has_field(model, name)})


def without_remat(model: Network) -> Network:
    """Returns the module as it is where nothing is computed again."""
    return with_fields(model, remat="")


def without_stoch_norm(model: Network) -> Network:
    """Returns the module as it is where BatchNorm always normalises by the statistics of the batch in training."""
    return with_fields(model, stoch_norm=0.0)


def own_convolutions(model: Network) -> bool:
    """Returns whether JAX derives the gradients of its convolutions, which is slow in loops on CPUs."""
    return getattr(model, "groups", None) != 1


def check_module(model: Any) -> None:
    """Looks at what a network says of itself, computing nothing.

    Raises:
        InputError: listing what is not as `Network` says.
    """
    name = type(model).__name__
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the network is a {name}; expected a flax.linen.Module, or a function from the number of "
            "classes to one"
        )
    problems = []
    try:
        hash(model)
    except TypeError as error:
        problems.append(f"its fields cannot be hashed ({error}); expected tuples rather than lists")
    boundaries = getattr(model, "boundaries", None)
    if not isinstance(boundaries, tuple) or not all(isinstance(part, str) for part in boundaries):
        problems.append(f"boundaries is {boundaries!r}; expected a tuple of names, input to head")
    elif boundaries[-1:] != (HEAD,) or len(set(boundaries)) < len(boundaries):
        problems.append(f"boundaries is {boundaries!r}; expected names that differ, {HEAD!r} last")
    elif OBJECTIVE in boundaries:
        problems.append(
            f"boundaries is {boundaries!r}; expected another name than {OBJECTIVE!r}, which is that of parameters "
            "of objectives"
        )
    if problems:
        raise InputError(f"network {name}: " + "\n".join(problems))


def check_network(model: Network, num_classes: int, image_size: int) -> None:
    """Runs a network in the abstract, part by part, and compares it with `Network`.

    Args:
        model: the module.
        num_classes: K.
        image_size: side of its input in pixels.

    Raises:
        InputError: listing what is not as `Network` says.
    """
    check_module(_module(model))
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)

    def run(variables, x, start, stop):
        return jax.eval_shape(
            lambda variables, x: model.apply(variables, x, train=False, start=start, stop=stop),
            variables,
            x,
        )

    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False, start=None, stop=None), images
    )
    problems = [
        f"it has variables of the collection {name!r}; expected {' and '.join(COLLECTIONS)} alone"
        for name in variables
        if name not in COLLECTIONS
    ]
    for collection, groups in variables.items():
        strange = sorted(set(groups) - set(model.boundaries))
        if strange:
            problems.append(
                f"{collection} has the groups {', '.join(strange)}; expected names of boundaries: "
                + ", ".join(model.boundaries)
            )
    if HEAD not in variables.get("params", {}):
        problems.append(f"params has no group {HEAD!r}")
    logits = run(variables, images, None, None)
    if logits.shape != (1, num_classes):
        problems.append(
            f"it returns {list(logits.shape)} of one image; expected logits [1, {num_classes}], one for "
            "each class of the data"
        )
    if not problems:
        x, start = images, None
        for stop in model.boundaries:
            x, start = run(variables, x, start, stop), stop
        if x.shape != logits.shape:
            problems.append(f"run part by part it returns {list(x.shape)}, not {logits.shape}")
    if problems:
        raise InputError(f"network {type(model).__name__}: " + "\n".join(problems))
