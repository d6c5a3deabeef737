"""Which leaves are trained, what their BatchNorm does, and the proof afterwards.

A mask is a tree of Python bools in the shape of `params`, True where the leaf is frozen. A group is
a top-level part of the network that has parameters: `stem`, `stage1`, ..., `head`. Their order is that of the
network's boundaries, from input to head; that of `params` says nothing. Parameters of objectives are a group
after all of these, which strategies do not freeze and patterns may.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tl_jax import errors, models, trees
from tl_jax.errors import InputError
from tl_jax.models.network import HEAD, OBJECTIVE
from tl_jax.trees import Tree

_AFTER_BACKBONE = (HEAD, OBJECTIVE)
_OF_GROUPS = {"up_to": "up_to:GROUP", "top": "top:K", "only": "only:GROUP"}
STRATEGIES = (
    "none",
    "backbone",
    "all_but_bn",
    "all_but_bias",
    "all_but_adapters",
    *_OF_GROUPS.values(),
)


def groups(params: Tree, boundaries: Sequence[str]) -> tuple[str, ...]:
    """Returns the top-level names of `params` in the order of `boundaries`, those of the network.

    That of objectives, where there is one, comes last.

    Raises:
        InputError: if `params` has a group that is no boundary.
    """
    strange = sorted(set(params) - {*boundaries, OBJECTIVE})
    if strange:
        raise InputError(
            f"params has the groups {', '.join(strange)}; expected boundaries: {', '.join(boundaries)}"
        )
    return tuple(name for name in (*boundaries, OBJECTIVE) if name in params)


def frozen_mask(
    params: Tree,
    strategy: str = "none",
    patterns: Sequence[str] = (),
    *,
    boundaries: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Returns the mask of a named strategy, plus the leaves that patterns add to it.

    Args:
        params: nested dict of arrays.
        strategy: `none`; `backbone` (everything but the head); `up_to:stage2` (everything from the
            input to the end of stage 2; any group but the last); `top:2` (everything but the head and the two
            groups before it; `top:0` is `backbone`); `only:stage1` (everything but that group and the head);
            `all_but_bn` (everything but the scale and bias of BatchNorm and other normalisation, and the head);
            `all_but_bias` (everything but the biases, and the head). BatchNorm whose bias is trained is not frozen:
            it normalises by the statistics of the batch, and records them. `all_but_adapters` (everything but
            adapters, scale and bias of BatchNorm, and the head). None freezes parameters of objectives.
        patterns: regular expressions over leaf names, matched in full; the matches are frozen too.
        boundaries: of the network, in order; needed by `up_to:GROUP`, `top:K` and `only:GROUP`.

    Returns:
        A tree of Python bools like `params`, True where the leaf is frozen.

    Raises:
        InputError: for an unknown strategy or group, `all_but_bn` where there is no normalisation, `all_but_bias`
            where there are no biases, a pattern that matches nothing, or if no leaf of the network is left to train.

    Example:
        >>> frozen_mask({"stem": {"kernel": 0}, "head": {"kernel": 0}}, "backbone")
        {'stem': {'kernel': True}, 'head': {'kernel': False}}
    """
    names = list(trees.flatten(params))
    frozen = _frozen_by_strategy(params, names, strategy, boundaries)
    for matched in trees.match(patterns, names).values():
        frozen.update(matched)
    network = [name for name in names if _group(name) != OBJECTIVE]
    if frozen.issuperset(network):
        given = f"strategy {strategy!r}" + (f" with patterns {list(patterns)}" if patterns else "")
        raise InputError(f"{given} freezes all {len(network)} leaves: nothing is left to train")
    return trees.unflatten({name: name in frozen for name in names})


def frozen_norms(params: Tree, mask: Tree) -> frozenset[str]:
    """Returns the names of the normalisation modules whose scale and bias are both frozen.

    Such a module is one that holds `scale` and `bias`, as the BatchNorm `stage1/block0/bn1` does.
    """
    frozen = trees.flatten(mask)
    return frozenset(
        norm for norm in _norms(params) if frozen[f"{norm}/scale"] and frozen[f"{norm}/bias"]
    )


def summary(
    params: Tree,
    batch_stats: Tree,
    mask: Tree,
    norm_policy: str,
    multipliers: Tree | None,
    opt_state: Any,
    *,
    boundaries: Sequence[str],
) -> list[dict[str, Any]]:
    """Returns one row per group, from input to output, of what training will do to it.

    Args:
        params: nested dict of arrays (or of shapes and dtypes).
        batch_stats: running statistics, nested dict like `params` restricted to BatchNorm.
        mask: True where a leaf is frozen.
        norm_policy: what frozen BatchNorm modules do in training; see `models.make_forward`.
        multipliers: learning-rate multipliers in the shape of `params`; None for 1 everywhere.
        opt_state: the optimizer state; its arrays are attributed to the leaf whose name ends their
            path. Counters, which belong to no leaf, are left out.
        boundaries: of the network, in order.

    Returns:
        Rows with `group`; `parameters` and `trainable`, numbers of scalars; `state`, one of
        trainable, frozen, mixed; `batch_norm`, what its BatchNorm modules do ("-" without any;
        "frozen (5 of 8)" if only some are frozen); `lr_multiplier`, a number, a range such as "0.1
        to 1", or "-" if nothing is trained; `statistics`, the number of running statistics;
        `optimizer_state_bytes`.
    """
    leaves, frozen = trees.flatten(params), trees.flatten(mask)
    scales = dict.fromkeys(leaves, 1.0) if multipliers is None else trees.flatten(multipliers)
    state_bytes = _state_bytes(opt_state, leaves)
    # Other normalisation than BatchNorm has no running statistics.
    with_statistics = {name.rpartition("/")[0] for name in trees.flatten(batch_stats)}
    all_norms = [norm for norm in _norms(params) if norm in with_statistics]
    norms = frozen_norms(params, mask)
    rows = []
    for group in groups(params, boundaries):
        own = [name for name in leaves if _group(name) == group]
        trained = [name for name in own if not frozen[name]]
        rows.append(
            {
                "group": group,
                "parameters": sum(_size(leaves[name]) for name in own),
                "trainable": sum(_size(leaves[name]) for name in trained),
                "state": _state(len(trained), len(own)),
                "batch_norm": _norm_state(group, all_norms, norms, norm_policy),
                "lr_multiplier": _span([scales[name] for name in trained]),
                "statistics": _group_size(batch_stats, group),
                "optimizer_state_bytes": sum(state_bytes[name] for name in own),
            }
        )
    return rows


def verify_unchanged(
    before: Mapping[str, Tree],
    after: Mapping[str, Tree],
    mask: Tree,
    norms: Collection[str],
    norm_policy: str,
) -> dict[str, Any]:
    """Compares, bit by bit, everything that training had to leave alone.

    Args:
        before: `{"params": ..., "batch_stats": ...}` at the start; a copy on the host, since the
            training step donates its state.
        after: the same at the end.
        mask: True where a leaf is frozen.
        norms: the BatchNorm modules returned by `frozen_norms`.
        norm_policy: with `update` the statistics of `norms` may change, and none is compared.

    Returns:
        `frozen_leaves` and `frozen_statistics`, how many arrays were compared; `changed`, the
        sorted names of those that differ (statistics as `batch_stats/...`), empty if all is well.
    """
    return verify_digests(digests(before, mask, norms, norm_policy), after)


def digests(
    variables: Mapping[str, Tree], mask: Tree, norms: Collection[str], norm_policy: str
) -> dict[str, str]:
    """Returns {name: SHA-256 of type, shape and bits} of everything that training has to leave alone.

    Args:
        variables: `{"params": ..., "batch_stats": ...}`.
        mask: as of `verify_unchanged`, as are the others.
        norms: likewise.
        norm_policy: likewise.
    """
    names = [f"params/{name}" for name, frozen in trees.flatten(mask).items() if frozen]
    if norm_policy != "update":
        statistics = sorted(trees.flatten(variables["batch_stats"]))
        kept = [name for name in statistics if name.rpartition("/")[0] in norms]
        names += [f"batch_stats/{name}" for name in kept]
    return _digests(variables, names)


def verify_digests(before: Mapping[str, str], after: Mapping[str, Tree]) -> dict[str, Any]:
    """Returns what `verify_unchanged` does, from the digests of the start alone.

    Args:
        before: from `digests`, at the start.
        after: `{"params": ..., "batch_stats": ...}` at the end.
    """
    now = _digests(after, before)
    leaves = [name for name in before if name.startswith("params/")]
    return {
        "frozen_leaves": len(leaves),
        "frozen_statistics": len(before) - len(leaves),
        "changed": sorted(
            name.removeprefix("params/") for name in before if now[name] != before[name]
        ),
    }


def _frozen_by_strategy(
    params: Tree, names: list[str], strategy: str, boundaries: Sequence[str] | None
) -> set[str]:
    if strategy == "none":
        return set()
    trained = _trained_leaves(params, names, strategy)
    if trained is None:
        if boundaries is None:
            raise InputError(f"strategy {strategy!r} needs the boundaries of the network, in order")
        order = [group for group in groups(params, boundaries) if group != OBJECTIVE]
        groups_trained = {*_trained_groups(order, strategy), OBJECTIVE}
        return {name for name in names if _group(name) not in groups_trained}
    return {name for name in names if _group(name) not in _AFTER_BACKBONE and name not in trained}


def _trained_leaves(params: Tree, names: list[str], strategy: str) -> set[str] | None:
    """Returns the leaves outside the head that a strategy trains; None where it is of groups."""
    if strategy == "backbone":
        return set()
    if strategy == "all_but_bn":
        norms = {f"{norm}/{part}" for norm in _norms(params) for part in ("scale", "bias")}
        return _some(norms, strategy, "BatchNorm")
    if strategy == "all_but_adapters":
        adapters = {name for name in names if models.is_adapter(name)}
        norms = {f"{norm}/{part}" for norm in _norms(params) for part in ("scale", "bias")}
        return _some(adapters, strategy, "adapters (model.adapters)") | norms
    if strategy == "all_but_bias":
        biases = {
            name for name in names if name.endswith("/bias") and _group(name) not in _AFTER_BACKBONE
        }
        return _some(biases, strategy, "biases before the head")
    return None


def _some(leaves: set[str], strategy: str, what: str) -> set[str]:
    if not leaves:
        raise InputError(
            f"strategy {strategy!r}: the network has no {what}; expected 'backbone', which trains the head"
        )
    return leaves


def _trained_groups(order: Sequence[str], strategy: str) -> Sequence[str]:
    """Returns the groups that a strategy trains, of all in their order."""
    kind, _, argument = strategy.partition(":")
    if kind not in _OF_GROUPS or not argument:
        raise errors.unknown("freezing strategy", strategy, STRATEGIES)
    if kind == "top":
        below = len(order) - 1
        if not argument.isdecimal() or int(argument) > below:
            raise InputError(
                f"freezing strategy {strategy!r}: expected top:0 (the head alone) to top:{below} (all groups of "
                f"{', '.join(order)})"
            )
        return order[below - int(argument) :]
    if argument not in order[:-1]:
        raise errors.unknown(f"group in freezing strategy {_OF_GROUPS[kind]}", argument, order[:-1])
    if kind == "only":
        return argument, order[-1]
    return order[order.index(argument) + 1 :]


def _group(name: str) -> str:
    return name.split("/", 1)[0]


def _norms(params: Tree) -> list[str]:
    names = trees.flatten(params)
    modules = [name.removesuffix("/scale") for name in names if name.endswith("/scale")]
    return [module for module in modules if f"{module}/bias" in names]


def _size(leaf: Any) -> int:
    return int(np.prod(np.shape(leaf)))


def _group_size(tree: Tree, group: str) -> int:
    return trees.count(tree[group]) if group in tree else 0


def _state(trained: int, total: int) -> str:
    if trained == 0:
        return "frozen"
    return "trainable" if trained == total else "mixed"


def _norm_state(group: str, norms: list[str], frozen: Collection[str], policy: str) -> str:
    own = [norm for norm in norms if _group(norm) == group]
    held = [norm for norm in own if norm in frozen]
    if not own:
        return "-"
    if not held or policy == "update":
        return "update"
    return policy if len(held) == len(own) else f"{policy} ({len(held)} of {len(own)})"


def _span(values: list[float]) -> float | str:
    if not values:
        return "-"
    low, high = min(values), max(values)
    return low if low == high else f"{low:g} to {high:g}"


def _state_bytes(opt_state: Any, names: Collection[str]) -> dict[str, int]:
    total = dict.fromkeys(names, 0)
    for path, leaf in jax.tree_util.tree_flatten_with_path(opt_state)[0]:
        keys = [str(entry.key) for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        owners = ("/".join(keys[start:]) for start in range(len(keys)))
        owner = next((name for name in owners if name in total), None)
        if owner is not None:
            total[owner] += _size(leaf) * leaf.dtype.itemsize
    return total


def _digests(variables: Mapping[str, Tree], names: Iterable[str]) -> dict[str, str]:
    leaves = trees.flatten({name: variables[name] for name in ("params", "batch_stats")})
    found = {}
    for name in names:
        leaf = np.asarray(leaves[name])
        content = hashlib.sha256(f"{leaf.dtype} {leaf.shape}".encode())
        content.update(leaf.tobytes())
        found[name] = content.hexdigest()
    return found
