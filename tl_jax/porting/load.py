"""Pretrained weights, from a file or the registry, into the variables of a model."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from tl_jax import trees
from tl_jax.compilation import computed
from tl_jax.errors import InputError, unknown
from tl_jax.models import init_variables
from tl_jax.models.pretrained import get_pretrained, list_pretrained
from tl_jax.porting.fitting import advice
from tl_jax.porting.hub import fetch
from tl_jax.porting.keras_files import SUFFIXES as KERAS_SUFFIXES
from tl_jax.porting.port import HEAD_CHOICES, port_state_dict, reset_rules
from tl_jax.porting.reading import SUFFIXES, SourceFile, read_source
from tl_jax.porting.report import PortReport


def load_pretrained(
    source: str | Path,
    model: Any,
    *,
    input_shape: tuple[int, int, int, int] = (1, 224, 224, 3),
    head: str = "keep",
    reset: Sequence[str] = (),
    key: jax.Array | None = None,
    channel_order: str | None = None,
) -> tuple[dict[str, Any], PortReport]:
    """Returns the variables of `model` with pretrained weights, and the account of the port.

    Args:
        source: a registry name (`models.list_pretrained()`) or a weight file.
        model: from `models.create_model`.
        input_shape: [B, H, W, C] with which the model is initialised; no computation is made.
        head: "keep" needs weights for as many classes as the model has; "reset" initialises the
            head from `key` and leaves the source's unused.
        reset: patterns of more leaves that are initialised from `key`; see `port_state_dict`. Their shapes need
            not be those of the source.
        key: JAX random key of what is initialised; None is `jax.random.key(0)`.
        channel_order: of the images that the source's network takes, "rgb" or "bgr"; the ported one takes RGB.
            None: that of registered weights, else of the naming ("bgr" for Keras').

    Raises:
        InputError: if the weights cannot be found, read or fitted to the model.
    """
    if head not in HEAD_CHOICES:
        raise unknown("treatment of the head", head, HEAD_CHOICES)
    name, path = locate(source)
    file = read_source(path)
    _check_config(file)
    key = jax.random.key(0) if key is None else key
    template = jax.eval_shape(lambda key: init_variables(model, key, input_shape), key)
    fresh = list(reset_rules(trees.flatten(template), head, reset))
    if fresh:

        def initialise(key: jax.Array) -> dict[str, jax.Array]:
            drawn = trees.flatten(init_variables(model, key, input_shape))
            return {name: drawn[name] for name in fresh}

        leaves = trees.flatten(template) | computed(initialise, key)
        template = {collection: {} for collection in template} | trees.unflatten(leaves)
    try:
        variables, report = port_state_dict(
            file.tensors, template, head=head, reset=reset, channel_order=channel_order
        )
    except InputError as error:
        leaves = trees.flatten(template)
        hint = advice(file.tensors, leaves, of_keras=path.suffix in KERAS_SUFFIXES)
        raise InputError("\n".join(filter(None, [f"{name or path}: {error}", hint]))) from error
    report = dataclasses.replace(
        report,
        source=str(path),
        sha256=file.sha256,
        unwrapped=file.unwrapped,
        beside=file.beside,
        weights=name,
    )
    return variables, report


def check_source(source: str | Path) -> None:
    """Raises InputError unless `source` is a registered name or an existing file; fetches nothing."""
    if str(source) in list_pretrained() or Path(source).is_file():
        return
    if Path(source).suffix in SUFFIXES or "/" in str(source):
        raise InputError(f"no such file of weights: {source}")
    raise unknown("pretrained weights or file", str(source), list_pretrained())


def locate(source: str | Path) -> tuple[str, Path]:
    """Returns the registry name, empty for a file of the user's, and the file."""
    if str(source) in list_pretrained():
        return str(source), fetch(get_pretrained(str(source)))
    path = Path(source).expanduser()
    if not path.exists() and path.suffix not in SUFFIXES and path.name == str(source):
        raise unknown("pretrained weights", str(source), list_pretrained())
    return "", path


def _check_config(file: SourceFile) -> None:
    """Refuses Hugging Face variants that share our names and shapes but not our strides."""
    config_path = file.path.with_name("config.json")
    if not any(name.endswith("embedder.embedder.convolution.weight") for name in file.tensors):
        return
    if not config_path.is_file():
        return
    config = json.loads(config_path.read_text())
    variants = [
        name
        for name in ("downsample_in_bottleneck", "downsample_in_first_stage")
        if config.get(name)
    ]
    if variants:
        raise InputError(
            f"{config_path} sets {' and '.join(variants)}: that network strides elsewhere than "
            "ours (ResNet v1.5), with the same names and shapes"
        )
