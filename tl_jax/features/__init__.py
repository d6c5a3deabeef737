"""Activations at a boundary, computed once where everything before it is frozen."""

from tl_jax.features.compute import compute, make_prefix, make_view_transform
from tl_jax.features.exact import choose_boundary, prefix_of
from tl_jax.features.keys import facts_of_images, facts_of_program, shape_of
from tl_jax.features.split import ActivationSplit
from tl_jax.features.storage import DTYPES, Store

__all__ = [
    "DTYPES",
    "ActivationSplit",
    "Store",
    "choose_boundary",
    "compute",
    "facts_of_images",
    "facts_of_program",
    "make_prefix",
    "make_view_transform",
    "prefix_of",
    "shape_of",
]
