"""The head of pretrained weights alone: over the classes that they were trained with.

F: features that it takes; S: its classes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tl_jax import trees
from tl_jax.errors import InputError
from tl_jax.models import dense_head, init_variables
from tl_jax.porting.load import locate
from tl_jax.porting.naming import name_map, to_ours
from tl_jax.porting.reading import read_source
from tl_jax.porting.schemes import recognise

_HEAD = "params/head/"


def load_head(source: str | Path, model: Any, *, image_size: int = 224) -> dict[str, np.ndarray]:
    """Returns the head of pretrained weights, {"kernel": float32 [F, S], "bias": float32 [S]}.

    S is the source's number of classes, whatever that of the model is; without a bias in the model's head there is
    none here.

    Args:
        source: a registry name (`models.list_pretrained()`) or a weight file, which fits the model but for the head.
        model: from `models.create_model`; its head is one dense layer, see `models.dense_head`.
        image_size: side of its input in pixels.

    Raises:
        InputError: if the weights cannot be found or read, hold no head, or one that is not one dense layer of the
            model's features.
    """
    boundary, count = dense_head(model, image_size)
    _, path = locate(source)
    tensors = read_source(path).tensors
    shape = (1, image_size, image_size, 3)
    template = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), shape))
    leaves = trees.flatten(template)
    scheme = recognise(tensors)
    entries = name_map(scheme, leaves, tensors=tensors, channel_order="rgb")
    expected = f"expected one dense layer of the {count} features after {boundary!r}"
    head: dict[str, np.ndarray] = {}
    for name, entry in entries.items():
        if not name.startswith(_HEAD):
            continue
        if entry.source not in tensors:
            raise InputError(f"{source} has no head: no {entry.source}; {expected}")
        leaf = to_ours(np.asarray(tensors[entry.source]), entry.layout)
        head[name.removeprefix(_HEAD)] = np.ascontiguousarray(leaf, np.float32)
    kernel = head["kernel"]
    wanted = {"kernel": (count, *kernel.shape[1:2]), "bias": kernel.shape[1:2]}
    strange = [name for name, leaf in head.items() if leaf.shape != wanted[name]]
    if strange or len(wanted["kernel"]) != 2:
        shapes = ", ".join(f"{name} {list(leaf.shape)}" for name, leaf in head.items())
        raise InputError(f"the head of {source} has {shapes}; {expected}")
    more = _more_of_head(tensors, scheme, {entry.source for entry in entries.values()})
    if more:
        raise InputError(f"the head of {source} has more layers: {', '.join(more)}; {expected}")
    return head


def _more_of_head(tensors: Mapping[str, Any], scheme: Any, used: set[str]) -> list[str]:
    """Returns the tensors of a head beside its last layer, of schemes that leave heads to the user."""
    if scheme.backbone is None:
        return []
    return sorted(
        source
        for source in tensors
        if source not in used
        and not re.fullmatch(scheme.backbone, source)
        and not any(re.fullmatch(pattern, source) for pattern in scheme.waived)
    )
