"""What the runs of an ablation cost: their time, and what a variant gains for the time that it takes more."""

from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax import statistics
from tl_jax.ablation.analysis import Row
from tl_jax.ablation.spec import Spec
from tl_jax.reporting import intervals, tables
from tl_jax.statistics import PairedDifference

EXPLAINED = (
    "Time of preparation, training and validation, test not included; runs that one program trained share theirs "
    "alike, and what a run needed of others (source, teacher, members of a soup) counts for each that needed it. "
    "Device-seconds are the time of a run times its devices; "
    "their difference is the mean over pairs of runs of one seed, with its 95% interval. The effect per "
    "device-minute is the difference of the metric on test, divided by the device-minutes that the variant takes "
    "more; it is given where the intervals of both leave out 0."
)


def of_result(result: Mapping[str, Any] | None, seconds: float | None) -> dict[str, Any]:
    """Returns what a run took: seconds, parameters, devices, training images; None where unknown.

    Args:
        result: of the run; None where it has none.
        seconds: its share of the time of those that it was made with; None where nobody noted it, as of a run that
            another command made: then it is what the run says of itself. What it needed of others (its source, its
            teacher, members of its soup) counts for each run that needed it, whoever trained it.
    """
    found = result or {}
    groups = found.get("parameters")
    together = None if result is None else found.get("dispatch", {}).get("together", 1)
    if seconds is None and "wall_seconds" in found:
        seconds = found["wall_seconds"] / together
    if seconds is not None:
        seconds += found.get("shared_seconds", 0.0)
    return {
        "seconds": None if result is None else seconds,
        "together": together,
        "trainable": None if not groups else sum(group["trainable"] for group in groups),
        "parameters": None if not groups else sum(group["parameters"] for group in groups),
        "devices": (found.get("device") or {}).get("count"),
        "train_examples": found.get("train_examples"),
    }


def table(
    spec: Spec,
    rows: Sequence[Row],
    chosen: Mapping[tuple[str, int], int],
    test: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Returns a row for each variant and number of labels: its trials, the time of its runs, what more time brings.

    Args:
        spec: of the ablation.
        rows: of all cells.
        chosen: the trial of each variant and number of labels; its runs are compared in pairs.
        test: rows of `analysis.summarise` on test.
    """
    found = []
    for of_test in test:
        shots, variant, reference = of_test["shots"], of_test["variant"], of_test["reference"]
        seconds = [
            row["seconds"]
            for row in rows
            if (row["variant"], row["shots"]) == (variant, shots) and row["seconds"] is not None
        ]
        longer = None
        if variant != reference:
            pair = (
                device_seconds(rows, name, shots, chosen[name, shots])
                for name in (variant, reference)
            )
            longer = statistics.paired_difference(*pair)
        found.append(
            {
                **({"labels per class": shots or "all"} if len(spec.labelled) > 1 else {}),
                "variant": variant,
                "trials of each seed": len(spec.trials(variant)),
                "runs": len(seconds),
                "time of a run": tables.duration(sum(seconds) / len(seconds)) if seconds else None,
                "in all": tables.duration(sum(seconds)),
                "device-seconds, difference": "(compared with)"
                if longer is None
                else intervals.NONE
                if longer.mean is None
                else intervals.difference(longer, percent=False),
                "effect per device-minute": _effect(of_test["difference"], longer, spec),
            }
        )
    return found


def device_seconds(rows: Sequence[Row], variant: str, shots: int, trial: int) -> dict[int, float]:
    """Returns {seed: wall seconds times devices} of the runs of a trial, where both are known."""
    return {
        row["seed"]: row["seconds"] * row["devices"]
        for row in rows
        if (row["variant"], row["shots"], row["trial"]) == (variant, shots, trial)
        and row["seconds"] is not None
        and row["devices"] is not None
    }


def _effect(effect: Mapping[str, Any] | None, longer: PairedDifference | None, spec: Spec) -> str:
    """Returns the difference of the metric for each device-minute more; "-" where one could be 0 or has no spread."""
    if effect is None or longer is None:
        return intervals.NONE
    if not (_leaves_out_zero(effect["interval"]) and _leaves_out_zero(longer.interval)):
        return intervals.NONE
    assert longer.mean is not None
    ratio = effect["mean"] / (longer.mean / 60)
    return f"{100 * ratio:+.3g} points" if spec.metric != "loss" else f"{ratio:+.3g}"


def _leaves_out_zero(interval: Sequence[float] | None) -> bool:
    return (
        interval is not None and interval[0] < interval[1] and not interval[0] <= 0 <= interval[1]
    )
