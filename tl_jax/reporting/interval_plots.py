"""Plots of means with their intervals: points and lines, forests, changes of classes, curves with bands.

Every function returns a `matplotlib.figure.Figure` that belongs to no global state; `to_bytes` turns it into a file
whose bytes depend on the figure alone.
"""

import dataclasses
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.axes
import matplotlib.figure
import matplotlib.lines
import matplotlib.ticker
import matplotlib.transforms
import numpy as np

from tl_jax.reporting.plots import GREY, INK, STYLE, running_mean, shortened

# Told apart with any kind of colour vision: seven of the first source, without yellow, which is too pale for lines,
# then four of the second. Sources: Okabe and Ito 2008, "Color Universal Design"; Tol 2021, "Colour Schemes", muted.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#332288", "#882255", "#999933", "#117733"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
# From so many points on, a curve is a running mean.
POINTS_TO_SMOOTH = 60
# Losses are drawn on a logarithmic scale where the highest mean is so many times the lowest.
_RATIO_FOR_LOG = 30
# Between marks of one place, in points of 1/72 inch.
_DODGE = 4.0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its interval, in the unit of the plot.

    Attributes:
        mean: not finite where it is not known: nothing is drawn.
        interval: None where there is none.
    """

    mean: float = math.nan
    interval: tuple[float, float] | None = None

    @property
    def is_known(self) -> bool:
        """Whether there is something to draw."""
        return math.isfinite(self.mean)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is all above or all below 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    @property
    def bar(self) -> Any:
        """The distances from the mean to the bounds, as `errorbar` takes them."""
        if self.interval is None:
            return None
        return [[self.mean - self.interval[0]], [self.interval[1] - self.mean]]


@dataclasses.dataclass(frozen=True)
class Point:
    """A mean at a place of the x axis.

    Attributes:
        x: the place.
        y: the mean.
        colour: the entry of the legend that has its colour; "" where all have the same, which says nothing.
        marker: the entry of the legend that has its marker; the same as `colour` where both say the same.
    """

    x: float
    y: Estimate
    colour: str
    marker: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """A row of a forest plot.

    Attributes:
        group: the heading it stands below.
        name: of the row.
        estimate: the difference.
        differs: True: more than noise (filled); False: noise (hollow); None: not known (hollow).
        text: to the right of it.
    """

    group: str
    name: str
    estimate: Estimate
    differs: bool | None
    text: str


@dataclasses.dataclass(frozen=True)
class Band:
    """A curve over steps, with its band; arrays of one length."""

    steps: np.ndarray
    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def times(self, factor: float) -> "Band":
        """Returns it in another unit."""
        values = (factor * values for values in (self.mean, self.lower, self.upper))
        return Band(self.steps, *values)


def to_bytes(figure: matplotlib.figure.Figure, kind: str) -> bytes:
    """Returns a figure as the bytes of a file, the same for the same figure.

    Args:
        figure: to write.
        kind: "png" or "svg".
    """
    file = io.BytesIO()
    # Without these, an SVG has the time and random names in it.
    fixed: Any = {**STYLE, "svg.hashsalt": "tl_jax"}
    metadata = {"Date": None} if kind == "svg" else None
    with matplotlib.rc_context(fixed), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the alternative text has it.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        figure.savefig(file, format=kind, dpi=160, metadata=metadata)
    return file.getvalue()


def points(
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    *,
    headings: tuple[str, str],
    joined: bool,
    log: bool,
    ticks: Mapping[float, str] | None = None,
) -> matplotlib.figure.Figure:
    """Draws means with their intervals over numbers.

    Args:
        points: in the order of the legend.
        x_label: of the x axis.
        y_label: of the y axis.
        headings: what colours and what markers stand for; the same where one legend tells both.
        joined: whether points of one colour are joined, from left to right; never where two have the same x.
        log: whether the x axis is logarithmic; every x is above 0 then.
        ticks: {x: text}; None for numbers.
    """
    colours = list(dict.fromkeys(point.colour for point in points))
    markers = list(dict.fromkeys(point.marker for point in points))
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(7.2, 3.9), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel=x_label, ylabel=y_label)
        if log:
            axes.set_xscale("log")
        for place, name in enumerate(colours):
            drawn = [point for point in points if point.colour == name and point.y.is_known]
            # Marks of the same x stand beside each other; their data stay what they are.
            shift = place - (len(colours) - 1) / 2 if joined else 0.0
            move = _moved(axes, shift)
            if joined and len({point.x for point in drawn}) == len(drawn) > 1:
                drawn.sort(key=lambda point: point.x)
                axes.plot(
                    [point.x for point in drawn],
                    [point.y.mean for point in drawn],
                    color=_colour(place),
                    linestyle=_line(place),
                    linewidth=1.3,
                    alpha=0.7,
                    transform=move,
                    label=name,
                )
            for point in drawn:
                alike = [other for other in drawn if other.x == point.x]
                beside = alike.index(point) * len(colours)
                # Of what is moved, matplotlib does not take the limits.
                axes.update_datalim(
                    [(point.x, y) for y in (point.y.mean, *(point.y.interval or ()))]
                )
                axes.errorbar(
                    point.x,
                    point.y.mean,
                    yerr=point.y.bar,
                    color=_colour(place),
                    marker=_marker(markers.index(point.marker)),
                    markersize=5.5,
                    capsize=3,
                    linewidth=1.4,
                    transform=_moved(axes, shift + beside),
                    label=f"_{name}, {point.marker}",
                )
        if ticks is not None:
            axes.set_xticks(list(ticks), list(ticks.values()), parse_math=False)
            axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        else:
            if log:
                places = [point.x for point in points]
                subs = (1.0, 2.0, 5.0) if max(places) < 100 * min(places) else (1.0,)
                axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=subs))
            axes.xaxis.set_major_formatter(_number)
            axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axes.margins(x=0.08)
        _legend(figure, colours, markers, headings)
        return figure


def _moved(axes: Any, places: float) -> Any:
    """Returns where data are drawn that stand so many places to the right."""
    figure = axes.get_figure()
    return axes.transData + matplotlib.transforms.ScaledTranslation(
        places * _DODGE / 72, 0, figure.dpi_scale_trans
    )


def forest(rows: Sequence[Difference], x_label: str) -> matplotlib.figure.Figure:
    """Draws differences with their intervals, a row for each, below the headings of their groups.

    Args:
        rows: from top to bottom, those of a group together.
        x_label: of the differences, with their unit.
    """
    places: dict[int, Difference] = {}
    labels: list[str] = []
    headings = []
    for place, row in enumerate(rows):
        if row.group and (place == 0 or row.group != rows[place - 1].group):
            headings.append(len(labels))
            labels.append(row.group)
        places[len(labels)] = row
        labels.append(shortened(row.name))
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(
            figsize=(7.6, 1.0 + 0.3 * len(labels)), layout="constrained"
        )
        axes = figure.subplots()
        axes.grid(False, axis="y")
        axes.axvline(0.0, color=INK, linewidth=1, linestyle="--")
        for place, row in places.items():
            _mark(axes, place, row.estimate, INK, "o", bool(row.differs), row.name)
            axes.text(
                1.02,
                place,
                row.text,
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=8.5,
                parse_math=False,
            )
        axes.set_xlabel(x_label)
        _rows(axes, labels)
        for place in headings:
            axes.get_yticklabels()[place].set_fontweight("bold")
            axes.get_yticklabels()[place].set_color(INK)
        return figure


def changes(
    classes: Sequence[str], series: Mapping[str, Sequence[Estimate]], x_label: str
) -> matplotlib.figure.Figure:
    """Draws a change of every class, a colour for each of the series; filled where the interval leaves out 0.

    Args:
        classes: their names, from top to bottom.
        series: {name: an estimate for each class}.
        x_label: of the change, with its unit.
    """
    with matplotlib.rc_context(STYLE):
        height = 1.1 + max(0.24, 0.13 * len(series) + 0.08) * len(classes)
        figure = matplotlib.figure.Figure(figsize=(7.2, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(False, axis="y")
        axes.axvline(0.0, color=INK, linewidth=1, linestyle="--")
        step = 0.72 / max(len(series), 1)
        for number, (name, estimates) in enumerate(series.items()):
            offset = (number - (len(series) - 1) / 2) * step
            for place, estimate in enumerate(estimates):
                _mark(
                    axes,
                    place + offset,
                    estimate,
                    _colour(number),
                    _marker(number),
                    estimate.excludes_zero,
                    name,
                )
        axes.set_xlabel(x_label)
        _rows(axes, [shortened(name) for name in classes])
        for border in range(1, len(classes)):
            axes.axhline(border - 0.5, color="#eef0f3", linewidth=0.8, zorder=0)
        _legend(figure, list(series), list(series), ("", ""))
        return figure


def bands(
    rows: Sequence[str],
    columns: Sequence[str],
    curves: Mapping[tuple[int, int], Mapping[str, Band]],
    names: Sequence[str],
) -> matplotlib.figure.Figure:
    """Draws curves over steps with their bands, a panel for each row and column.

    Args:
        rows: labels of the y axes, from top to bottom; one that ends with "loss" may be logarithmic.
        columns: titles of the panels, from left to right.
        curves: {(row, column): {name: its curve}}; of many points a running mean is drawn.
        names: of all curves, in the order of the legend.
    """
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(
            figsize=(1.6 + max(5.6, 3.0 * len(columns)), 0.5 + 2.5 * len(rows)),
            layout="constrained",
        )
        grid = figure.subplots(len(rows), len(columns), sharex="col", sharey="row", squeeze=False)
        for (row, column), drawn in curves.items():
            axes = grid[row][column]
            for name, band in drawn.items():
                place = names.index(name)
                lower, mean, upper = map(_smooth, (band.lower, band.mean, band.upper))
                axes.fill_between(
                    band.steps, lower, upper, color=_colour(place), alpha=0.18, linewidth=0
                )
                axes.plot(
                    band.steps,
                    mean,
                    color=_colour(place),
                    linestyle=_line(place),
                    linewidth=1.6,
                    marker="o" if len(band.steps) == 1 else None,
                    label=name,
                )
        for row, label in enumerate(rows):
            grid[row][0].set_ylabel(label)
            means = [
                band.mean
                for (at, _), drawn in curves.items()
                if at == row
                for band in drawn.values()
            ]
            if label.endswith("loss") and _spans(means):
                grid[row][0].set_yscale("log")
                grid[row][0].yaxis.set_major_formatter(_number)
        for column, title in enumerate(columns):
            grid[0][column].set_title(title)
            grid[-1][column].set_xlabel("step")
            locator = matplotlib.ticker.MaxNLocator(5, integer=True)
            grid[-1][column].xaxis.set_major_locator(locator)
        handles = [
            matplotlib.lines.Line2D([], [], color=_colour(place), linestyle=_line(place))
            for place in range(len(names))
        ]
        labels = [shortened(name) for name in names]
        figure.legend(handles, labels, loc="outside right upper", fontsize=8.5)
        return figure


def _mark(
    axes: matplotlib.axes.Axes,
    place: float,
    estimate: Estimate,
    colour: str,
    marker: str,
    filled: bool,
    name: str,
) -> None:
    """Draws an estimate in a row; nothing where it is not known."""
    if not estimate.is_known:
        return
    axes.errorbar(
        estimate.mean,
        place,
        xerr=estimate.bar,
        color=colour,
        marker=marker,
        markersize=5.5,
        markerfacecolor=colour if filled else "white",
        capsize=2.5,
        linewidth=1.3,
        label=f"_{name}",
    )


def _rows(axes: matplotlib.axes.Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _legend(
    figure: matplotlib.figure.Figure,
    colours: Sequence[str],
    markers: Sequence[str],
    headings: tuple[str, str],
) -> None:
    """Says beside the axes what colours and markers stand for: once where they stand for the same."""
    blank = matplotlib.lines.Line2D([], [], linestyle="none")
    same, of_colours = list(colours) == list(markers), list(colours) != [""]

    def entries(names: Sequence[str], heading: str, colour: bool, marker: bool) -> list[Any]:
        found = [(blank, heading)] if heading else []
        for place, name in enumerate(names):
            handle = matplotlib.lines.Line2D(
                [],
                [],
                color=_colour(place) if colour else GREY if of_colours else _colour(0),
                marker=_marker(place) if marker else "none",
                linestyle="none" if marker else "-",
                linewidth=3,
            )
            found.append((handle, shortened(name, 48)))
        return found

    shown = entries(colours, headings[0], True, same) if of_colours else []
    if not same:
        shown += entries(markers, headings[1], False, True)
    handles, labels = zip(*shown, strict=True)
    legend = figure.legend(handles, labels, loc="outside right upper", fontsize=8.5)
    for text in legend.get_texts():
        text.set_parse_math(False)
        if text.get_text() in headings:
            text.set_fontweight("bold")


def _number(value: float, _: float = 0) -> str:
    """Returns the text of a tick: 1,000 and 20k and 3M, and no power of ten."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= 10 * size or (unit == "M" and abs(value) >= size):
            return f"{value / size:,.6g}{unit}"
    return f"{value:,.6g}"


def _smooth(values: np.ndarray) -> np.ndarray:
    return running_mean(values) if len(values) >= POINTS_TO_SMOOTH else values


def _spans(means: Sequence[np.ndarray]) -> bool:
    """Returns whether numbers, all above 0, are of different sizes."""
    values = np.concatenate([*means, np.empty(0)])
    values = values[np.isfinite(values)]
    return bool(len(values) and 0 < values.min() * _RATIO_FOR_LOG < values.max())


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _marker(place: int) -> str:
    return MARKERS[place % len(MARKERS)]


def _line(place: int) -> Any:
    return _LINES[place // len(COLOURS) % len(_LINES)]
