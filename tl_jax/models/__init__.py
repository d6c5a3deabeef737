"""Residual networks in Flax Linen; the only place that knows the Flax module API."""

from tl_jax.models.forward import init_variables, make_forward, norm_names
from tl_jax.models.registry import create_model, list_models
from tl_jax.models.resnet import ResNet

__all__ = [
    "ResNet",
    "create_model",
    "init_variables",
    "list_models",
    "make_forward",
    "norm_names",
]
