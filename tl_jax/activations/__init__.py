"""Activations at a boundary, computed once where everything before it is frozen."""

from tl_jax.activations.compute import compute, make_prefix, make_view_transform
from tl_jax.activations.exact import choose_boundary, prefix_of
from tl_jax.activations.keys import facts, shape_of
from tl_jax.activations.split import ActivationSplit
from tl_jax.activations.storage import DTYPES, STORAGES, Store, choose_storage

__all__ = [
    "DTYPES",
    "STORAGES",
    "ActivationSplit",
    "Store",
    "choose_boundary",
    "choose_storage",
    "compute",
    "facts",
    "make_prefix",
    "make_view_transform",
    "prefix_of",
    "shape_of",
]
