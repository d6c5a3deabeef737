"""The plots of a report, as figures that belong to no global state.

K is the number of classes. Every function returns a `matplotlib.figure.Figure`; `to_png` turns it
into the bytes of a picture. Class names are drawn as they are: `$` starts no formula.
"""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.axes
import matplotlib.colors
import matplotlib.figure
import matplotlib.font_manager
import matplotlib.ticker
import numpy as np
import numpy.typing

BLUE, PALE_BLUE, ORANGE, GREEN, GREY, INK = (
    "#2563a8",
    "#b5cfea",
    "#d9722a",
    "#3a8f5c",
    "#9aa3ad",
    "#24292f",
)
SPLIT_COLOURS = {"train": BLUE, "validation": ORANGE, "test": GREEN}

# Up to so many classes the cells of a confusion matrix are labelled, or its rows and columns.
_CLASSES_WITH_COUNTS = 20
_CLASSES_WITH_NAMES = 50
# From so many points on, a training curve is drawn pale with a running mean over it.
POINTS_TO_SMOOTH = 60

# Typed loosely: matplotlib lists its settings as literals in some releases and not in others.
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": "#c3c9d0",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.8,
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def to_png(figure: matplotlib.figure.Figure) -> bytes:
    """Returns the figure as the bytes of a PNG."""
    file = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the page has it as text.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        figure.savefig(file, format="png", dpi=160)
    return file.getvalue()


def curve(
    title: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    best: str | None = None,
) -> matplotlib.figure.Figure:
    """Draws one metric over the updates.

    Args:
        title: the metric.
        series: {split: (steps, values)}; values that are not finite leave a gap.
        best: "max" or "min" to mark the best validation value, None for no mark.
    """
    with matplotlib.rc_context(STYLE):
        # Fixed margins: constrained layout would double the time of a curve.
        figure = matplotlib.figure.Figure(figsize=(5.6, 3.4))
        axes = figure.subplots(
            gridspec_kw={"left": 0.16, "right": 0.97, "top": 0.88, "bottom": 0.14}
        )
        axes.set_title(title, parse_math=False)
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(tick))
        axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(tick))
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
        for split, (steps, values) in series.items():
            x, y = np.asarray(steps, float), np.asarray(values, float)
            colour = SPLIT_COLOURS.get(split, GREY)
            if len(x) >= POINTS_TO_SMOOTH:
                axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.9)
                axes.plot(x, running_mean(y), color=colour, linewidth=1.7, label=f"{split} (mean)")
            else:
                marker = "o" if len(x) <= 30 else None
                axes.plot(
                    x, y, color=colour, linewidth=1.7, marker=marker, markersize=3.5, label=split
                )
        if best is not None and "validation" in series:
            steps, values = series["validation"]
            place = best_index(values, best)
            if place is not None:
                axes.plot(
                    [steps[place]],
                    [values[place]],
                    linestyle="none",
                    marker="o",
                    markersize=9,
                    markerfacecolor="none",
                    markeredgecolor=INK,
                    label=f"best {values[place]:.4g} at {steps[place]:,.0f}",
                )
        if len(series) > 1 or best is not None:
            axes.legend(fontsize=8)
        return figure


def best_index(values: Sequence[float], mode: str) -> int | None:
    """Returns where the largest ("max") or smallest ("min") finite value is; None without one."""
    finite = [place for place, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        return None
    return (max if mode == "max" else min)(finite, key=lambda place: values[place])


def confusion(matrix: np.ndarray, class_names: Sequence[str]) -> matplotlib.figure.Figure:
    """Draws a confusion matrix, int [K, K], rows being the true classes.

    Colour is the share of the row. The diagonal and the mistakes have a scale each, since the
    mistakes of a good classifier would be invisible on a common one; without mistakes there is the first
    alone. With many classes the counts, and then the names, are left out.
    """
    num_classes = len(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(num_classes, dtype=bool)
    worst = float(shares[~diagonal].max(initial=0.0))
    side = float(np.clip(2.0 + 0.3 * num_classes, 3.4, 8.0))
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(side + 1.3, side), layout="constrained")
        axes = figure.subplots()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        layers = [(~diagonal, _from_white(BLUE), 1.0, "right")]
        layers += [(diagonal, _from_white(ORANGE), worst, "mistaken")] * (worst > 0)
        for hidden, colours, highest, name in layers:
            image = axes.imshow(
                np.ma.masked_array(shares, hidden),
                cmap=colours,
                vmin=0.0,
                vmax=highest,
                interpolation="nearest",
            )
            bar = figure.colorbar(image, ax=axes, fraction=0.035, pad=0.04, aspect=28)
            bar.outline.set_visible(False)
            bar.ax.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=None))
            bar.ax.set_title(name, fontsize=7.5, fontweight="normal", loc="left", pad=5)
            bar.ax.tick_params(labelsize=7, length=2)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if num_classes <= _CLASSES_WITH_NAMES:
            size = 8.5 if num_classes <= _CLASSES_WITH_COUNTS else 6
            places = range(num_classes)
            names = [shortened(name) for name in class_names]
            axes.set_xticks(
                places,
                names,
                rotation=45 if num_classes <= _CLASSES_WITH_COUNTS else 90,
                ha="right" if num_classes <= _CLASSES_WITH_COUNTS else "center",
                rotation_mode="anchor" if num_classes <= _CLASSES_WITH_COUNTS else "default",
                fontsize=size,
                parse_math=False,
            )
            axes.set_yticks(places, names, fontsize=size, parse_math=False)
            axes.tick_params(length=0)
        else:
            axes.set_xlabel("predicted class (number)")
            axes.set_ylabel("true class (number)")
        if num_classes <= _CLASSES_WITH_COUNTS:
            for row, column in np.argwhere(matrix > 0):
                strength = shares[row, column] / (1.0 if row == column else worst)
                axes.text(
                    column,
                    row,
                    f"{matrix[row, column]}",
                    ha="center",
                    va="center",
                    fontsize=8 if num_classes <= 12 else 6,
                    color="white" if strength > 0.6 else INK,
                )
        return figure


def reliability(calibration: Mapping[str, Any]) -> matplotlib.figure.Figure:
    """Draws the reliability diagram and how many examples each bin of confidence holds.

    Args:
        calibration: what `metrics.calibration` returns.
    """
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(4.8, 5.0))
        upper, lower = figure.subplots(
            2,
            1,
            sharex=True,
            height_ratios=[3.2, 1],
            gridspec_kw={"left": 0.15, "right": 0.97, "top": 0.92, "bottom": 0.1, "hspace": 0.08},
        )
        draw_reliability(upper, lower, calibration)
        upper.set_title(f"Reliability (ECE {calibration['ece']:.4f})")
        upper.set_ylabel("accuracy in the bin")
        upper.legend(fontsize=8, loc="upper left")
        lower.set(xlabel="confidence (highest probability)", ylabel="share of\nexamples")
        return figure


def draw_reliability(
    upper: matplotlib.axes.Axes, lower: matplotlib.axes.Axes, calibration: Mapping[str, Any]
) -> None:
    """Draws the accuracy of each bin of confidence into the upper axes, its share of examples into the lower ones.

    Args:
        upper: axes of the diagram.
        lower: axes below them.
        calibration: what `metrics.calibration` returns.
    """
    count = np.asarray(calibration["bin_count"], float)
    used = count > 0
    accuracy = np.asarray(calibration["bin_accuracy"], float)[used]
    confidence = np.asarray(calibration["bin_confidence"], float)[used]
    width = 1.0 / len(count)
    centres = ((np.arange(len(count)) + 0.5) * width)[used]
    bar: dict[str, Any] = {"width": width, "edgecolor": "white", "linewidth": 0.8}
    upper.bar(centres, accuracy, color=PALE_BLUE, label="accuracy", **bar)
    upper.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="perfect")
    upper.vlines(confidence, accuracy, confidence, color=ORANGE, linewidth=2, label="gap")
    upper.plot(confidence, accuracy, linestyle="none", marker="o", markersize=4, color=ORANGE)
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    lower.bar(centres, count[used] / count.sum(), color=GREY, **bar)
    lower.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))


def heatmap(
    title: str,
    x: tuple[str, Sequence[float]],
    y: tuple[str, Sequence[float]],
    mean: np.ndarray,
    half_width: np.ndarray,
    chosen: tuple[int, int] | None = None,
) -> matplotlib.figure.Figure:
    """Draws a number for every pair of two hyperparameters, with half the width of its interval.

    Args:
        title: what the number is.
        x: name and values of the columns.
        y: name and values of the rows.
        mean: [Y, X], in percent.
        half_width: of the 95% interval, [Y, X]; NaN where there is none.
        chosen: (row, column) of the cell to mark.
    """
    rows, columns = mean.shape
    least, most = np.nanmin(mean), np.nanmax(mean)
    with matplotlib.rc_context(STYLE):
        size = (max(4.2, 1.6 + 1.05 * columns), max(2.6, 1.3 + 0.62 * rows))
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        image = axes.imshow(
            mean, cmap=_from_white(BLUE), vmin=least, vmax=max(most, least + 1e-6), aspect="auto"
        )
        figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03).outline.set_visible(False)
        axes.set_title(title, parse_math=False)
        axes.set_xlabel(x[0])
        axes.set_ylabel(y[0])
        axes.set_xticks(range(columns), [f"{value:g}" for value in x[1]])
        axes.set_yticks(range(rows), [f"{value:g}" for value in y[1]])
        axes.tick_params(length=0)
        for row, column in np.ndindex(rows, columns):
            half = half_width[row, column]
            dark = mean[row, column] > least + 0.6 * (most - least)
            axes.text(
                column,
                row,
                f"{mean[row, column]:.2f}" + (f"\n± {half:.2f}" if np.isfinite(half) else ""),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else INK,
            )
        if chosen is not None:
            row, column = chosen
            axes.plot(
                [column - 0.46, column + 0.46, column + 0.46, column - 0.46, column - 0.46],
                [row - 0.46, row - 0.46, row + 0.46, row + 0.46, row - 0.46],
                color=ORANGE,
                linewidth=2,
            )
        return figure


def over_values(
    title: str,
    label: str,
    values: Sequence[float],
    series: Mapping[str, tuple[np.typing.ArrayLike, np.typing.ArrayLike | None]],
    chosen: float | None = None,
) -> matplotlib.figure.Figure:
    """Draws a number over the values of one hyperparameter, on a logarithmic scale where all are above 0.

    Args:
        title: what the number is.
        label: the hyperparameter.
        values: its values, in any order.
        series: {split: (means, half widths of their 95% intervals or None)}.
        chosen: the value to mark.
    """
    order = np.argsort(values)
    x = np.asarray(values, float)[order]
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, parse_math=False)
        axes.set_xlabel(label)
        if (x > 0).all() and len(x) > 1:
            axes.set_xscale("log")
        for split, (means, half_widths) in series.items():
            axes.errorbar(
                x,
                np.asarray(means, float)[order],
                yerr=None if half_widths is None else np.asarray(half_widths, float)[order],
                color=SPLIT_COLOURS.get(split, GREY),
                marker="o",
                markersize=3.5,
                linewidth=1.5,
                capsize=3,
                label=split,
            )
        if chosen is not None:
            axes.axvline(
                chosen, color=INK, linewidth=1, linestyle="--", label=f"chosen: {chosen:g}"
            )
        axes.legend(fontsize=8)
        return figure


def _from_white(colour: str) -> matplotlib.colors.Colormap:
    return matplotlib.colors.LinearSegmentedColormap.from_list("from_white", ["#f6f8fa", colour])


def running_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the finite values in a window around each, NaN where the value is NaN."""
    half = max(1, len(values) // 60)
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    starts = np.maximum(np.arange(len(values)) - half, 0)
    ends = np.minimum(np.arange(len(values)) + half + 1, len(values))
    means = (sums[ends] - sums[starts]) / np.maximum(counts[ends] - counts[starts], 1)
    return np.where(finite, means, np.nan)


def tick(value: float, _: int) -> str:
    """Returns a number as the ticks of an axis show it."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def shortened(name: str, length: int = 22) -> str:
    """Returns a name as it is drawn, cut off after so many letters."""
    return name if len(name) <= length else name[: length - 1] + "…"
