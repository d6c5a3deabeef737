"""Ablations: variants of a run over seeds, chosen by validation and reported on a test split that is opened last."""

from tl_jax.ablation.engine import Outlook, look_ahead, run
from tl_jax.ablation.executors import EXECUTORS, ablate, check_launchers
from tl_jax.ablation.methods import spec_of
from tl_jax.ablation.spec import Spec, load_spec

__all__ = [
    "EXECUTORS",
    "Outlook",
    "Spec",
    "ablate",
    "check_launchers",
    "load_spec",
    "look_ahead",
    "run",
    "spec_of",
]
