"""Pixels on the device: the network's input, operations on one training image, mixings of a batch."""

from tl_jax.augment.augmentation import Augmentation, make_augment, make_train_transform
from tl_jax.augment.mixing import MIXINGS, Mixing, make_mixing, register_mixing
from tl_jax.augment.operations import OPERATIONS, Operation, register_operation
from tl_jax.augment.sampling import FILLS

__all__ = [
    "FILLS",
    "MIXINGS",
    "OPERATIONS",
    "Augmentation",
    "Mixing",
    "Operation",
    "make_augment",
    "make_mixing",
    "make_train_transform",
    "register_mixing",
    "register_operation",
]
