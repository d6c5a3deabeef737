"""One row of several sides: prepared one after the other, compared, and timed in rounds that take turns."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import ratios, rounds
from benchmarks.accelerator.children import ChildFailed, Children
from benchmarks.accelerator.rows import Timed
from tl_jax.statistics import mean_over_seeds


def run(row: Timed, children: Children, until: float, peak: float | None) -> dict[str, Any]:
    """Returns the figures of a row: of each side, how far outputs agree, and the speed of the first side.

    A side that fails has an "error" in place of figures; the others are measured all the same.

    Args:
        row: to measure.
        children: its processes.
        until: when it must be done, on the clock of `time.monotonic`.
        peak: FLOP/s of the device at most; None where it is not known.
    """
    sides: dict[str, dict[str, Any]] = {}
    for label, side in row.sides.items():
        given = {**row.settings, **side.settings, "label": label}
        try:
            sides[label] = children.ask(side.child, "prepare", until, **given)
        except ChildFailed as failure:
            _fail(failure, row, sides, label)
    _share_flops(sides)
    outputs = {label: side.pop("outputs") for label, side in sides.items() if "outputs" in side}
    turns = _turns(row, children, until, sides)
    for label, of in turns.items():
        sides[label] |= figures(of, sides[label], peak)
    for label, side in row.sides.items():
        if "error" not in sides[label]:
            _drop(children, side.child, label, until)
    return {
        "settings": dict(row.settings),
        "rounds": row.rounds,
        "sides": sides,
        "agreement": agreement(outputs, row.tolerance),
        "speed_of_first": speeds(
            turns, {label: sides[label]["images_per_step"] for label in turns}
        ),
    }


def _share_flops(sides: dict[str, dict[str, Any]]) -> None:
    """Gives the sides that do not count operations those of the first that does, image for image."""
    counted = (
        side["flops_per_step"] / side["images_per_step"]
        for side in sides.values()
        if side.get("flops_per_step")
    )
    per_image = next(counted, None)
    for side in sides.values():
        if per_image and "images_per_step" in side:
            side.setdefault("flops_per_step", per_image * side["images_per_step"])


def figures(
    turns: Sequence[Mapping[str, float]], prepared: Mapping[str, Any], peak: float | None
) -> dict[str, Any]:
    """Returns the figures of a side from its turns.

    Args:
        turns: of `rounds.turn`.
        prepared: with "images_per_step" and, where they are known, "flops_per_step".
        peak: as in `run`.
    """
    images = prepared["images_per_step"]
    rate = mean_over_seeds([images / turn["seconds"] for turn in turns])
    flops = prepared.get("flops_per_step")
    found = {
        "images_per_second": rate.mean,
        "images_per_second_interval": rate.interval,
        **rounds.summary(list(turns), images),
        "busy_elsewhere": max(turn.get("busy_elsewhere", 0.0) for turn in turns),
    }
    if flops and rate.mean:
        found["flop_per_second"] = flops * rate.mean / images
        found["share_of_peak"] = found["flop_per_second"] / peak if peak else None
    return found


def agreement(outputs: Mapping[str, Sequence[float]], tolerance: float) -> dict[str, Any]:
    """Returns how far each side's outputs are from those of the first one.

    Args:
        outputs: by side: losses of the first updates, or logits.
        tolerance: see `rows.Timed`.

    Example:
        >>> agreement({"jax": [1.0, 2.0], "torch_eager": [1.0, 2.2]}, 0.01)["torch_eager"]["agrees"]
        False
    """
    found = {}
    first = next(iter(outputs.values()), [])
    for label, values in list(outputs.items())[1:]:
        error = math.nan  # which is no agreement
        comparable = len(values) == len(first) > 0
        if comparable and all(map(math.isfinite, [*values, *first])):
            distance = max(abs(one - other) for one, other in zip(values, first, strict=True))
            error = distance / (max(map(abs, first)) or 1.0)
        found[label] = {"error": error, "tolerance": tolerance, "agrees": error <= tolerance}
    return found


def speeds(
    turns: Mapping[str, Sequence[Mapping[str, float]]], images: Mapping[str, int]
) -> dict[str, Any]:
    """Returns the speed of the first side relative to each other: its mean over rounds and 95% interval.

    Args:
        turns: of each side, of the same rounds.
        images: that a step of each side is on.
    """
    times = {label: [turn["seconds"] / images[label] for turn in of] for label, of in turns.items()}
    first, *others = times or [""]
    return {
        label: dict(
            zip(("mean", "interval"), ratios.speed(times[first], times[label]), strict=True)
        )
        for label in others
    }


def _turns(
    row: Timed, children: Children, until: float, sides: dict[str, dict[str, Any]]
) -> dict[str, list[rounds.Turn]]:
    """Returns the turns of all sides that get through; what fails is recorded in `sides`."""
    while row.rounds:
        take = {
            label: _take(row, label, children, until)
            for label in row.sides
            if "error" not in sides[label]
        }
        if not take:
            break
        seconds = row.turn_seconds * row.rounds * len(take)
        try:
            return rounds.interleave(take, row.rounds, seconds)
        except ChildFailed as failure:
            _fail(failure, row, sides)
    return {}


def _take(row: Timed, label: str, children: Children, until: float) -> Callable[[int], rounds.Turn]:
    child = row.sides[label].child
    return lambda repeats: children.ask(child, "turn", until, label=label, repeats=repeats)


def _fail(
    failure: ChildFailed, row: Timed, sides: dict[str, dict[str, Any]], label: str | None = None
) -> None:
    """Records a failure: of the side asked, or of all sides of its process where that is no more."""
    own = (
        []
        if label and failure.alive
        else [other for other in sides if row.sides[other].child == failure.child]
    )
    for other in {*own, *([label] if label else [])}:
        sides[other] = {**sides.get(other, {}), **failure.facts}


def _drop(children: Children, child: str, label: str, until: float) -> None:
    with contextlib.suppress(ChildFailed):  # The next row gets a new process, which holds nothing.
        children.ask(child, "drop", until, label=label)
