"""Networks in Flax Linen; the only place that knows the Flax module API."""

from tl_jax.models.adapters import KINDS as ADAPTERS
from tl_jax.models.adapters import Adapted, is_adapter, merged_variables, plain
from tl_jax.models.batch_norm import BatchNorm, check_rows
from tl_jax.models.convolution import Convolution
from tl_jax.models.forward import (
    features_dtype,
    init_variables,
    make_forward,
    norm_names,
    one_by_one,
    same_in_training,
)
from tl_jax.models.heads import dense_head
from tl_jax.models.network import (
    Network,
    before_head,
    check_module,
    check_network,
    own_convolutions,
    segment,
    without_remat,
    without_stoch_norm,
)
from tl_jax.models.pretrained import PretrainedWeights, get_pretrained, list_pretrained
from tl_jax.models.registry import (
    create_model,
    get_architecture,
    is_built_in,
    list_models,
    register,
)
from tl_jax.models.resnet import ResNet
from tl_jax.models.taps import boundary_shapes, make_tapped_forward
from tl_jax.models.vgg import VGG

__all__ = [
    "ADAPTERS",
    "VGG",
    "Adapted",
    "BatchNorm",
    "Convolution",
    "Network",
    "PretrainedWeights",
    "ResNet",
    "before_head",
    "boundary_shapes",
    "check_module",
    "check_network",
    "check_rows",
    "create_model",
    "dense_head",
    "features_dtype",
    "get_architecture",
    "get_pretrained",
    "init_variables",
    "is_adapter",
    "is_built_in",
    "list_models",
    "list_pretrained",
    "make_forward",
    "make_tapped_forward",
    "merged_variables",
    "norm_names",
    "one_by_one",
    "own_convolutions",
    "plain",
    "register",
    "same_in_training",
    "segment",
    "without_remat",
    "without_stoch_norm",
]
