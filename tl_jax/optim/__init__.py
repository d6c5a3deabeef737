"""Schedules, learning-rate multipliers and the gradient transformation."""

from tl_jax.optim.multipliers import lr_multipliers
from tl_jax.optim.schedules import SCHEDULES, make_schedule
from tl_jax.optim.transforms import (
    OPTIMIZERS,
    Plateau,
    Rule,
    make_optimizer,
    plateau_scale,
    wrap_optimizer,
)

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Plateau",
    "Rule",
    "lr_multipliers",
    "make_optimizer",
    "make_schedule",
    "plateau_scale",
    "wrap_optimizer",
]
