"""Parameters that objectives own: trained with the network's, and no part of the network.

They are a group of `params` beside those of the network, `params["objective"]`, and in it one group for each name
that an objective gives: "objective/source_head/kernel" is a leaf. Gradients, the optimizer, averages and checkpoints
have them as they have any other leaf; evaluation, exported weights and a run that is loaded do not.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tl_jax import trees
from tl_jax.errors import InputError
from tl_jax.models.network import OBJECTIVE

GROUP = OBJECTIVE  # of params


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run is like when objectives make their parameters.

    Attributes:
        num_classes: of the data.
        features: {boundary before the head: shape of what it makes of one image}.
        source_head: the head of the weights that the run starts from, {"kernel": [F, S], "bias": [S]} over its S
            classes; None unless an objective needs "source.head".
    """

    num_classes: int
    features: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    source_head: Mapping[str, Any] | None = None


# From a key and the start of the run to a nested dict of float32 arrays.
Initialise = Callable[[jax.Array, Start], Mapping[str, Any]]


def params_of(objective: Any) -> dict[str, Initialise]:
    """Returns {group: what makes it} of the parameters that an objective owns; empty for none.

    Raises:
        InputError: if a group has a name that cannot be part of the name of a leaf.
    """
    groups = dict(getattr(objective, "params", {}))
    for group in groups:
        if not isinstance(group, str) or not group or "/" in group:
            raise InputError(
                f"objective parameters {group!r}: expected a name without '/', such as 'temperature'"
            )
    return groups


def merged(
    groups: Mapping[str, Initialise], others: Mapping[str, Initialise]
) -> dict[str, Initialise]:
    """Returns the groups of two objectives; what both name and make alike is one, which they share.

    Raises:
        InputError: if both make a group of one name in another way.
    """
    for group in groups.keys() & others.keys():
        if groups[group] is not others[group]:
            raise InputError(
                f"two objectives own parameters called {group!r}; expected another name in one of them"
            )
    return {**groups, **others}


def init_params(objective: Any, key: jax.Array, start: Start) -> dict[str, Any]:
    """Returns the parameters that an objective owns, {group: nested dict of float32 arrays}.

    Each group has a key of its own, which depends on its name alone.

    Args:
        objective: see `Objective`.
        key: of the run.
        start: of the run.

    Raises:
        InputError: if a group is no nested dict of float32 arrays, or empty.
    """
    made = {}
    for group, initialise in params_of(objective).items():
        own = jax.random.fold_in(key, zlib.crc32(group.encode()))
        tree = initialise(own, start)
        leaves = trees.flatten(tree) if isinstance(tree, Mapping) else {}
        strange = [
            name for name, leaf in leaves.items() if getattr(leaf, "dtype", None) != jnp.float32
        ]
        if not leaves or strange:
            found = f"{strange[0]} is none" if strange else "there are none"
            raise InputError(
                f"objective parameters {group!r}: {found}; expected a nested dict of float32 arrays, such as "
                '{"value": jnp.ones(())}'
            )
        # Copied: a training step donates its state, and no buffer can be donated twice.
        made[group] = trees.unflatten({name: jnp.array(leaf) for name, leaf in leaves.items()})
    return made


def with_own(params: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the params of a network with those of objectives; as they are where there are none."""
    return {**params, **({GROUP: own} if own else {})}


def of_network(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the params of the network alone."""
    return {group: tree for group, tree in params.items() if group != GROUP}


def of_objectives(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the params of objectives alone, {group: tree}; empty for none."""
    return params.get(GROUP, {})
