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
from tl_jax.objectives.parameters import (
    GROUP,
    Start,
    init_params,
    of_network,
    of_objectives,
    params_of,
    with_own,
)
from tl_jax.objectives.source_head import CoTuning, LearningWithoutForgetting, head_logits
from tl_jax.objectives.spectral import SpectralShrinkage
from tl_jax.objectives.terms import L2, L2SP, CrossEntropy, Delta, Distillation

__all__ = [
    "CROSS_ENTROPY",
    "GROUP",
    "L2",
    "L2SP",
    "NEEDS",
    "CoTuning",
    "CrossEntropy",
    "Delta",
    "Distillation",
    "LearningWithoutForgetting",
    "Objective",
    "Outputs",
    "Own",
    "Reference",
    "SpectralShrinkage",
    "Start",
    "Sum",
    "boundaries_of",
    "check_boundaries",
    "evaluate",
    "head_logits",
    "init_params",
    "list_objectives",
    "name_of",
    "needs_of",
    "of_network",
    "of_objectives",
    "params_of",
    "register",
    "registered",
    "with_own",
]
