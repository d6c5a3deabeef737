"""From the results of an ablation's cells to its tables: choice by validation, means, paired differences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tl_jax import statistics
from tl_jax.ablation.spec import Spec
from tl_jax.training.metrics import SELECTION

Row = Mapping[str, Any]

# Status of a cell, beside "finished", "failed" and "diverged".
TO_BE_RUN = "to be run"


def choose(spec: Spec, rows: Sequence[Row]) -> dict[tuple[str, int], int]:
    """Returns {(variant, shots): number of the trial} that is best on validation, on average over seeds.

    A trial of which a run failed or diverged is chosen last. Among equals the first one wins.

    Args:
        spec: of the ablation.
        rows: one for each cell: `variant`, `shots`, `trial`, `seed`, `validation` (the metric, or None).
    """
    sign = 1 if SELECTION[spec.metric] == "max" else -1
    chosen = {}
    for variant in spec.variants:
        for shots in spec.labelled:
            scores = []
            for trial in range(len(spec.trials(variant))):
                values = [row["validation"] for row in _of(rows, variant, shots, trial)]
                known = bool(values) and all(
                    value is not None and math.isfinite(value) for value in values
                )
                scores.append(sign * math.fsum(values) / len(values) if known else -math.inf)
            chosen[variant, shots] = scores.index(max(scores))
    return chosen


def summarise(
    spec: Spec, rows: Sequence[Row], chosen: Mapping[tuple[str, int], int], split: str
) -> list[dict[str, Any]]:
    """Returns a row for each number of labels and variant, on the runs of the trial that was chosen.

    Differences are those of pairs of runs of one seed: from what `spec.compared_with` says or, where the question is
    which variant is best, from the one with the best mean on validation.

    Args:
        spec: of the ablation.
        rows: as `choose` takes them, with `test` where that split was read.
        chosen: of `choose`.
        split: "validation" or "test".
    """
    found = []
    for shots in spec.labelled:
        values = {
            variant: {
                row["seed"]: math.nan if row[split] is None else row[split]
                for row in _of(rows, variant, shots, chosen[variant, shots])
                if split in row
                and row["status"] != TO_BE_RUN
                and not _holds_nothing_out(row, split)
            }
            for variant in spec.variants
        }
        for variant, of_seeds in values.items():
            reference = _reference(spec, rows, chosen, shots, variant)
            runs = _of(rows, variant, shots, chosen[variant, shots])
            row: dict[str, Any] = {
                "shots": shots,
                "variant": variant,
                "values": dict(spec.trials(variant)[chosen[variant, shots]]),
                "trials": len(spec.trials(variant)),
                "failed": sum(one["status"] in ("failed", "diverged") for one in runs),
                split: statistics.mean_over_seeds([*of_seeds.values()]).to_json(),
                **(
                    {"further": _further(spec, runs)}
                    if split == "test" and spec.further_metrics
                    else {}
                ),
                "reference": reference,
                "difference": None,
            }
            if variant != reference and of_seeds and values[reference]:
                row["difference"] = _difference(of_seeds, values[reference], spec.level)
            found.append(row)
    _mark(spec, [row["difference"] for row in found if row["difference"] is not None])
    return found


def _holds_nothing_out(row: Row, split: str) -> bool:
    return split == "validation" and row["status"] == "finished" and not row["held_out"]


def _further(spec: Spec, runs: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Returns {metric: its mean over those runs whose test split was read} of the metrics of more columns."""
    read = [row["further"] for row in runs if "further" in row]
    return {
        name: statistics.mean_over_seeds(
            [math.nan if of[name] is None else of[name] for of in read]
        ).to_json()
        for name in spec.further_metrics
    }


def best_on_validation(
    spec: Spec, rows: Sequence[Row], chosen: Mapping[tuple[str, int], int], shots: int
) -> str | None:
    """Returns the variant with the best mean on validation; None where no mean is known.

    Args:
        spec: of the ablation.
        rows: as `choose` takes them.
        chosen: of `choose`.
        shots: labelled images per class.
    """
    sign = 1 if SELECTION[spec.metric] == "max" else -1

    def score(variant: str) -> float:
        runs = _of(rows, variant, shots, chosen[variant, shots])
        values = [row["validation"] for row in runs]
        if not values or any(value is None or not math.isfinite(value) for value in values):
            return -math.inf
        return sign * math.fsum(values) / len(values)

    best = max(spec.variants, key=score)
    return best if score(best) > -math.inf else None


def _reference(
    spec: Spec,
    rows: Sequence[Row],
    chosen: Mapping[tuple[str, int], int],
    shots: int,
    variant: str,
) -> str:
    """Returns the variant that one is compared with, which test has no part in."""
    if spec.question == "effects":
        return spec.compared_with(variant)
    return best_on_validation(spec, rows, chosen, shots) or spec.reference


def _difference(
    values: Mapping[int, float], baseline: Mapping[int, float], level: float
) -> dict[str, Any]:
    found = statistics.paired_difference(values, baseline)
    pairs = list(found.values.values())
    needed = None
    if found.mean and found.sample_std and math.isfinite(found.sample_std):
        needed = statistics.seeds_needed(found.mean, found.sample_std)
    return {
        **found.to_json(),
        "p": statistics.paired_t_test(pairs),
        "p_signs": statistics.sign_flip_test(pairs),
        "seeds_needed": needed,
    }


def _mark(spec: Spec, differences: Sequence[dict[str, Any]]) -> None:
    """Adds to each difference its corrected p-value and whether it is more than noise; None where unknown."""
    tested = [one for one in differences if one["p"] is not None]
    values = [one["p"] for one in tested]
    corrected = statistics.holm(values) if spec.question == "best" else values
    for one in differences:
        one["p_corrected"] = one["differs"] = None
    for one, value in zip(tested, corrected, strict=True):
        one["p_corrected"], one["differs"] = value, value < spec.level


def _of(rows: Sequence[Row], variant: str, shots: int, trial: int) -> list[Row]:
    key = (variant, shots, trial)
    return [row for row in rows if (row["variant"], row["shots"], row["trial"]) == key]
