"""Reading checkpoint files into named numpy arrays, without running any code they may hold."""

import dataclasses
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from tl_jax import files
from tl_jax.errors import InputError, unknown
from tl_jax.porting import keras_files

SAFETENSORS_SUFFIXES = (".safetensors",)
TORCH_SUFFIXES = (".pth", ".pt", ".th", ".bin")
SUFFIXES = SAFETENSORS_SUFFIXES + TORCH_SUFFIXES + keras_files.SUFFIXES

# {"model": ...} is DeiT's, {"net": ...} kuangliu's, the others are those of PyTorch's tutorials.
WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
# `module.` is DataParallel's, `timm_model.` that of transformers' wrapper of timm; `backbone.` and `model.` name
# the network inside a larger module.
PREFIXES = ("module.", "timm_model.", "backbone.", "model.")


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """The tensors of one checkpoint file.

    Attributes:
        path: the file.
        sha256: its digest, hexadecimal.
        tensors: {name in the file, wrappers and prefixes taken off: array}.
        unwrapped: what was taken off, outermost first, such as `["state_dict"]`, `module.`.
        beside: names of the entries next to a wrapper (optimizer, epoch), which are no weights.
    """

    path: Path
    sha256: str
    tensors: dict[str, np.ndarray]
    unwrapped: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def read_source(path: str | Path) -> SourceFile:
    """Returns the tensors of a `.safetensors`, `.pth`, `.pt`, `.th`, `.bin`, `.h5`, `.hdf5` or `.keras` file.

    Raises:
        InputError: if the file is absent, of another kind, damaged, would run code, holds several
            candidate state dicts, or needs PyTorch or h5py, which is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    if path.suffix not in SUFFIXES:
        raise unknown("kind of weight file", path.suffix or path.name, SUFFIXES)
    sha256 = files.digest(path)
    _check_name(path, sha256)
    tensors: Any
    wrappers: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    if path.suffix in keras_files.SUFFIXES:
        tensors, wrappers = keras_files.read_keras(path)
        return SourceFile(path, sha256, tensors, wrappers)
    if path.suffix in SAFETENSORS_SUFFIXES:
        try:
            tensors = safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, KeyError) as error:
            raise InputError(
                f"{path} is not a whole .safetensors file ({path.stat().st_size} bytes): {error}"
            ) from error
    else:
        tensors, wrappers, beside = _unwrap(_load_torch(path), path)
    tensors, prefixes = strip_prefixes(tensors)
    return SourceFile(path, sha256, tensors, wrappers + prefixes, beside)


def _check_name(path: Path, sha256: str) -> None:
    # torch.hub puts the first digits of the digest in the name: resnet50-0676ba61.pth; a name that
    # ends in digits alone, such as -20240115, may be a date.
    stated = re.fullmatch(r".*-(?=\d*[a-f])([0-9a-f]{8,64})", path.stem)
    if path.suffix == ".pth" and stated and not sha256.startswith(stated[1]):
        raise InputError(
            f"{path} is damaged: its name states a SHA-256 that begins {stated[1]}, "
            f"the file's is {sha256}; download it again"
        )


def _load_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError(f"reading {path} needs PyTorch: pip install tl_jax[torch]") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own message goes on to suggest weights_only=False, which would run the code.
        reason = re.search(
            r"(GLOBAL|Unsupported (?:class|global|operand)[^\n]*?) ?([\w.]+)", str(error)
        )
        detail = f" (it names {reason[2]})" if reason else ""
        raise InputError(
            f"{path} holds more than tensors{detail}: reading it would run code, or it is damaged; "
            "where you trust its source, save its state_dict again as .safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is not a whole PyTorch file ({path.stat().st_size} bytes): {first_line}"
        ) from error


def _unwrap(
    content: Any, path: Path
) -> tuple[dict[str, np.ndarray], tuple[str, ...], tuple[str, ...]]:
    wrappers: list[str] = []
    beside: list[str] = []
    while isinstance(content, Mapping):
        inside = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        if len(inside) > 1:
            raise InputError(
                f"{path} holds several state dicts ({', '.join(inside)}); save the wanted one alone"
            )
        wrappers.append(f'["{inside[0]}"]')
        beside += [str(key) for key in content if key != inside[0]]
        content = content[inside[0]]
    if not isinstance(content, Mapping) or not content:
        raise InputError(
            f"{path} holds a {type(content).__name__}, expected a dict of named tensors"
        )
    strangers = sorted(str(key) for key, value in content.items() if not hasattr(value, "detach"))
    if strangers:
        raise InputError(
            f"{path}: entries that are not tensors: {', '.join(strangers)}; known wrappers of "
            f"a state dict: {', '.join(WRAPPERS)}"
        )
    arrays = {str(key): _torch_to_numpy(value) for key, value in content.items()}
    return arrays, tuple(wrappers), tuple(sorted(beside))


def _torch_to_numpy(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def strip_prefixes(
    tensors: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns the tensors without the prefixes that all their names share, and those prefixes.

    `backbone.` is also taken off where the head is outside the backbone.

    Raises:
        InputError: if two names would become the same.
    """
    tensors = dict(tensors)
    taken: list[str] = []
    while prefix := next((prefix for prefix in PREFIXES if _has_prefix(prefix, tensors)), None):
        stripped = {name.removeprefix(prefix): array for name, array in tensors.items()}
        if len(stripped) < len(tensors):
            doubled = sorted(
                n for n in tensors if n.startswith(prefix) and n.removeprefix(prefix) in tensors
            )
            raise InputError(
                f"tensors with and without the prefix {prefix!r}: {', '.join(doubled)}"
            )
        tensors = stripped
        taken.append(prefix)
    return tensors, tuple(taken)


def _has_prefix(prefix: str, names: Mapping[str, Any]) -> bool:
    test = any if prefix == "backbone." else all
    return bool(names) and test(name.startswith(prefix) for name in names)
