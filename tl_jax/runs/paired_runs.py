"""Runs compared image by image on test: paired tests, agreement, classes, calibration.

Everything is a JSON value, keyed by the names of runs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_jax import statistics
from tl_jax.reporting import tables
from tl_jax.runs import same_test_split
from tl_jax.runs.compared_run import ComparedRun
from tl_jax.training import metrics


def not_paired_because(run: ComparedRun, other: ComparedRun) -> str:
    """Returns why two runs cannot be compared image by image, as the end of a sentence; "" where they can."""
    for each in (run, other):
        if each.sealed:
            return f"the test split of {each.name} is sealed"
        if each.predictions is None:
            return f"{each.name} has no predictions"
    split, other_split = run.test_split, other.test_split
    assert split is not None and other_split is not None
    return same_test_split.difference(split, other_split)


def against_first(runs: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """Returns an entry for each run but the first: `run`, `to`, `not_paired`, and what was measured of the pair.

    `not_paired` is the reason, or "". Else there are `examples`, `difference` (top-1 of the run minus that of the
    first), its 95% `interval` over images, `only_run` and `only_first` (images that one of them alone has right),
    `p_mcnemar` and, where several runs are compared so, `p_holm`.
    """
    first, entries = runs[0], []
    for run in runs[1:]:
        reason = not_paired_because(run, first)
        entry: dict[str, Any] = {"run": run.name, "to": first.name, "not_paired": reason}
        if not reason:
            right, right_of_first = _right(run), _right(first)
            difference, interval = statistics.bootstrap_difference(right, right_of_first)
            only_run, only_first, _ = statistics.discordant(right, right_of_first)
            entry |= {
                "examples": len(right),
                "difference": difference,
                "interval": list(interval),
                "only_run": only_run,
                "only_first": only_first,
                "p_mcnemar": statistics.mcnemar(right, right_of_first),
            }
        entries.append(entry)
    paired = [entry for entry in entries if not entry["not_paired"]]
    if len(paired) > 1:
        corrected = statistics.holm([entry["p_mcnemar"] for entry in paired])
        for entry, p_value in zip(paired, corrected, strict=True):
            entry["p_holm"] = p_value
    return entries


def agreement(runs: Sequence[ComparedRun]) -> dict[str, dict[str, Any]]:
    """Returns {run: {other run: {"share", "kappa"}}}, None for two that are not compared image by image."""
    table: dict[str, dict[str, Any]] = {run.name: {} for run in runs}
    for run in runs:
        for other in runs:
            table[run.name][other.name] = None
            if run.predictions is None or not_paired_because(run, other):
                continue
            assert other.predictions is not None
            pair = run.predictions.predicted, other.predictions.predicted
            table[run.name][other.name] = {
                "share": statistics.agreement(*pair),
                "kappa": statistics.cohens_kappa(*pair),
            }
    return table


def classes(runs: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """Returns an entry for each class that has test images, in the order of the classes.

    Each has `class`, `examples`, `recall` {run: share of these that are right} and, of the runs but the first,
    `gained` and `lost` {run: images that are right there and not in the first, and the other way round}. Runs that
    are not compared with the first image by image are left out; without any the list is empty.
    """
    first = runs[0]
    paired = [run for run in runs[1:] if not not_paired_because(run, first)]
    if first.predictions is None or not paired:
        return []
    labels, right = first.predictions.labels, {run.name: _right(run) for run in (first, *paired)}
    entries = []
    for place, name in enumerate(first.predictions.class_names):
        of_class = labels == place
        if not of_class.any():
            continue
        before = right[first.name][of_class]
        after = {run.name: right[run.name][of_class] for run in paired}
        entries.append(
            {
                "class": name,
                "examples": int(of_class.sum()),
                "recall": {
                    run: float(np.mean(hits)) for run, hits in {first.name: before, **after}.items()
                },
                "gained": {run: int((hits & ~before).sum()) for run, hits in after.items()},
                "lost": {run: int((before & ~hits).sum()) for run, hits in after.items()},
            }
        )
    return entries


def calibration(runs: Sequence[ComparedRun]) -> dict[str, dict[str, Any]]:
    """Returns {run: entry} of the runs that have predictions.

    An entry has `examples`, `top1_accuracy`, `confidence` (the mean highest probability), `ece`, `brier`, `loss`
    (cross-entropy, of its result) and what `metrics.calibration` says of the bins.
    """
    entries = {}
    for run in runs:
        if run.predictions is None:
            continue
        probabilities, labels = run.predictions.probabilities, run.predictions.labels
        found = metrics.calibration(probabilities, labels)
        entries[run.name] = {
            "examples": len(labels),
            "top1_accuracy": float(_right(run).mean()),
            "confidence": float(run.predictions.confidence.mean()),
            "ece": found["ece"],
            "brier": metrics.brier_score(probabilities, labels),
            "loss": tables.number(run.result["splits"]["test"].get("loss")),
            **{name: found[name].tolist() for name in found if name != "ece"},
        }
    return entries


def _right(run: ComparedRun) -> np.ndarray:
    """Returns whether each test image is right, bool [N]."""
    assert run.predictions is not None
    return run.predictions.predicted == run.predictions.labels
