"""Strategies: published ways to adapt a pretrained network, each a name for assignments to fields of a config."""

from tl_jax.strategies import published  # noqa: F401  registers the strategies
from tl_jax.strategies.lengths import parts_of_run
from tl_jax.strategies.registry import (
    Strategy,
    expand,
    is_strategy,
    list_strategies,
    page,
    register,
    with_strategy,
)

__all__ = [
    "Strategy",
    "expand",
    "is_strategy",
    "list_strategies",
    "page",
    "parts_of_run",
    "register",
    "with_strategy",
]
