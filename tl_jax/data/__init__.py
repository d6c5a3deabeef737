"""Data: sources (tfds, folders, .npz files, arrays, digits), preparation, splits, the order of examples."""

from tl_jax.data.arrays import Arrays
from tl_jax.data.loading import Source, Splits, load_splits, register, wait_for
from tl_jax.data.split import InMemorySplit, Split

__all__ = [
    "Arrays",
    "InMemorySplit",
    "Source",
    "Split",
    "Splits",
    "load_splits",
    "register",
    "wait_for",
]
