"""Heads that are solved from features, all at once: one function for every solver, by its name.

Shapes: N examples, F features, C classes, K strengths.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_jax.compilation import PLAIN, Compilation
from tl_jax.errors import InputError, unknown
from tl_jax.training import closed_form, logistic

# What a config calls them, and what people do.
SOLVERS = {
    "lbfgs": "logistic regression by L-BFGS",
    "ridge": "ridge regression",
    "nearest_mean": "nearest class mean",
}
# Those that have an L2 strength to choose.
PENALISED = ("lbfgs", "ridge")


@dataclasses.dataclass(frozen=True)
class Solved:
    """The heads that a solver found, one for each strength; arrays of the host.

    Attributes:
        kernel: float32 [K, F, C].
        bias: float32 [K, C].
        facts: of each strength, what the solver says: `strength`, and of L-BFGS `objective`, `evaluations` and
            `converged`.
    """

    kernel: np.ndarray
    bias: np.ndarray
    facts: tuple[dict[str, Any], ...]


def solve(
    name: str,
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    strengths: Sequence[float] = (),
    *,
    max_evaluations: int = 1000,
    tolerance: float = 1e-4,
    compilation: Compilation = PLAIN,
) -> Solved:
    """Returns the heads of a solver for each strength; that of `nearest_mean`, which has none, alone.

    Args:
        name: of `SOLVERS`; see `logistic.fit`, `closed_form.ridge` and `closed_form.nearest_mean`.
        features: float [N, F].
        labels: int [N], in [0, `num_classes`).
        num_classes: C, at least 2.
        strengths: K numbers of at least 0; none for `nearest_mean`.
        max_evaluations: of L-BFGS.
        tolerance: likewise.
        compilation: likewise.

    Raises:
        InputError: for an unknown name, strengths of a solver without any, or as the solver.

    Example:
        >>> solve("nearest_mean", np.array([[0.0], [2.0]]), np.array([0, 1]), 2).bias
        array([[-0., -4.]], dtype=float32)
    """
    if name not in SOLVERS:
        raise unknown("solver", name, SOLVERS)
    if name == "lbfgs":
        found = logistic.fit(
            features,
            labels,
            num_classes,
            strengths,
            max_evaluations=max_evaluations,
            tolerance=tolerance,
            compilation=compilation,
        )
        facts = [
            {
                "strength": float(strength),
                "objective": float(found.objective[place]),
                "evaluations": int(found.evaluations[place]),
                "converged": bool(found.converged[place]),
            }
            for place, strength in enumerate(strengths)
        ]
        return Solved(found.kernel, found.bias, tuple(facts))
    if name == "ridge":
        heads = closed_form.ridge(features, labels, num_classes, strengths)
        return _rounded(heads, [{"strength": float(strength)} for strength in strengths])
    if len(strengths):
        raise InputError(f"strengths {list(strengths)}: {name} has no strength; expected none")
    return _rounded(closed_form.nearest_mean(features, labels, num_classes), [{}])


def _rounded(heads: closed_form.LinearHeads, facts: Sequence[dict[str, Any]]) -> Solved:
    return Solved(heads.kernel.astype(np.float32), heads.bias.astype(np.float32), tuple(facts))
