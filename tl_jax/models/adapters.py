"""Adapters: small changes of frozen convolutions, trained in their place.

An adapter is linear, so that a convolution with it is a convolution with another kernel. Its parameters are leaves
beside the kernel; they are merged into it before the network is applied, which thus knows nothing of them.

Shapes: k the size of a kernel, C input channels (of a group), D output channels, r the rank.
"""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from tl_jax import trees
from tl_jax.errors import InputError, unknown
from tl_jax.models.network import HEAD, Network

Tree = dict[str, Any]

KINDS = ("residual", "low_rank")
_RESIDUAL, _LOW_RANK = "adapter", ("lora_a", "lora_b")
NAMES = (_RESIDUAL, *_LOW_RANK)


@dataclasses.dataclass(frozen=True)
class Adapted:
    """A network whose convolutions have adapters; it meets `Network` by that of the network inside.

    - `residual`: beside each convolution f with k > 1, odd, a 1x1 convolution a of the same stride: f * x + a * x.
      `adapter` is float32 [C, D], and 0 at the start.
    - `low_rank`: each kernel, as a matrix [k k C, D], changes by A B: a convolution to r channels, then a 1x1
      convolution. `lora_a` is float32 [k, k, C, r], at random, and `lora_b` [r, D], 0 at the start. Convolutions with
      r channels or fewer, in or out, have none.

    The head has no adapter; it is trained itself.

    Attributes:
        network: the module inside.
        kind: of `KINDS`.
        rank: r, of `low_rank`, at least 1.

    Raises:
        InputError: for another kind or rank, or if no convolution would have an adapter.

    Source: Rebuffi, Bilen and Vedaldi 2018 (arXiv:1803.10082), section 3, the parallel configuration; Hu et al. 2021
    (arXiv:2106.09685), section 4.1, with A drawn as `loralib` draws it and a scale of 1.
    """

    network: Network
    kind: str
    rank: int = 4

    has_adapters = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("adapters", self.kind, KINDS)
        if self.rank < 1:
            raise InputError(f"adapter_rank is {self.rank}, expected 1 or more")

    def __getattr__(self, name: str) -> Any:
        """Returns what the module inside has by that name, such as `boundaries`."""
        if name.startswith("__") or name == "network":
            raise AttributeError(name)
        return getattr(self.network, name)

    def init(self, key: jax.Array, *args: Any, **options: Any) -> Tree:
        """Returns the variables of the module inside, with adapters."""
        variables = self.network.init(key, *args, **options)
        leaves = trees.flatten(variables["params"])
        with_adapters = trees.unflatten(leaves | self.leaves(leaves, key))
        return {**variables, "params": with_adapters}

    def apply(self, variables: Tree, *args: Any, **options: Any) -> Any:
        """Applies the module inside with merged kernels."""
        merged = {**variables, "params": merge(variables["params"])}
        return self.network.apply(merged, *args, **options)

    def clone(self, **fields: Any) -> "Adapted":
        """Returns the same with other fields of the module inside."""
        return dataclasses.replace(self, network=self.network.clone(**fields))

    def leaves(self, leaves: Tree, key: jax.Array) -> dict[str, jax.Array]:
        """Returns {name: adapter} of adapters that change nothing yet.

        Args:
            leaves: {name: array or shape} of the params of the module inside.
            key: of what is drawn; each leaf depends on it and its name alone.
        """
        added: dict[str, jax.Array] = {}
        for name, kernel in leaves.items():
            module, _, last = name.rpartition("/")
            if last != "kernel" or len(kernel.shape) != 4 or name.partition("/")[0] == HEAD:
                continue
            make = self._residual if self.kind == "residual" else self._low_rank
            added |= {
                f"{module}/{part}": leaf for part, leaf in make(name, kernel.shape, key).items()
            }
        if not added:
            raise InputError(
                f"model.adapters={self.kind}: no convolution of the network has a kernel for them"
            )
        return added

    def _residual(self, name: str, shape: tuple[int, ...], key: jax.Array) -> dict[str, jax.Array]:
        del name, key
        height, width, channels, features = shape
        if height == 1 or height % 2 == 0 or height != width:
            return {}
        return {_RESIDUAL: jnp.zeros((channels, features), jnp.float32)}

    def _low_rank(self, name: str, shape: tuple[int, ...], key: jax.Array) -> dict[str, jax.Array]:
        height, width, channels, features = shape
        if min(channels, features) <= self.rank:
            return {}
        drawn = jax.random.fold_in(key, zlib.crc32(name.encode()) % 2**31)
        bound = (height * width * channels) ** -0.5
        first = jax.random.uniform(
            drawn, (height, width, channels, self.rank), jnp.float32, -bound, bound
        )
        return dict(
            zip(_LOW_RANK, (first, jnp.zeros((self.rank, features), jnp.float32)), strict=True)
        )


def merge(params: Tree) -> Tree:
    """Returns params without adapters, whose kernels are those that a network with them has."""
    leaves = trees.flatten(params)
    merged = {name: leaf for name, leaf in leaves.items() if not is_adapter(name)}
    for name in merged:
        module, _, last = name.rpartition("/")
        if last == "kernel":
            parts = {part: leaves.get(f"{module}/{part}") for part in NAMES}
            merged[name] = _changed(merged[name], *parts.values())
    return trees.unflatten(merged)


def merged_variables(variables: Tree) -> Tree:
    """Returns {"params", "batch_stats"} of the network without adapters that computes the same."""
    return {**variables, "params": merge(variables["params"])}


def is_adapter(leaf: str) -> bool:
    """Returns whether a leaf of params, such as "stage1/block0/conv1/adapter", is of an adapter."""
    return leaf.rpartition("/")[2] in NAMES


def plain(model: Network) -> Network:
    """Returns the network without adapters."""
    return model.network if isinstance(model, Adapted) else model


def _changed(kernel: Any, residual: Any, first: Any, second: Any) -> Any:
    if residual is not None:
        centre = kernel.shape[0] // 2
        kernel = kernel.at[centre, centre].add(residual.astype(kernel.dtype))
    if first is not None:
        # Exact in float32 also where a GPU would take TF32.
        change = jnp.einsum("hwcr,rd->hwcd", first, second, precision=jax.lax.Precision.HIGHEST)
        kernel = kernel + change.astype(kernel.dtype)
    return kernel
