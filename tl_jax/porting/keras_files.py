"""Reading the files of Keras into arrays named LAYER/VARIABLE; only names and arrays are read, no code runs.

Three layouts, told apart by what a file holds:

- Keras 1 and 2 (`.h5`, `.hdf5`): a group for each layer, listed in the attribute `layer_names`, its arrays in
  `weight_names`; in whole models below `model_weights`, beside `optimizer_weights`.
- Keras 3 (`.weights.h5`): a group `vars` for each layer, its arrays numbered, its path made of classes that are
  counted (`layers/functional/layers/conv2d_3/vars/0`). Keras 3.8 and later keep the layer's name beside it.
- `.keras`: a zip file of `config.json`, which names the layers in order, and the above as `model.weights.h5`.

Layers whose names no file holds are called by their counted class, such as `conv2d_3`. Weights are named `kernel`
and `bias` or `gamma`, `beta`, `moving_mean` and `moving_variance`. Variables of an optimizer, of metrics and of
random generators keep their path in the file.

Source: keras 3.15.1 `src/saving/saving_lib.py`, `src/legacy/saving/legacy_h5_format.py`.
"""

import collections
import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tl_jax.errors import InputError

SUFFIXES = (".h5", ".hdf5", ".keras")

_WEIGHTS = "model.weights.h5"
_CONFIG = "config.json"
_LARGEST_CONFIG = 1 << 28  # bytes
# Zip files of Keras are not compressed; what expands more than this is no model.
_LARGEST_EXPANSION = 100
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
# The names in Keras 1, with which VGG's weights are published: `block1_conv1_W_1:0`. Its `running_std` is a variance.
_KERAS1 = {
    "W": "kernel",
    "b": "bias",
    "gamma": "gamma",
    "beta": "beta",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}
# Parts of a path in Keras 3 below which there is state, no weight of a layer.
_STATE = re.compile(
    r"(?:.*/)?(?:optimizer|seed_generator|_*(?:compile_)?metrics|_*loss_tracker)(?:_\d+)?(?:/.*)?"
)


def read_keras(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns {LAYER/VARIABLE: array} of a file of Keras, and what was taken off around them.

    Raises:
        InputError: if h5py is not installed, or the file is damaged or holds no weights of Keras.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"reading {path} needs h5py: pip install tl_jax[keras]") from error
    try:
        with _opened(path) as (content, names), h5py.File(content, "r") as file:
            return _read(path, file, names)
    except (OSError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        kind = ".keras" if path.suffix == ".keras" else "HDF5"
        raise InputError(
            f"{path} is not a whole {kind} file ({path.stat().st_size} bytes): {error}"
        ) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yields what h5py opens, and {path of a layer: its name} as far as the configuration of a model tells."""
    if path.suffix != ".keras":
        yield path, {}
        return
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if _WEIGHTS not in members:
            raise InputError(
                f"{path} holds no {_WEIGHTS}, only {', '.join(sorted(members)[:10]) or 'nothing'}"
            )
        weights = members[_WEIGHTS]
        if weights.file_size > _LARGEST_EXPANSION * max(weights.compress_size, 1 << 20):
            raise InputError(
                f"{path}: {_WEIGHTS} would take {weights.file_size} bytes, packed in {weights.compress_size}"
            )
        names = {}
        if _CONFIG in members and members[_CONFIG].file_size <= _LARGEST_CONFIG:
            names = layer_names(json.loads(archive.read(_CONFIG)))
        yield io.BytesIO(archive.read(_WEIGHTS)), names


def layer_names(config: Any, below: str = "layers") -> dict[str, str]:
    """Returns {path in the file of weights: name} of the layers of a model, those of nested models too.

    Args:
        config: of a model, as `config.json` of a `.keras` file holds it.
        below: the path of the model's layers.

    Example:
        >>> layers = [{"class_name": "Conv2D", "config": {"name": name}} for name in ("low", "high")]
        >>> layer_names({"class_name": "Functional", "config": {"layers": layers}})
        {'layers/conv2d': 'low', 'layers/conv2d_1': 'high'}
    """
    names: dict[str, str] = {}
    counts: collections.Counter[str] = collections.Counter()
    layers = _dict(_dict(config).get("config")).get("layers")
    for layer in layers if isinstance(layers, list) else ():
        kind = _snake_case(str(_dict(layer).get("class_name")))
        path = f"{below}/{kind}" + (f"_{counts[kind]}" if counts[kind] else "")
        counts[kind] += 1
        name = _dict(_dict(layer).get("config")).get("name")
        if isinstance(name, str):
            names[path] = name
        names |= layer_names(layer, f"{path}/layers")
    return names


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _snake_case(name: str) -> str:
    """Returns the name of a class as Keras writes it in paths, such as "batch_normalization"."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _read(
    path: Path, file: Any, names: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    # Visits no links, so that a file can name no other file; Windows' Keras wrote "\" in paths.
    items: list[tuple[str, Any]] = []
    file.visititems(lambda name, item: items.append((name, item)))
    datasets = {name: item for name, item in items if hasattr(item, "dtype")}
    elsewhere = sorted(name for name, item in datasets.items() if item.external or item.is_virtual)
    if elsewhere:
        raise InputError(f"{path}: arrays stored outside of the file: {', '.join(elsewhere[:5])}")
    whole = "model_weights" in file
    if whole or _lists(file, "layer_names"):
        wrappers = ('["model_weights"]',) if whole else ()
        return _listed(path, file, datasets, "model_weights/" if whole else ""), wrappers
    numbered = {name.replace("\\", "/"): item for name, item in datasets.items()}
    if not any(re.fullmatch(r"(.*/)?vars/\d+", name) for name in numbered):
        shown = ", ".join(sorted(file)[:5]) or "nothing"
        raise InputError(
            f"{path} holds no weights of Keras: neither the attribute layer_names nor groups called vars, but {shown}"
        )
    wrappers = (_WEIGHTS,) if path.suffix == ".keras" else ()
    return _numbered(numbered, names), wrappers


def _lists(item: Any, name: str) -> list[str]:
    """Returns an attribute that lists names; long ones are in parts, `weight_names0` and so on."""
    parts = [item.attrs[name]] if name in item.attrs else []
    while f"{name}{len(parts)}" in item.attrs:
        parts.append(item.attrs[f"{name}{len(parts)}"])
    return [
        value.decode("utf-8") if isinstance(value, bytes) else str(value)
        for part in parts
        for value in part
    ]


def _listed(
    path: Path, file: Any, datasets: Mapping[str, Any], prefix: str
) -> dict[str, np.ndarray]:
    """Returns the arrays in the layout of Keras 1 and 2."""
    groups = file[prefix] if prefix else file
    tensors: dict[str, np.ndarray] = {}
    for layer in [*_lists(groups, "layer_names"), "top_level_model_weights"]:
        if layer not in groups:
            continue
        weights = _lists(groups[layer], "weight_names")
        # A model as a layer holds weights of several; the names of its layers are in those of the weights.
        modules = {weight.rpartition("/")[0] for weight in weights}
        for weight in weights:
            module, _, variable = weight.rpartition("/")
            owner = layer if len(modules) == 1 else module.rpartition("/")[2] or layer
            source = f"{prefix}{layer}/{weight}"
            if source not in datasets:
                raise InputError(f"{path} lists {source}, which it does not hold")
            name = f"{owner}/{_variable(variable)}"
            if name in tensors:
                raise InputError(f"{path} holds two arrays for {name}")
            tensors[name] = datasets[source][()]
    for name, dataset in datasets.items():
        if name.startswith("optimizer_weights/"):
            tensors[name] = dataset[()]
    return tensors


def _variable(name: str) -> str:
    """Returns the name of a variable as Keras has it since version 2; "block1_conv1_W_1:0" is "kernel"."""
    name = name.partition(":")[0]
    old = re.fullmatch(rf".*_({'|'.join(_KERAS1)})(?:_\d+)?", name)
    return _KERAS1[old[1]] if old else name


def _numbered(datasets: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns the arrays in the layout of Keras 3."""
    tensors: dict[str, np.ndarray] = {}
    layers: dict[str, dict[int, Any]] = collections.defaultdict(dict)
    stated: dict[str, str] = {}
    for path, dataset in datasets.items():
        found = re.fullmatch(r"(?:(.*)/)?vars/(\d+)", path)
        if found is None or not found[1] or _STATE.fullmatch(found[1]):
            tensors[path] = dataset[()]
            continue
        # Keras 2.13 called the list of a model's layers so.
        owner = found[1].replace("_layer_checkpoint_dependencies", "layers")
        layers[owner][int(found[2])] = dataset
        name = dataset.parent.attrs.get("name", names.get(owner))
        stated[owner] = str(name or owner.rpartition("/")[2])
    shared = collections.Counter(stated.values())
    for owner, variables in layers.items():
        arrays = [variables[number][()] for number in sorted(variables)]
        # Two layers of one name, in two models: each by its path.
        name = stated[owner] if shared[stated[owner]] == 1 else owner
        for variable, array in zip(_by_rank(arrays), arrays, strict=True):
            tensors[f"{name}/{variable}"] = array
    return tensors


def _by_rank(arrays: list[np.ndarray]) -> tuple[str, ...]:
    """Returns the names of a layer's variables, which Keras 3 numbers: those of convolutions, dense and BatchNorm."""
    ranks = [array.ndim for array in arrays]
    if ranks in ([4], [4, 1], [2], [2, 1]):
        return ("kernel", "bias")[: len(ranks)]
    return _NORM if ranks == [1, 1, 1, 1] else tuple(map(str, range(len(ranks))))
