"""Foreign naming schemes as data: which source tensor fills which leaf, and in which layout.

A naming is a table of rules over module names, not code per architecture; applied to the leaf names
of a model it gives the name map of that model. Each family of networks has its tables in a file of its own;
`schemes.py` lists them.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tl_jax.errors import InputError

# How a source tensor's axes are permuted to give ours.
LAYOUTS: dict[str, tuple[int, ...]] = {
    "none": (),
    "OIHW->HWIO": (2, 3, 1, 0),
    "transpose": (1, 0),
}
# Dense kernels over a flattened map: theirs in the order I, H, W, ours H, W, I. Layout -> side of the map, and
# whether theirs is flat [O, I * side * side] rather than the kernel of a convolution [O, I, side, side].
FLATTENED: dict[str, tuple[int, bool]] = {
    "O(I77)->(77I)O": (7, True),
    "OI77->(77I)O": (7, False),
    "OI11->IO": (1, False),
}

# Ends the layout of the kernel that takes the image, where the source takes its channels in the other order.
REVERSED = "BGR->RGB"
CHANNEL_ORDERS = ("rgb", "bgr")

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

COUNTERS = {
    r"(.*\.)?num_batches_tracked": "PyTorch's counter of batches, unused with a fixed momentum"
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Names the source module for every module whose name matches `module` in full.

    In `source`, `{stage}`, `{block}`, `{conv}` are the numbers in our module's name; `{stage0}` and
    `{conv0}` are one less, for schemes that count from 0, `{stage1}` and `{block1}` one more; `{position}` is
    what `Naming.positions` says, `{head}` the layer that `Naming.head` finds.
    """

    module: str
    source: str
    leaves: Leaves


@dataclasses.dataclass(frozen=True)
class Naming:
    """One scheme for one family of networks.

    Attributes:
        name: "torchvision" and the like; families may have a scheme of the same name each.
        network: the family, for messages.
        marker: matches in full a source name that only this scheme has.
        rules: the first that matches a module names its source.
        waived: patterns of source tensors without counterpart here, each with the reason.
        waived_without: {group of params: (pattern, reason)}, for source tensors without counterpart in models
            that lack the group.
        positions: from all module names of a model to the number that `{position}` stands for, in schemes that
            number layers across stages.
        separator: stands between the names of a module and its leaf.
        image: our module that takes the image.
        channel_order: of the image, "rgb" or "bgr".
        head: from the tensors of a source to the name of its head, in schemes that leave it to the user.
        backbone: matches the source names of the backbone; all others are of the head, whatever it is made of.
            None: the head is what the rules say.
        hints: {pattern of a problem, such as "missing: .*": what to do about it}.
    """

    name: str
    network: str
    marker: str
    rules: tuple[Rule, ...]
    waived: Mapping[str, str]
    waived_without: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    positions: Callable[[Iterable[str]], Mapping[str, int | str]] | None = None
    separator: str = "."
    image: str = ""
    channel_order: str = "rgb"
    head: Callable[[Mapping[str, np.ndarray]], str] | None = None
    backbone: str | None = None
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def names_all(self, leaf_names: Iterable[str]) -> bool:
        """Returns whether there is a rule for every leaf."""
        leaf_names = list(leaf_names)
        positions = _positions(self, leaf_names)
        return all(_entry(self, name, positions) is not None for name in leaf_names)


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where one leaf comes from, and the change of layout."""

    source: str
    layout: str


def name_map(
    naming: Naming,
    leaf_names: Iterable[str],
    *,
    tensors: Mapping[str, np.ndarray] | None = None,
    channel_order: str | None = None,
) -> dict[str, Entry]:
    """Returns {leaf name: where it comes from} for leaves named `params/...` and `batch_stats/...`.

    Args:
        naming: of the source.
        leaf_names: of the model.
        tensors: of the source, among which the head is found where its name is the user's.
        channel_order: of the images that the source's network takes, "rgb" or "bgr"; None for the naming's.

    Raises:
        InputError: if the naming has no rule for some leaf (such leaves are listed), or does not tell which
            kernel is to be reversed.
    """
    leaf_names = list(leaf_names)
    positions = _positions(naming, leaf_names)
    head = naming.head(tensors or {}) if naming.head else ""
    entries = {name: _entry(naming, name, positions, head) for name in leaf_names}
    unnamed = sorted(name for name, entry in entries.items() if entry is None)
    if unnamed:
        raise InputError(
            f"naming {naming.name!r} of {naming.network} has no rule for: {', '.join(unnamed[:12])}"
            + (f" and {len(unnamed) - 12} more" if unnamed[12:] else "")
        )
    named = {name: entry for name, entry in entries.items() if entry is not None}
    if (channel_order or naming.channel_order) == "bgr":
        if not naming.image:
            raise InputError(
                f"channel_order=bgr: weights named as in {naming.name!r} take rgb; leave it empty"
            )
        kernel = f"params/{naming.image}/kernel"
        if kernel in named:
            layout = named[kernel].layout.replace("none", "")
            layout = ", ".join(filter(None, [layout, REVERSED]))
            named[kernel] = dataclasses.replace(named[kernel], layout=layout)
    return named


def _positions(naming: Naming, leaf_names: Iterable[str]) -> Mapping[str, int | str]:
    return {} if naming.positions is None else naming.positions(map(_module, leaf_names))


def _module(leaf_name: str) -> str:
    """Returns the module of a leaf: "stage1/conv1" of "params/stage1/conv1/kernel"."""
    return leaf_name.partition("/")[2].rpartition("/")[0]


def _entry(
    naming: Naming, leaf_name: str, positions: Mapping[str, int | str], head: str = ""
) -> Entry | None:
    if naming.name == "tl_jax":
        return Entry(leaf_name, "none")
    module, leaf = _module(leaf_name), leaf_name.rpartition("/")[2]
    for rule in naming.rules:
        found = re.fullmatch(rule.module, module)
        if found and leaf in rule.leaves:
            last, layout = rule.leaves[leaf]
            position = str(positions.get(module, 0))
            source = _fill(rule.source, found.groupdict(), position=position, head=head)
            return Entry(f"{source}{naming.separator}{last}", layout)
    return None


def _fill(template: str, numbers: Mapping[str, str], **names: str) -> str:
    less = {f"{key}0": str(int(value) - 1) for key, value in numbers.items()}
    more = {f"{key}1": str(int(value) + 1) for key, value in numbers.items()}
    return template.format(**numbers, **less, **more, **names)


def to_ours(array: np.ndarray, layout: str) -> np.ndarray:
    """Returns a source array in our layout; an array of another rank or map is returned as it is."""
    layout, reverses = _without_reversal(layout)
    if reverses:
        array = to_ours(array, layout)
        return array[..., ::-1, :] if array.ndim == 4 else array
    if layout in FLATTENED:
        return _flattened_to_ours(array, *FLATTENED[layout])
    axes = LAYOUTS[layout]
    return array.transpose(axes) if axes and array.ndim == len(axes) else array


def to_theirs(array: np.ndarray, layout: str) -> np.ndarray:
    """Returns one of our arrays in the source's layout, contiguous; undoes `to_ours`."""
    layout, reverses = _without_reversal(layout)
    if reverses:
        array = array[..., ::-1, :]
    if layout in FLATTENED:
        side, flat = FLATTENED[layout]
        maps = array.reshape(side, side, -1, array.shape[-1]).transpose(3, 2, 0, 1)
        return np.ascontiguousarray(maps.reshape(len(maps), -1) if flat else maps)
    axes = LAYOUTS[layout]
    return np.ascontiguousarray(array.transpose(np.argsort(axes)) if axes else array)


def _without_reversal(layout: str) -> tuple[str, bool]:
    """Returns a layout as a key of `LAYOUTS` or `FLATTENED`, and whether input channels are reversed too."""
    rest = layout.removesuffix(REVERSED)
    return rest.removesuffix(", ") or "none", rest != layout


def _flattened_to_ours(array: np.ndarray, side: int, flat: bool) -> np.ndarray:
    """Returns [H * W * I, O] of [O, I * H * W] (flat) or [O, I, H, W]."""
    if flat and (array.ndim != 2 or array.shape[1] % side**2):
        return array
    if not flat and array.shape[2:] != (side, side):
        return array
    maps = array.reshape(len(array), -1, side, side)
    return maps.transpose(2, 3, 1, 0).reshape(-1, len(array))
