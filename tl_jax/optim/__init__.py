"""Schedules, learning-rate multipliers and the gradient transformation."""

from tl_jax.optim.multipliers import lr_multipliers
from tl_jax.optim.schedules import SCHEDULES, make_schedule
from tl_jax.optim.transforms import OPTIMIZERS, GradNormState, grad_norm, make_optimizer

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "GradNormState",
    "grad_norm",
    "lr_multipliers",
    "make_optimizer",
    "make_schedule",
]
