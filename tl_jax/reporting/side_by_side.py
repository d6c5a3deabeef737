"""Figures of several runs: curves over each other, reliability diagrams side by side, differences to the first.

As in `plots`, a function returns a `matplotlib.figure.Figure`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from tl_jax.reporting import plots

# Colours that stay apart for those who confuse red and green; beyond them, other dashes.
_COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, "#8a5aa8", "#17a2b8", "#b08900", plots.INK)
_DASHES = ("-", "--", ":")
_PANELS_IN_A_ROW = 3


def curves(
    title: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    runs: Sequence[str],
) -> matplotlib.figure.Figure:
    """Draws one metric over the updates, a line for each run; of many points a running mean.

    Args:
        title: the split and the metric.
        series: {run: (steps, values)}; values that are not finite leave a gap.
        runs: all of them, so that a run looks the same in every picture.
    """
    looks = itertools.cycle(itertools.product(_DASHES, _COLOURS))
    styles = dict(zip(runs, looks, strict=False))
    with matplotlib.rc_context(plots.STYLE):
        figure = matplotlib.figure.Figure(figsize=(5.6, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, parse_math=False)
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(plots.tick))
        axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(plots.tick))
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
        for name, (steps, values) in series.items():
            dashes, colour = styles[name]
            x, y = np.asarray(steps, float), np.asarray(values, float)
            smoothed = len(x) >= plots.POINTS_TO_SMOOTH
            axes.plot(
                x,
                plots.running_mean(y) if smoothed else y,
                color=colour,
                linestyle=dashes,
                linewidth=1.7,
                marker="o" if len(x) <= 30 else None,
                markersize=3.5,
                label=escaped(name) + (" (mean)" if smoothed else ""),
            )
        # Below the axes: over them it would hide where the curves of similar runs part.
        figure.legend(loc="outside lower center", ncols=min(3, len(series)), fontsize=8)
        return figure


def reliabilities(calibrations: Mapping[str, Mapping[str, Any]]) -> matplotlib.figure.Figure:
    """Draws the reliability diagram of each run, and how many examples each bin of confidence holds.

    Args:
        calibrations: {run: what `metrics.calibration` returns}, of one run at least.
    """
    columns = min(_PANELS_IN_A_ROW, len(calibrations))
    rows = math.ceil(len(calibrations) / columns)
    with matplotlib.rc_context(plots.STYLE):
        figure = matplotlib.figure.Figure(
            figsize=(0.6 + 3.1 * columns, 0.3 + 4.1 * rows), layout="constrained"
        )
        grid = figure.subplots(
            2 * rows,
            columns,
            sharex=True,
            sharey="row",
            squeeze=False,
            height_ratios=[3.2, 1] * rows,
        )
        for place, (name, calibration) in enumerate(calibrations.items()):
            row, column = divmod(place, columns)
            upper, lower = grid[2 * row, column], grid[2 * row + 1, column]
            plots.draw_reliability(upper, lower, calibration)
            upper.set_title(
                f"{plots.shortened(name, 30)}\nECE {calibration['ece']:.4f}", parse_math=False
            )
            lower.set_xlabel("confidence")
            lower.tick_params(labelbottom=True)
            if column == 0:
                upper.set_ylabel("accuracy in the bin")
                lower.set_ylabel("share of\nexamples")
            if place == 0:
                upper.legend(fontsize=8, loc="upper left")
        for place in range(len(calibrations), rows * columns):
            row, column = divmod(place, columns)
            grid[2 * row, column].set_visible(False)
            grid[2 * row + 1, column].set_visible(False)
        return figure


def differences(
    first: str, rows: Mapping[str, tuple[float, tuple[float, float]]]
) -> matplotlib.figure.Figure:
    """Draws the difference of each run to the first, in percentage points, with its interval.

    Args:
        first: the run that the others are compared with.
        rows: {run: (difference, (lower, upper))} as fractions, from top to bottom.
    """
    with matplotlib.rc_context(plots.STYLE):
        figure = matplotlib.figure.Figure(
            figsize=(6.4, 1.2 + 0.42 * len(rows)), layout="constrained"
        )
        axes = figure.subplots()
        axes.grid(False, axis="y")
        axes.axvline(0.0, color=plots.INK, linewidth=1, linestyle="--")
        for place, (difference, (lower, upper)) in enumerate(rows.values()):
            axes.errorbar(
                100 * difference,
                place,
                xerr=[[100 * (difference - lower)], [100 * (upper - difference)]],
                color=plots.BLUE,
                marker="D",
                markersize=5,
                capsize=4,
                linewidth=1.4,
            )
        axes.set_yticks(
            range(len(rows)), [plots.shortened(name) for name in rows], parse_math=False
        )
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(
            f"test top-1 minus that of {plots.shortened(first)} (points)", parse_math=False
        )
        return figure


def escaped(name: str) -> str:
    """Returns a run's name for a legend, shortened: `$` starts no formula, and `_` does not hide the line."""
    text = plots.shortened(name).replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text
