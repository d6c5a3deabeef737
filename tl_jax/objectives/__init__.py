"""What is minimised: functions of what a network computes on a batch."""

from tl_jax.objectives.contract import (
    CROSS_ENTROPY,
    NEEDS,
    Objective,
    Own,
    Sum,
    boundaries_of,
    check_boundaries,
    evaluate,
    list_objectives,
    name_of,
    needs_of,
    register,
    registered,
)
from tl_jax.objectives.outputs import Outputs, Reference
from tl_jax.objectives.spectral import SpectralShrinkage
from tl_jax.objectives.terms import L2, L2SP, CrossEntropy, Delta, Distillation

__all__ = [
    "CROSS_ENTROPY",
    "L2",
    "L2SP",
    "NEEDS",
    "CrossEntropy",
    "Delta",
    "Distillation",
    "Objective",
    "Outputs",
    "Own",
    "Reference",
    "SpectralShrinkage",
    "Sum",
    "boundaries_of",
    "check_boundaries",
    "evaluate",
    "list_objectives",
    "name_of",
    "needs_of",
    "register",
    "registered",
]
