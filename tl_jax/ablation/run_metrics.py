"""What the run folders of an ablation hold beyond one number: recall of classes, metrics over steps."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tl_jax import statistics
from tl_jax.errors import InputError
from tl_jax.reporting import read_metrics
from tl_jax.reporting.interval_plots import Band
from tl_jax.reporting.run_files import UNREADABLE, read_predictions
from tl_jax.statistics import PairedDifference


def recalls(folder: pathlib.Path) -> dict[str, float] | None:
    """Returns {class: share of its test images that a run classified correctly}; None without predictions.

    Classes without test images are left out.
    """
    try:
        found = read_predictions(folder / "predictions.npz")
    except UNREADABLE:
        return None
    if len(set(found.class_names)) < len(found.class_names):
        return None
    right = found.labels[found.predicted == found.labels]
    hits, examples = (
        np.bincount(labels, minlength=len(found.class_names)) for labels in (right, found.labels)
    )
    return {
        name: float(hits[place] / examples[place])
        for place, name in enumerate(found.class_names)
        if examples[place]
    }


def class_changes(
    runs: Mapping[int, Mapping[str, float]], reference: Mapping[int, Mapping[str, float]]
) -> dict[str, PairedDifference]:
    """Returns {class: mean difference of recall over pairs of runs of a seed}; empty without a pair.

    Args:
        runs: {seed: recalls of a run}.
        reference: likewise, of the variant that they are compared with.
    """
    seeds = [seed for seed in runs if seed in reference]
    if not seeds:
        return {}
    classes = [
        name
        for name in runs[seeds[0]]
        if all(name in of[seed] for seed in seeds for of in (runs, reference))
    ]
    return {
        name: statistics.paired_difference(
            {seed: runs[seed][name] for seed in seeds},
            {seed: reference[seed][name] for seed in seeds},
        )
        for name in classes
    }


def curve(folders: Sequence[pathlib.Path], split: str, metric: str) -> Band | None:
    """Returns the mean of a metric over runs at the steps that all of them have, with its least and greatest value.

    Args:
        folders: of the runs; those that hold no such metric are left out.
        split: "train" or "validation".
        metric: name of the field in metrics.jsonl.

    Returns:
        None where no step is left, or no value is finite.
    """
    of_runs = [values for values in (_values(path, split, metric) for path in folders) if values]
    if not of_runs:
        return None
    steps = [step for step in sorted(of_runs[0]) if all(step in values for values in of_runs)]
    values = np.array([[of_run[step] for step in steps] for of_run in of_runs], np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    mean = values.mean(axis=0)
    if not np.isfinite(mean).any():
        return None
    return Band(np.array(steps), mean, values.min(axis=0), values.max(axis=0))


def _values(folder: pathlib.Path, split: str, metric: str) -> dict[int, float]:
    """Returns {step: value}; empty where metrics.jsonl is missing or broken."""
    try:
        lines = read_metrics(folder)
    except (InputError, OSError):
        return {}
    return {
        line["step"]: line[metric] for line in lines if line["split"] == split and metric in line
    }
