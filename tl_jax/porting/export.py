"""The way back: our variables under the names and in the layout of other libraries."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from tl_jax import files, trees
from tl_jax.porting.naming import name_map, to_theirs
from tl_jax.porting.schemes import get_naming


def export_state_dict(
    variables: Mapping[str, Any], *, naming: str = "torchvision"
) -> dict[str, np.ndarray]:
    """Returns {source name: float32 array} of all leaves; undoes `port_state_dict`.

    Args:
        variables: {"params": ..., "batch_stats": ...}.
        naming: "torchvision", "timm", "huggingface", "huggingface_backbone" (ResNets), "cifar" (ResNets) or
            "tl_jax" (our own leaf names and layout, of any network).

    The PyTorch namings also get the `num_batches_tracked` counters, 0, which `load_state_dict` with
    `strict=True` expects; they have no effect with PyTorch's default momentum.

    Example:
        >>> leaves = {"params": {"head": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}}}
        >>> {name: array.shape for name, array in export_state_dict(leaves).items()}
        {'fc.weight': (2, 3), 'fc.bias': (2,)}

    Raises:
        InputError: if the naming is unknown, or has no rule for some leaf.
    """
    leaves = trees.flatten(variables)
    scheme = get_naming(naming, leaves)
    state_dict: dict[str, np.ndarray] = {}
    for name, entry in name_map(scheme, leaves).items():
        state_dict[entry.source] = to_theirs(np.asarray(leaves[name], np.float32), entry.layout)
        if entry.source.endswith(".running_var"):
            counter = entry.source.removesuffix("running_var") + "num_batches_tracked"
            state_dict[counter] = np.zeros((), np.int64)
    return state_dict


def save_state_dict(
    path: str | Path,
    state_dict: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes a `.safetensors` file in one step and returns its path.

    Args:
        path: the file; an existing one is replaced only when the new one is whole.
        state_dict: as `export_state_dict` returns it.
        metadata: strings kept in the file's header.
    """
    path = Path(path)
    # safetensors writes the buffer as it is in memory, so a transposed view would be scrambled.
    arrays = {name: np.asarray(array, order="C") for name, array in state_dict.items()}
    # transformers refuses a file without the "format" entry.
    header = {"format": "pt", **(metadata or {})}
    files.write(path, _with_sorted_metadata(safetensors.numpy.save(arrays, metadata=header)))
    return path


def _with_sorted_metadata(content: bytes) -> bytes:
    """Returns a .safetensors file with its metadata sorted, so that equal weights are equal files.

    The library writes the metadata in another order from call to call. The layout, from
    https://github.com/huggingface/safetensors#format: the length of the header as 8 bytes, the header as
    JSON padded with spaces, then the tensors, whose offsets count from the end of the header.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]
