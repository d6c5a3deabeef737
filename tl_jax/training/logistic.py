"""Multinomial logistic regression on features by L-BFGS, over many L2 strengths at once.

The standard protocol of linear probes: features as the network gives them (not standardised), full
batch, the strength chosen on a validation split.

Shapes: N examples, F features, C classes, K strengths.

Source: Kornblith, Shlens and Le 2019 (arXiv:1805.08974), appendix A: L-BFGS, the L2 penalty added to the
sum of the per-example losses; Radford et al. 2021 (arXiv:2103.00020), appendix A.3: at most 1,000
iterations, strengths from 1e-6 to 1e6.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tl_jax.compilation import PLAIN, Compilation
from tl_jax.errors import InputError

# Pairs of differences that L-BFGS keeps: as in SciPy, which the papers' scikit-learn calls.
_MEMORY = 10
# Rows in one block of the loss: its logits for all strengths stay in a CPU's cache.
_BLOCK = 512
# Share of the slope's promise that a step must keep (Nocedal and Wright 2006, equation 3.6a).
_SUFFICIENT = 1e-4
# Rounding of a loss in float32: within it, values say nothing and slopes decide.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Solution:
    """The regressions of every strength; arrays of the host.

    Attributes:
        kernel: float32 [K, F, C].
        bias: float32 [K, C].
        objective: float [K], mean cross-entropy plus strength / (2 N) |kernel|^2.
        gradient: float [K], the largest entry of its gradient.
        evaluations: int [K], of objective and gradient.
        converged: bool [K], whether `gradient` came below the tolerance.
    """

    kernel: np.ndarray
    bias: np.ndarray
    objective: np.ndarray
    gradient: np.ndarray
    evaluations: np.ndarray
    converged: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Search:
    """A strength's minimisation between two evaluations; leaves end with [K].

    `weights` [F + 1, C, K] are the last accepted point (the bias is the last row), `direction` leads to
    the trial point `weights + step * direction`.
    """

    weights: jax.Array
    objective: jax.Array
    gradient: jax.Array
    direction: jax.Array
    slope: jax.Array
    step: jax.Array
    memory: Any
    evaluations: jax.Array
    done: jax.Array
    converged: jax.Array


def fit(
    features: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    num_classes: int,
    strengths: Sequence[float],
    *,
    max_evaluations: int = 1000,
    tolerance: float = 1e-4,
    intercept: bool = True,
    compilation: Compilation = PLAIN,
) -> Solution:
    """Returns, for each strength, the minimum of the regularised sum of losses.

    It is that of `sum over examples of cross-entropy + strength / 2 * |kernel|^2`, sought from 0. The
    bias is not penalised. A strength is 1 / C of scikit-learn's `LogisticRegression`, whose objective
    this is. All strengths share each pass over the features; those that have converged stay as they are
    while the others go on.

    Args:
        features: float [N, F].
        labels: int [N], in [0, `num_classes`).
        num_classes: C, at least 2.
        strengths: K numbers of at least 0.
        max_evaluations: of objective and gradient, per strength.
        tolerance: of the largest entry of the gradient of the objective divided by N; by default that
            of scikit-learn.
        intercept: whether there is a bias; without, it stays 0.
        compilation: of the search; its products are in float32 whatever it says.

    Raises:
        InputError: listing what is out of range.
    """
    features = jnp.asarray(features, jnp.float32)
    labels = jnp.asarray(labels, jnp.int32)
    _check(features, labels, num_classes, strengths, max_evaluations, tolerance)
    blocks = _blocks(features, labels, num_classes, float(intercept))
    found = jax.device_get(
        compilation.jit(_minimise)(
            blocks,
            jnp.asarray(np.asarray(strengths, np.float32) / len(labels)),
            np.float32(len(labels)),
            np.int32(max_evaluations),
            np.float32(tolerance),
        )
    )
    weights = np.moveaxis(found.weights, -1, 0)
    return Solution(
        kernel=weights[:, :-1],
        bias=weights[:, -1],
        objective=found.objective,
        gradient=np.abs(found.gradient).max((0, 1)),
        evaluations=found.evaluations,
        converged=found.converged,
    )


def top1_accuracy(
    kernel: np.ndarray, bias: np.ndarray, features: jax.typing.ArrayLike, labels: np.ndarray
) -> np.ndarray:
    """Returns the share of examples that each strength classifies rightly: float [K].

    Args:
        kernel: [K, F, C].
        bias: [K, C].
        features: [N, F].
        labels: int [N].
    """
    features = jnp.asarray(features, jnp.float32)
    blocks = _blocks(features, jnp.asarray(labels, jnp.int32), kernel.shape[-1])
    weights = jnp.asarray(np.moveaxis(np.concatenate([kernel, bias[:, None]], 1), 0, -1))
    return np.asarray(_correct(blocks, weights)) / len(labels)


def choose(top1: np.ndarray, strengths: Sequence[float]) -> int:
    """Returns the place of the strength with the best validation accuracy, the strongest of equals."""
    best = np.flatnonzero(top1 == np.max(top1))
    return max(map(int, best), key=lambda place: strengths[place])


def strength_grid(least: float, most: float, count: int) -> tuple[float, ...]:
    """Returns `count` strengths from `least` to `most`, equally far apart in their logarithm.

    Example:
        >>> strength_grid(0.01, 1.0, 3)
        (0.01, 0.1, 1.0)
    """
    if not 0 < least <= most < math.inf or count < 1 or (count == 1 and least != most):
        raise InputError(
            f"{count} strengths from {least} to {most}: expected 0 < least <= most, and two or more "
            "of them unless these are equal"
        )
    return tuple(float(f"{value:.12g}") for value in np.geomspace(least, most, count))


def _minimise(blocks, strengths, examples, max_evaluations, tolerance) -> _Search:
    # The loop is over evaluations, not iterations: while one strength tries a shorter step, another
    # moves on, and none waits for a line search of its neighbour.
    lbfgs = optax.scale_by_lbfgs(_MEMORY)
    last = functools.partial(jax.vmap, in_axes=-1, out_axes=-1)

    def evaluate(weights):
        return _objective(blocks, strengths, examples, weights)

    def lead(gradient, memory, weights):
        """Returns the direction from an accepted point, its slope, and the memory with the point in it."""
        ahead, memory = last(lbfgs.update)(gradient, memory, weights)
        slope = -(ahead * gradient).sum((0, 1))
        # Rounding can spoil the curvature of a pair; steepest descent is the way out.
        descends = slope < 0
        direction = jnp.where(descends, -ahead, -gradient)
        return direction, jnp.where(descends, slope, -(gradient**2).sum((0, 1))), memory

    def turn(search: _Search) -> _Search:
        trial = search.weights + search.step * search.direction
        objective, gradient = evaluate(trial)
        slope = (gradient * search.direction).sum((0, 1))
        promised = search.objective + _SUFFICIENT * search.step * search.slope
        # The second is the first in terms of slopes, for where values drown in rounding (Hager and Zhang
        # 2005, equation 27).
        level = objective <= search.objective + _ROUNDING * jnp.abs(search.objective)
        flat_enough = level & (slope <= (2 * _SUFFICIENT - 1) * search.slope)
        accepted = ((objective <= promised) | flat_enough) & ~search.done
        direction, new_slope, memory = lead(gradient, search.memory, trial)
        moved = dataclasses.replace(
            search,
            weights=trial,
            objective=objective,
            gradient=gradient,
            direction=direction,
            slope=new_slope,
            step=jnp.ones_like(search.step),
            memory=memory,
        )
        # Where the slopes say the minimum along the direction is, kept well inside the bracket.
        share = jnp.clip(search.slope / (search.slope - slope), 0.1, 0.5)
        shorter = search.step * jnp.where(jnp.isfinite(share), share, 0.1)
        kept = dataclasses.replace(search, step=shorter)
        after = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), moved, kept)
        evaluations = search.evaluations + ~search.done
        converged = jnp.abs(after.gradient).max((0, 1)) < tolerance
        stuck = after.step < 1e-10
        return dataclasses.replace(
            after,
            evaluations=evaluations,
            converged=converged,
            done=search.done | converged | stuck | (evaluations >= max_evaluations),
        )

    first = blocks[0]
    shape = (first.shape[-1], blocks[1].shape[-1], strengths.shape[0])
    weights = jnp.zeros(shape, jnp.float32)
    objective, gradient = evaluate(weights)
    direction, slope, memory = lead(gradient, last(lbfgs.init)(weights), weights)
    converged = jnp.abs(gradient).max((0, 1)) < tolerance
    start = _Search(
        weights=weights,
        objective=objective,
        gradient=gradient,
        direction=direction,
        slope=slope,
        step=jnp.ones(shape[-1], jnp.float32),
        memory=memory,
        evaluations=jnp.ones(shape[-1], jnp.int32),
        done=converged,
        converged=converged,
    )
    return jax.lax.while_loop(lambda search: ~search.done.all(), turn, start)


def _objective(blocks, strengths, examples, weights) -> tuple[jax.Array, jax.Array]:
    """Returns the objective divided by N [K], and its gradient [F + 1, C, K]."""
    flat = weights.reshape(weights.shape[0], -1)

    def add(total, block):
        rows, targets = block
        logits = _product(rows, flat).reshape(-1, *weights.shape[1:])
        highest = logits.max(1, keepdims=True)
        powers = jnp.exp(logits - highest)
        sums = powers.sum(1, keepdims=True)
        own = (logits * targets[..., None]).sum(1)
        # A padded row has a target of zeros, and counts nothing.
        counts = targets.sum(1)[:, None]
        losses = counts * (jnp.log(sums) + highest)[:, 0] - own
        errors = counts[..., None] * powers / sums - targets[..., None]
        gradient = _product(rows.T, errors.reshape(len(rows), -1))
        return (total[0] + losses.sum(0), total[1] + gradient), None

    zeros = (jnp.zeros(weights.shape[-1]), jnp.zeros_like(flat))
    (loss, gradient), _ = jax.lax.scan(add, zeros, blocks)
    kernel = weights.at[-1].set(0.0)
    penalty = 0.5 * strengths * (kernel**2).sum((0, 1))
    return loss / examples + penalty, gradient.reshape(
        weights.shape
    ) / examples + strengths * kernel


@jax.jit
def _correct(blocks, weights) -> jax.Array:
    flat = weights.reshape(weights.shape[0], -1)

    def add(total, block):
        rows, targets = block
        logits = _product(rows, flat).reshape(-1, *weights.shape[1:])
        right = logits.argmax(1) == targets.argmax(1)[:, None]
        return total + (right & (targets.sum(1) > 0)[:, None]).sum(0), None

    return jax.lax.scan(add, jnp.zeros(weights.shape[-1], jnp.int32), blocks)[0]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _blocks(features, labels, num_classes: int, last: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Returns features with a column of `last`, and one-hot labels, in equal blocks padded with zeros."""
    examples = features.shape[0]
    size = min(_BLOCK, examples)
    padding = -examples % size
    rows = jnp.concatenate([features, jnp.full((examples, 1), last)], 1)
    targets = jax.nn.one_hot(labels, num_classes)
    rows, targets = (jnp.pad(array, [(0, padding), (0, 0)]) for array in (rows, targets))
    return rows.reshape(-1, size, rows.shape[1]), targets.reshape(-1, size, num_classes)


def _check(features, labels, num_classes, strengths, max_evaluations, tolerance) -> None:
    problems = []
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        problems.append(
            f"features {features.shape} and labels {labels.shape}: expected [N, F] and [N], N from 1"
        )
    elif not 0 <= int(labels.min()) <= int(labels.max()) < max(num_classes, 2):
        problems.append(
            f"labels run from {int(labels.min())} to {int(labels.max())}, {num_classes} classes: "
            f"expected two or more classes, and labels from 0 to {num_classes - 1}"
        )
    elif not bool(jnp.isfinite(features).all()):
        problems.append("features are not finite")
    bad = [value for value in strengths if not 0 <= value < math.inf]
    if bad or not len(strengths):
        problems.append(f"strengths {bad or list(strengths)}: expected numbers of at least 0")
    if max_evaluations < 1 or not tolerance > 0:
        problems.append(
            f"max_evaluations={max_evaluations}, tolerance={tolerance}: expected at least 1, above 0"
        )
    if problems:
        raise InputError("\n".join(problems))


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns the matrix product in float32: TF32, a GPU's default, would stop the line search early."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
