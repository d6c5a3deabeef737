"""Protocols: published experiments with the numbers that they claim, and the terms under which a run repeats them."""

from tl_jax.protocols import published  # noqa: F401  registers the protocols
from tl_jax.protocols.protocol import (
    Claim,
    Facts,
    Protocol,
    Term,
    assignments,
    get,
    lines,
    list_protocols,
    page,
    register,
    report,
    with_trials,
)

__all__ = [
    "Claim",
    "Facts",
    "Protocol",
    "Term",
    "assignments",
    "get",
    "lines",
    "list_protocols",
    "page",
    "register",
    "report",
    "with_trials",
]
