"""Features in the plane, coloured by class."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.axes
import matplotlib.colors
import matplotlib.figure
import numpy as np

from tl_jax import files
from tl_jax.reporting import pages, plots
from tl_jax.reporting.run_files import SCATTER_FILE
from tl_jax.training.projection import Projection

# Colours that differ for most people (Okabe and Ito 2008, without its yellow), with markers taken in turn; darker
# ones for the next classes, then lighter ones.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#4d4d4d", "#8c6d1f")
_SHADES = ((0.0, 0.0), (0.0, 0.45), (1.0, 0.5))  # towards black or white, and how far
_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
# Of more classes the legend would be larger than the plot.
_CLASSES_IN_LEGEND = 40
# With more examples points are drawn smaller.
_FEW_POINTS = 600


def figure(
    projection: Projection, labels: np.ndarray, class_names: Sequence[str]
) -> matplotlib.figure.Figure:
    """Draws examples in the plane of two axes, a colour and a marker for each class, its name at its middle.

    One axis alone is drawn as a histogram for each class.

    Args:
        projection: of M examples.
        labels: integers [M].
        class_names: K of them.
    """
    shown = [place for place in range(len(class_names)) if (labels == place).any()]
    columns = 1 if len(shown) <= 20 else 2
    with matplotlib.rc_context(plots.STYLE):
        figure = matplotlib.figure.Figure(figsize=(5.6 + 1.1 * columns, 4.3), layout="constrained")
        axes = figure.subplots()
        axes.set_title(_title(projection))
        axes.grid(False)
        if projection.points.shape[1] == 1:
            handles = _histograms(axes, projection, labels, class_names)
        else:
            handles = _clouds(axes, projection, labels, class_names)
        if len(shown) <= _CLASSES_IN_LEGEND:
            # Named: Matplotlib leaves out labels that begin with "_".
            legend = figure.legend(
                handles, [plots.shortened(class_names[place]) for place in shown],
                loc="outside right upper", fontsize=7.5, ncols=columns, markerscale=1.6,
            )  # fmt: skip
            for text in legend.get_texts():
                text.set_parse_math(False)
        return figure


def _title(projection: Projection) -> str:
    what = {"PCA": "of the variance", "LDA": "of the variance between classes"}[projection.name]
    shares = " and ".join(f"{100 * share:.1f}%" for share in projection.shares)
    return f"{projection.name}: {shares} {what}"


def _clouds(axes: matplotlib.axes.Axes, projection: Projection, labels, class_names) -> list[Any]:
    """Draws the points of each class; returns what a legend shows of each."""
    handles: list[Any] = []
    size = 22 if len(labels) <= _FEW_POINTS else 11
    middles = {}
    for place in range(len(class_names)):
        points = projection.points[labels == place]
        if not len(points):
            continue
        cloud = axes.scatter(
            points[:, 0],
            points[:, 1],
            s=size,
            color=_colour(place),
            marker=_MARKERS[(place // len(_COLOURS) + place) % len(_MARKERS)],
            alpha=0.6,
            linewidths=0,
        )
        handles.append(cloud)
        middles[place] = np.median(points, axis=0)
    for place, middle in middles.items():
        axes.annotate(
            plots.shortened(class_names[place], 14),
            middle,
            ha="center",
            va="center",
            fontsize=8 if len(middles) <= 12 else 6.5,
            fontweight="bold",
            color=plots.INK,
            parse_math=False,
            bbox={
                "boxstyle": "round,pad=0.2",
                "facecolor": "white",
                "edgecolor": _colour(place),
                "linewidth": 1.4,
                "alpha": 0.85,
            },
        )
    for axis, number in ((axes.xaxis, 1), (axes.yaxis, 2)):
        axis.set_label_text(f"{_axis(projection)} {number}")
    return handles


def _histograms(
    axes: matplotlib.axes.Axes, projection: Projection, labels, class_names
) -> list[Any]:
    """Draws the histogram of each class; returns what a legend shows of each."""
    handles: list[Any] = []
    edges = np.histogram_bin_edges(projection.points, 40).tolist()
    for place in range(len(class_names)):
        points = projection.points[labels == place, 0]
        if len(points):
            handles.append(axes.hist(points, edges, color=_colour(place), alpha=0.55)[2])
    axes.set_xlabel(f"{_axis(projection)} 1")
    axes.set_ylabel("examples")
    return handles


def _axis(projection: Projection) -> str:
    return {"PCA": "component", "LDA": "discriminant"}[projection.name]


def _colour(place: int) -> str:
    cycle, place = divmod(place, len(_COLOURS))
    colour = np.array(matplotlib.colors.to_rgb(_COLOURS[place]))
    toward, amount = _SHADES[cycle % len(_SHADES)]
    red, green, blue = colour + amount * (toward - colour)
    return matplotlib.colors.to_hex((red, green, blue))


def arrays_of(
    projections: Sequence[Projection], labels: np.ndarray, class_names: Sequence[str], fitted: int
) -> dict[str, np.ndarray]:
    """Returns the arrays that `SCATTER_FILE` holds.

    Args:
        projections: of the same M examples.
        labels: integers [M].
        class_names: K of them.
        fitted: training examples on which the axes were found.
    """
    arrays = {
        "labels": np.asarray(labels, np.int32),
        "class_names": np.array(class_names, str),
        "fitted": np.array(fitted),
    }
    for projection in projections:
        arrays[f"{projection.name}_points"] = projection.points
        arrays[f"{projection.name}_shares"] = np.array(projection.shares)
    return arrays


def write_plots(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Draws what `SCATTER_FILE` of a run folder holds; returns what pages show of it, None where there is none.

    Args:
        folder: in which `plots/pca.png` and `plots/lda.png` are written.
    """
    folder = pathlib.Path(folder)
    path = folder / SCATTER_FILE
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        arrays: Mapping[str, np.ndarray] = {name: stored[name] for name in stored}
    labels, names = arrays["labels"], [str(name) for name in arrays["class_names"]]
    pictures = []
    for name in ("PCA", "LDA"):
        if f"{name}_points" not in arrays:
            continue
        projection = Projection(
            name, arrays[f"{name}_points"], tuple(map(float, arrays[f"{name}_shares"]))
        )
        png = plots.to_png(figure(projection, labels, names))
        files.write(folder / "plots" / f"{name.lower()}.png", png)
        alt = f"{_title(projection)}; {len(labels):,} examples of {len(names)} classes."
        pictures.append({"src": pages.png_uri(png), "alt": alt})
    return {"pictures": pictures, "examples": len(labels), "fitted": int(arrays["fitted"])}
