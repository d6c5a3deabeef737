"""Residual networks in Flax Linen; the only place that knows the Flax module API."""

from tl_jax.models.forward import (
    init_variables,
    make_forward,
    norm_names,
    same_in_training,
)
from tl_jax.models.pretrained import PretrainedWeights, get_pretrained, list_pretrained
from tl_jax.models.registry import create_model, list_models
from tl_jax.models.resnet import ResNet
from tl_jax.models.taps import make_tapped_forward

__all__ = [
    "PretrainedWeights",
    "ResNet",
    "create_model",
    "get_pretrained",
    "init_variables",
    "list_models",
    "list_pretrained",
    "make_forward",
    "make_tapped_forward",
    "norm_names",
    "same_in_training",
]
