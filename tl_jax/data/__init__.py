"""Data: sources (tfds, folders, .npz files, digits), preparation, splits, the order of examples."""

from tl_jax.data.loading import Splits, load_splits, wait_for
from tl_jax.data.split import InMemorySplit, Split

__all__ = ["InMemorySplit", "Split", "Splits", "load_splits", "wait_for"]
