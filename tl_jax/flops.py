"""Floating-point operations of a function, counted in its jaxpr: the same on every platform.

Compilers count too, but say it on CPUs alone (`Lowered.cost_analysis()` is None on GPUs and TPUs).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

# Primitives that put numbers elsewhere and compute none.
_MOVES = {
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice", "dynamic_update_slice",
    "expand_dims", "gather", "name", "optimization_barrier", "pad", "reshape", "rev", "select_n", "slice", "split",
    "squeeze", "transpose",
}  # fmt: skip


def count(jaxpr: core.ClosedJaxpr) -> float:
    """Returns the operations of a call, on all devices together.

    Products of matrices and convolutions count two operations for each multiplication and addition, but for those of
    padding; what moves numbers counts none, all else one for each floating-point number that it makes. What no
    output needs counts nothing, such as the gradients of frozen parameters; of a `cond` the dearest branch counts,
    of a `while` one round.

    Args:
        jaxpr: such as `jax.jit(function).trace(*arguments).jaxpr`.
    """
    return _count(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))[0]


def _count(jaxpr: Any, needed: Sequence[bool]) -> tuple[float, list[bool]]:
    """Returns the operations behind the needed outputs, and which inputs they need."""
    live = {
        variable
        for variable, is_needed in zip(jaxpr.outvars, needed, strict=True)
        if is_needed and not isinstance(variable, core.Literal)
    }
    total = 0.0
    for equation in reversed(jaxpr.eqns):
        outputs = [variable in live for variable in equation.outvars]
        if not any(outputs):
            continue
        operations, inputs = _operations(equation, outputs)
        total += operations
        live.update(
            variable
            for variable, is_needed in zip(equation.invars, inputs, strict=True)
            if is_needed and not isinstance(variable, core.Literal)
        )
    return total, [variable in live for variable in jaxpr.invars]


def _operations(equation: Any, outputs: list[bool]) -> tuple[float, list[bool]]:
    """Returns the operations of an equation some of whose outputs are needed, and which inputs these need."""
    name, every = equation.primitive.name, [True] * len(equation.invars)
    inner = list(_inner(equation.params))
    if not inner:
        return _of_primitive(name, equation), every
    if name == "scan":
        return _of_scan(equation, inner[0], outputs)
    if len(inner) == 1 and _same_ends(inner[0], equation):
        operations, inputs = _count(inner[0], outputs)
        parts = equation.params["mesh"].size if name == "shard_map" else 1
        return parts * operations, inputs
    costs = [_count(one, [True] * len(one.outvars))[0] for one in inner]
    return (max(costs) if name == "cond" else sum(costs)), every


def _of_scan(equation: Any, body: Any, outputs: list[bool]) -> tuple[float, list[bool]]:
    """Returns the operations of all rounds: of what an output needs, and of what that needs of the round before."""
    # What is read or made round after round has an axis more outside of the body; constants come before what is
    # passed on.
    passed_on = _as_they_are(equation.outvars, body.outvars)
    first = _as_they_are(equation.invars, body.invars) - passed_on
    needed = list(outputs)
    while True:
        operations, inputs = _count(body, needed)
        before = inputs[first : first + passed_on]
        grown = [one or other for one, other in zip(needed, before, strict=False)]
        if grown == needed[:passed_on]:
            return equation.params["length"] * operations, inputs
        needed[:passed_on] = grown


def _as_they_are(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """Returns how many variables have as many axes outside of a loop's body as inside."""
    pairs = zip(outside, inside, strict=True)
    return sum(one.aval.ndim == other.aval.ndim for one, other in pairs)


def _same_ends(jaxpr: Any, equation: Any) -> bool:
    return (len(jaxpr.invars), len(jaxpr.outvars)) == (len(equation.invars), len(equation.outvars))


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yields the jaxprs among the parameters of an equation; rules of derivatives are not among them."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, core.Jaxpr):
                yield one


def _of_primitive(name: str, equation: Any) -> float:
    """Returns the operations of an equation with nothing inside."""
    made = [variable.aval for variable in equation.outvars]
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        first = equation.invars[0].aval
        return 2.0 * math.prod(made[0].shape) * math.prod(first.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        return _of_convolution(equation, made[0].shape)
    if name in _MOVES:
        return 0.0
    return float(sum(one.size for one in made if jnp.issubdtype(one.dtype, jnp.inexact)))


def _of_convolution(equation: Any, made: tuple[int, ...]) -> float:
    """Returns the operations on what is not padding."""
    (_, _, *sides_in), (_, channels, *sides), (rows, features, *sides_out) = equation.params[
        "dimension_numbers"
    ]
    images, kernel = (variable.aval.shape for variable in equation.invars)
    total = 2.0 * made[rows] * made[features] * kernel[channels]
    for number, (side_in, side, side_out) in enumerate(
        zip(sides_in, sides, sides_out, strict=True)
    ):
        low, stride, spread, gap = (
            equation.params[name][number]
            for name in ("padding", "window_strides", "lhs_dilation", "rhs_dilation")
        )
        places = (
            np.arange(made[side_out])[:, None] * stride + np.arange(kernel[side]) * gap - low[0]
        )
        last = (images[side_in] - 1) * spread
        total *= int(np.count_nonzero((places >= 0) & (places <= last) & (places % spread == 0)))
    return total
