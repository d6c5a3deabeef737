"""Foreign naming schemes as data: which source tensor fills which leaf, and in which layout.

A naming is a table of rules over module names, not code per architecture; applied to the leaf names
of a model it gives the name map of that model.

Source: `torchvision/models/resnet.py` (timm's `timm/models/resnet.py` uses the same names);
`transformers/models/resnet/modeling_resnet.py`; for CIFAR https://github.com/akamaster/
pytorch_resnet_cifar10 `resnet.py` (option A, head `linear`) and https://github.com/kuangliu/
pytorch-cifar `models/resnet.py` (projections called `shortcut`, head `linear`).
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from tl_jax.errors import InputError, unknown

# How a source tensor's axes are permuted to give ours.
LAYOUTS: dict[str, tuple[int, ...]] = {
    "none": (),
    "OIHW->HWIO": (2, 3, 1, 0),
    "transpose": (1, 0),
}

# Leaf of a module -> (last part of the source name, layout).
Leaves = Mapping[str, tuple[str, str]]
CONV: Leaves = {"kernel": ("weight", "OIHW->HWIO")}
DENSE: Leaves = {"kernel": ("weight", "transpose"), "bias": ("bias", "none")}
NORM: Leaves = {
    "scale": ("weight", "none"),
    "bias": ("bias", "none"),
    "mean": ("running_mean", "none"),
    "var": ("running_var", "none"),
}

_BLOCK = r"stage(?P<stage>\d+)/block(?P<block>\d+)"


@dataclasses.dataclass(frozen=True)
class Rule:
    """Names the source module for every module whose name matches `module` in full.

    In `source`, `{stage}`, `{block}`, `{conv}` are the numbers in our module's name; `{stage0}` and
    `{conv0}` are one less, for schemes that count from 0.
    """

    module: str
    source: str
    leaves: Leaves


@dataclasses.dataclass(frozen=True)
class Naming:
    """One scheme: `marker` matches in full a source name that only this scheme has.

    `waived` patterns name source tensors without counterpart here, each with the reason.
    """

    name: str
    marker: str
    rules: tuple[Rule, ...]
    waived: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where one leaf comes from."""

    source: str
    layout: str


def _rules(stem, norm, conv, conv_norm, projection, projection_norm, head) -> tuple[Rule, ...]:
    return (
        Rule(r"stem/conv", stem, CONV),
        Rule(r"stem/bn", norm, NORM),
        Rule(_BLOCK + r"/conv(?P<conv>\d+)", conv, CONV),
        Rule(_BLOCK + r"/bn(?P<conv>\d+)", conv_norm, NORM),
        Rule(_BLOCK + r"/downsample/conv", projection, CONV),
        Rule(_BLOCK + r"/downsample/bn", projection_norm, NORM),
        Rule(r"head", head, DENSE),
    )


def _layer_rules(projection: str, head: str) -> tuple[Rule, ...]:
    block = "layer{stage}.{block}."
    return _rules(
        "conv1",
        "bn1",
        block + "conv{conv}",
        block + "bn{conv}",
        block + projection + ".0",
        block + projection + ".1",
        head,
    )


def _huggingface_rules(prefix: str) -> tuple[Rule, ...]:
    block = prefix + "encoder.stages.{stage0}.layers.{block}."
    return _rules(
        prefix + "embedder.embedder.convolution",
        prefix + "embedder.embedder.normalization",
        block + "layer.{conv0}.convolution",
        block + "layer.{conv0}.normalization",
        block + "shortcut.convolution",
        block + "shortcut.normalization",
        "classifier.1",
    )


_COUNTERS = {
    r"(.*\.)?num_batches_tracked": "PyTorch's counter of batches, unused with a fixed momentum"
}

# Looked at in this order: the first whose marker occurs is the naming. `conv1.weight` is last,
# since the CIFAR scheme has it too.
NAMINGS: tuple[Naming, ...] = (
    Naming("tl_jax", r"params/stem/conv/kernel", (), {}),
    Naming(
        "huggingface",
        r"resnet\.embedder\.embedder\.convolution\.weight",
        _huggingface_rules("resnet."),
        _COUNTERS,
    ),
    Naming(
        "huggingface_backbone",
        r"embedder\.embedder\.convolution\.weight",
        _huggingface_rules(""),
        _COUNTERS,
    ),
    Naming(
        "cifar",
        r"linear\.weight|layer\d+\.\d+\.shortcut\.0\.weight",
        _layer_rules("shortcut", "linear"),
        _COUNTERS,
    ),
    Naming("torchvision", r"conv1\.weight", _layer_rules("downsample", "fc"), _COUNTERS),
)

# Names of the same scheme under which users look for it.
ALIASES = {"timm": "torchvision", "transformers": "huggingface"}


def get_naming(name: str) -> Naming:
    """Returns the naming called `name`, or that of which it is an alias.

    Raises:
        InputError: if there is none.
    """
    by_name = {naming.name: naming for naming in NAMINGS}
    if ALIASES.get(name, name) not in by_name:
        raise unknown("naming", name, [*by_name, *ALIASES])
    return by_name[ALIASES.get(name, name)]


def recognise(source_names: Iterable[str]) -> Naming:
    """Returns the naming whose marker is among the source names.

    Raises:
        InputError: if no marker is; the message shows the first names and the known markers.
    """
    source_names = list(source_names)
    for naming in NAMINGS:
        if any(re.fullmatch(naming.marker, name) for name in source_names):
            return naming
    shown = ", ".join(repr(name) for name in sorted(source_names)[:5]) or "none"
    known = "; ".join(f"{naming.name} (has {naming.marker})" for naming in NAMINGS)
    raise InputError(
        f"the naming of the {len(source_names)} source tensors is not recognised; "
        f"they are named like {shown}; known namings: {known}"
    )


def name_map(naming: Naming, leaf_names: Iterable[str]) -> dict[str, Entry]:
    """Returns {leaf name: where it comes from} for leaves named `params/...` and `batch_stats/...`.

    Raises:
        InputError: if the naming has no rule for some leaf; all such leaves are listed.
    """
    entries = {name: _entry(naming, name) for name in leaf_names}
    unnamed = sorted(name for name, entry in entries.items() if entry is None)
    if unnamed:
        raise InputError(f"naming {naming.name!r} has no rule for: {', '.join(unnamed)}")
    return {name: entry for name, entry in entries.items() if entry is not None}


def _entry(naming: Naming, leaf_name: str) -> Entry | None:
    if naming.name == "tl_jax":
        return Entry(leaf_name, "none")
    _, path = leaf_name.split("/", 1)
    module, _, leaf = path.rpartition("/")
    for rule in naming.rules:
        found = re.fullmatch(rule.module, module)
        if found and leaf in rule.leaves:
            last, layout = rule.leaves[leaf]
            return Entry(f"{_fill(rule.source, found.groupdict())}.{last}", layout)
    return None


def _fill(template: str, numbers: Mapping[str, str]) -> str:
    from_zero = {f"{key}0": str(int(value) - 1) for key, value in numbers.items()}
    return template.format(**numbers, **from_zero)


def to_ours(array: np.ndarray, layout: str) -> np.ndarray:
    """Returns a source array in our layout; an array of another rank is returned as it is."""
    axes = LAYOUTS[layout]
    return array.transpose(axes) if axes and array.ndim == len(axes) else array


def to_theirs(array: np.ndarray, layout: str) -> np.ndarray:
    """Returns one of our arrays in the source's layout, contiguous; undoes `to_ours`."""
    axes = LAYOUTS[layout]
    return np.ascontiguousarray(array.transpose(np.argsort(axes)) if axes else array)
