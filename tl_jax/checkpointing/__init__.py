"""Saving and resuming: the newest checkpoint that verifies is the one that is used."""

from tl_jax.checkpointing.checkpointer import (
    Checkpointer,
    newest_step,
    restore_params,
    restore_params_and_step,
)

__all__ = ["Checkpointer", "newest_step", "restore_params", "restore_params_and_step"]
