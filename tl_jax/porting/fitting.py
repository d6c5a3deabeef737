"""Which registered network the tensors of a file are the weights of, for messages about files that do not fit."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from tl_jax import trees
from tl_jax.errors import InputError
from tl_jax.models import create_model, get_architecture, init_variables, list_models
from tl_jax.models.registry import is_built_in
from tl_jax.porting.port import fits
from tl_jax.porting.schemes import recognise

OF_KERAS = (
    "of Keras' networks, VGG-16 and 19 and ResNet-50, 101 and 152 v1 are read: "
    "vgg16, vgg19, keras_resnet50, keras_resnet101, keras_resnet152 (model.name)"
)
# Options that change which parameters a network has.
_OPTIONS = ("stem", "classifier")
# A block of a ResNet has up to 3 convolutions and one in its shortcut; beside them there is the stem, and in
# timm's VGGs two hidden layers are convolutions.
_MOST_OF_A_BLOCK, _BESIDE_BLOCKS = 4, 3


def advice(tensors: Mapping[str, np.ndarray], leaves: Mapping[str, Any], *, of_keras: bool) -> str:
    """Returns the line that ends a message about tensors that do not fit a model; "" where there is none.

    It names the registered network that the tensors are the weights of, unless all but their head fits the model.

    Args:
        tensors: {source name: array} of a file.
        leaves: {leaf name: array or its shape and type} of the model.
        of_keras: whether the file is one of Keras.
    """
    try:
        scheme = recognise(tensors)
    except InputError:
        return OF_KERAS if of_keras else ""
    if fits(scheme, leaves, tensors):
        return ""
    for name, options in _candidates(tensors):
        model = create_model(name, 1, **options)
        made = jax.eval_shape(
            lambda model=model: init_variables(model, jax.random.key(0), (1, 224, 224, 3))
        )
        if fits(scheme, trees.flatten(made), tensors):
            fields = {"name": name, **options}
            listed = ", ".join(f"model.{field}={value}" for field, value in fields.items())
            return f"these are the weights of {name}: {listed}"
    return OF_KERAS if of_keras else "they fit no registered network"


def _candidates(tensors: Mapping[str, np.ndarray]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields networks with about as many convolutions as the file has, and options that change their parameters."""
    convolutions = sum(np.ndim(array) == 4 for array in tensors.values())
    for name in filter(is_built_in, list_models()):
        architecture = get_architecture(name)
        blocks = sum(getattr(architecture, "stage_sizes", ()))
        if blocks <= convolutions <= _MOST_OF_A_BLOCK * blocks + _BESIDE_BLOCKS:
            choices = [architecture.options.get(option, ()) for option in _OPTIONS]
            # The first choice is the network's own, and is not said.
            for chosen in itertools.product(*(("", *values[1:]) for values in choices)):
                yield (
                    name,
                    {
                        option: value
                        for option, value in zip(_OPTIONS, chosen, strict=True)
                        if value
                    },
                )
