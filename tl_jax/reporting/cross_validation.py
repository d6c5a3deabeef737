"""The folds of a cross-validation: a row each, their mean, and all predictions of train together."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tl_jax import files, statistics
from tl_jax.reporting import analysis, intervals, pages, plots
from tl_jax.reporting.run_files import REPORT_FILE
from tl_jax.reporting.tables import duration
from tl_jax.training import metrics

# Bengio and Grandvalet 2004 (JMLR 5): no estimate of the variance of k-fold cross-validation is unbiased.
INTERVALS = (
    "The interval of the mean over folds is a t-interval. Any two runs share most of their training images, so that "
    "it tends to be too narrow. The interval of all images together is Wilson's: it covers the "
    "choice of the images."
)


def write_cross_validation(
    folder: str | os.PathLike[str],
    content: Mapping[str, Any],
    probabilities: np.ndarray,
    labels: np.ndarray,
) -> dict[str, Any]:
    """Writes `cross_validation.json`, `cross_validation.html` and the plot of the page into `folder`.

    Args:
        folder: where to write, with the run folders below.
        content: `title`; `class_names`; `folds`, a mapping each: `fold`, `run` (its folder, relative), `examples`,
            `train_examples`, `top1_accuracy`, `validation_top1_accuracy` or None, `wall_seconds` and more.
        probabilities: of every image of train by the run that has not seen it, float32 [N, K].
        labels: integers [N].

    Returns:
        What the JSON holds, with `table`, rows for `print_table`, and `summary`, a line.
    """
    folder = pathlib.Path(folder)
    names = tuple(content["class_names"])
    predicted = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrix(labels, predicted, len(names))
    rows = analysis.class_rows(confusion, names)
    accuracy = float(np.mean(predicted == labels))
    pooled: dict[str, Any] = {
        "top1_accuracy": accuracy,
        "top1_interval": list(intervals.of_accuracy(accuracy, len(labels))),
        "examples": len(labels),
        **metrics.class_averages(labels, predicted, len(names)),
    }
    over_folds = statistics.mean_over_seeds([row["top1_accuracy"] for row in content["folds"]])
    summary = (
        f"mean over {over_folds.n} folds: top-1 {intervals.mean(over_folds)}; all {len(labels):,} images, each "
        f"predicted once: {intervals.single_run(pooled)}, F1 {100 * pooled['macro_f1']:.2f}%"
    )
    whole = {
        **content,
        "over_folds": over_folds.to_json(),
        "pooled": pooled,
        "intervals": INTERVALS,
        "summary": summary,
    }
    files.write(folder / "cross_validation.json", files.to_json(whole))
    table = [_shown(row) for row in content["folds"]]
    png = plots.to_png(plots.confusion(confusion, names))
    files.write(folder / "plots" / "confusion.png", png)
    page = pages.render(
        "cross_validation.html",
        title=content["title"],
        table=table,
        reports=[_report(folder, row["run"]) for row in content["folds"]],
        over_folds=over_folds,
        pooled=pooled,
        classes=rows,
        intervals=INTERVALS,
        picture={
            "src": pages.png_uri(png),
            "alt": f"Confusion matrix of {len(names)} classes over all folds.",
        },
    )
    files.write(folder / "cross_validation.html", page)
    return {**whole, "table": table}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high = intervals.of_accuracy(row["top1_accuracy"], row["examples"])
    validated = row["validation_top1_accuracy"]
    return {
        "fold": str(row["fold"]),
        "trained on": row["train_examples"],
        "images of the fold": row["examples"],
        "top-1 (%)": f"{100 * row['top1_accuracy']:.2f} ({100 * low:.1f} to {100 * high:.1f})",
        "validation (%)": "" if validated is None else f"{100 * validated:.2f}",
        "step": row["selected_step"],
        "time": duration(row["wall_seconds"]),
    }


def _report(folder: pathlib.Path, run: str) -> str:
    """Returns the link to the report of a fold's run; "" where it has none."""
    return f"{run}/{REPORT_FILE}" if (folder / run / REPORT_FILE).is_file() else ""
