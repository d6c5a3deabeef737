"""Data: sources (tfds, folders, .npz files, arrays, digits), preparation, splits, the order of examples."""

from tl_jax.data.arrays import Arrays
from tl_jax.data.inspection import Inspection, inspect
from tl_jax.data.loading import Decoding, Splits, load_splits, open_undecoded, wait_for
from tl_jax.data.prepare import NotFetched
from tl_jax.data.selection import Selection
from tl_jax.data.sources import Source, register
from tl_jax.data.split import InMemorySplit, Split

__all__ = [
    "Arrays",
    "Decoding",
    "InMemorySplit",
    "Inspection",
    "NotFetched",
    "Selection",
    "Source",
    "Split",
    "Splits",
    "inspect",
    "load_splits",
    "open_undecoded",
    "register",
    "wait_for",
]
