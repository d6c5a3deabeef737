"""The strict merge of foreign tensors into the variables of a model."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import trees
from tl_jax.errors import InputError, unknown
from tl_jax.porting.naming import (
    CHANNEL_ORDERS,
    FLATTENED,
    Entry,
    Naming,
    name_map,
    to_ours,
)
from tl_jax.porting.report import PortReport, Row
from tl_jax.porting.schemes import get_naming, recognise

HEAD_CHOICES = ("keep", "reset")
RESET_RULE = "head=reset: the head starts fresh"
CHOSEN_RULE = "reset={pattern}: starts fresh"
HEADLESS_RULE = "the model has no head (num_classes=0)"
_HEAD = "params/head/"
# The float types that are read; each becomes the leaf's own type.
_FLOATS = ("float32", "float64", "float16", "bfloat16")
_SHOWN = 10  # differences of a kind: those of a network of another depth fill pages


def port_state_dict(
    state_dict: Mapping[str, np.ndarray],
    variables: Mapping[str, Any],
    *,
    head: str = "keep",
    reset: Sequence[str] = (),
    naming: str | None = None,
    channel_order: str | None = None,
) -> tuple[dict[str, Any], PortReport]:
    """Returns `variables` with every leaf taken from `state_dict`, and the account of it.

    Strict: each source tensor is used, or waived by a rule that the report states; each leaf is
    filled or, under head="reset" or where `reset` matches it, keeps its value in `variables`.

    Args:
        state_dict: {source name: array}, without wrappers and prefixes.
        variables: {"params": ..., "batch_stats": ...}, initialised; only the values of leaves that are reset
            are read, so the others may be `jax.ShapeDtypeStruct`s.
        head: "keep" needs a source head of the same number of classes; "reset" leaves the head of
            `variables` in place whatever the source holds.
        reset: regular expressions over leaf names such as "stage2/conv/kernel", each a full match; the leaves
            and the statistics that one matches keep their values in `variables`, whatever the source holds.
        naming: the naming of the source; None recognises it by a marker.
        channel_order: of the images that the source's network takes, "rgb" or "bgr", for which the input
            channels of the first kernel are reversed; None for that of the naming.

    Raises:
        InputError: if the naming is not recognised or anything is missing, extra, misshapen or of
            another type; one message lists all of it, sorted, of each kind ten at most and the number of others.
    """
    if head not in HEAD_CHOICES:
        raise unknown("treatment of the head", head, HEAD_CHOICES)
    if channel_order not in (None, *CHANNEL_ORDERS):
        raise unknown("order of channels", str(channel_order), CHANNEL_ORDERS)
    leaves = trees.flatten(variables)
    scheme = get_naming(naming, leaves) if naming else recognise(state_dict)
    entries = name_map(scheme, leaves, tensors=state_dict, channel_order=channel_order)
    problems: list[str] = []
    rows: list[Row] = []
    ported: dict[str, Any] = {}

    rules = reset_rules(leaves, head, reset)
    for name, leaf in leaves.items():
        entry = entries[name]
        if name in rules:
            ported[name] = jnp.asarray(leaf)
            rows.append(_row(name, leaf, "", None, "reset", "none", rules[name]))
        elif entry.source not in state_dict:
            problems.append(f"missing: {entry.source}, for {name} {tuple(leaf.shape)}")
        else:
            array = np.asarray(state_dict[entry.source])
            problem = _misfit(name, leaf, entry, array)
            if problem:
                problems.append(problem)
                continue
            value = np.ascontiguousarray(to_ours(array, entry.layout).astype(leaf.dtype))
            ported[name] = jax.device_put(value)
            cast = "" if array.dtype == leaf.dtype else f"cast {array.dtype} to {leaf.dtype}"
            rows.append(_row(name, leaf, entry.source, array, "filled", entry.layout, cast))

    used = {row.source for row in rows}
    expected = {entry.source for entry in entries.values()}
    waived = {entries[name].source: rule for name, rule in rules.items()}
    for source in sorted(set(state_dict) - used):
        rule = waived.get(source) or _waiver(scheme, source, head, leaves, state_dict)
        if rule:
            array = np.asarray(state_dict[source])
            rows.append(_row("", array, source, array, "waived", "none", rule))
        elif source not in expected:
            problems.append(f"not expected: {source} {np.shape(state_dict[source])}")

    if problems:
        first = (
            f"the {len(state_dict)} source tensors ({scheme.name} naming) do not fit the model's "
            f"{len(leaves)} leaves; {len(problems)} differ:"
        )
        hints = [
            hint
            for pattern, hint in scheme.hints.items()
            if any(re.fullmatch(pattern, problem) for problem in problems)
        ]
        raise InputError("\n".join([first, *_shortened(problems), *hints]))
    # A collection without leaves has none to be ported.
    filled = {collection: {} for collection in variables} | trees.unflatten(ported)
    order = channel_order or scheme.channel_order
    return filled, PortReport(scheme.name, head, tuple(rows), channel_order=order)


def fits(scheme: Naming, leaves: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bool:
    """Returns whether tensors can be ported with head="reset": all but the head is there, and nothing else.

    Args:
        scheme: the naming of the source.
        leaves: {leaf name: array or its shape and type} of a model.
        tensors: {source name: array}.
    """
    try:
        entries = name_map(scheme, leaves, tensors=tensors, channel_order="rgb")
    except InputError:
        return False
    body = [name for name in leaves if not name.startswith(_HEAD)]
    used = {entries[name].source for name in body}
    if not used <= tensors.keys():
        return False
    body.sort(key=lambda name: entries[name].layout in FLATTENED)  # these are copied to be compared
    return all(
        _misfit(name, leaves[name], entries[name], np.asarray(tensors[entries[name].source]))
        is None
        for name in body
    ) and all(
        _waiver(scheme, source, "reset", leaves, tensors) is not None
        for source in tensors.keys() - used
    )


def reset_rules(leaves: Iterable[str], head: str, patterns: Sequence[str]) -> dict[str, str]:
    """Returns {leaf that starts fresh: by which rule}.

    Args:
        leaves: names such as "params/stage1/conv1/kernel" and "batch_stats/stage1/bn1/mean".
        head: "keep" or "reset".
        patterns: see `port_state_dict`.

    Raises:
        InputError: if a pattern is no regular expression or matches no leaf.
    """
    names: dict[str, list[str]] = {}
    for leaf in leaves:
        names.setdefault(leaf.partition("/")[2], []).append(leaf)
    rules: dict[str, str] = {}
    for pattern, matched in trees.match(patterns, names).items():
        rules |= {
            leaf: CHOSEN_RULE.format(pattern=pattern) for name in matched for leaf in names[name]
        }
    if head == "reset":
        heads = [leaf for name in names for leaf in names[name] if leaf.startswith(_HEAD)]
        rules |= dict.fromkeys(heads, RESET_RULE)
    return rules


def _shortened(problems: list[str]) -> list[str]:
    """Returns sorted lines such as "missing: ...", of each kind the first ones and how many more there are."""
    lines = []
    kinds = sorted({problem.partition(":")[0] for problem in problems})
    for kind in kinds:
        of_kind = sorted(line for line in problems if line.startswith(f"{kind}:"))
        lines += of_kind[:_SHOWN]
        if len(of_kind) > _SHOWN:
            lines.append(f"{kind}: {len(of_kind) - _SHOWN} more")
    return lines


def _misfit(name: str, leaf: Any, entry: Entry, array: np.ndarray) -> str | None:
    if array.dtype.name not in _FLOATS:
        return f"wrong type: {entry.source}, for {name}: {array.dtype}, expected {leaf.dtype}"
    ours = to_ours(array, entry.layout)
    if ours.shape == tuple(leaf.shape):
        return None
    if (
        name.startswith(_HEAD)
        and ours.shape[-1:] != leaf.shape[-1:]
        and ours.ndim == len(leaf.shape)
    ):
        return (
            f"other classes: {entry.source} has {ours.shape[-1]} classes, the model has "
            f"{leaf.shape[-1]} ({name}); head=reset starts a fresh head"
        )
    as_ours = "" if entry.layout == "none" else f" ({entry.layout}: {ours.shape})"
    return (
        f"wrong shape: {entry.source}, for {name}: {array.shape}{as_ours}, "
        f"expected {tuple(leaf.shape)}"
    )


def _waiver(
    scheme: Naming,
    source: str,
    head: str,
    leaves: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> str | None:
    for pattern, reason in scheme.waived.items():
        if re.fullmatch(pattern, source):
            return reason
    own_head = [name for name in leaves if name.startswith(_HEAD)]
    head_leaves = own_head or [f"{_HEAD}kernel", f"{_HEAD}bias"]
    head_map = name_map(scheme, head_leaves, tensors=tensors, channel_order="rgb")
    of_head = source in {entry.source for entry in head_map.values()}
    for group, (pattern, reason) in scheme.waived_without.items():
        if not of_head and re.fullmatch(pattern, source) and not _has_group(leaves, group):
            return reason
    if scheme.backbone is not None and not re.fullmatch(scheme.backbone, source):
        of_head = True
    if of_head and not own_head:
        return HEADLESS_RULE
    if of_head and head == "reset":
        return RESET_RULE
    return None


def _has_group(leaves: Mapping[str, Any], group: str) -> bool:
    return any(name.startswith(f"params/{group}/") for name in leaves)


def _row(
    target: str,
    leaf: Any,
    source: str,
    array: np.ndarray | None,
    status: str,
    layout: str,
    rule: str,
) -> Row:
    return Row(
        target=target,
        source=source,
        status=status,
        layout=layout,
        shape=tuple(leaf.shape),
        dtype=str(leaf.dtype),
        source_shape=() if array is None else tuple(array.shape),
        source_dtype="" if array is None else str(array.dtype),
        rule=rule,
    )
