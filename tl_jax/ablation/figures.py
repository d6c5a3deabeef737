"""The figures of an ablation: what is drawn from which rows; a figure without data is left out."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.figure

from tl_jax import console
from tl_jax.ablation import run_metrics
from tl_jax.ablation.analysis import Row
from tl_jax.ablation.spec import Spec
from tl_jax.reporting import interval_plots, intervals, plots, tables
from tl_jax.reporting.interval_plots import Difference, Estimate, Point
from tl_jax.statistics import Mean, PairedDifference

Summary = Sequence[Mapping[str, Any]]

# Of more classes, those that change most are drawn: so many, and of many variants fewer.
MOST_CLASSES, _MOST_OF_MANY, _MOST_MARKS = 20, 10, 80
# More have no room for a mark or a line of each, and its name.
MOST_VARIANTS = 12
# Ratio of the largest to the smallest number from which on an axis is logarithmic.
_RATIO_FOR_LOG = 8.0


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure with what is said of it.

    Attributes:
        name: of its files.
        title: above it.
        caption: below it: how to read it.
        alt: its numbers in words.
        drawn: by matplotlib.
    """

    name: str
    title: str
    caption: str
    alt: str
    drawn: matplotlib.figure.Figure


@dataclasses.dataclass(frozen=True)
class Results:
    """What the figures are drawn from.

    Attributes:
        spec: of the ablation.
        folder: of the ablation.
        rows: of all cells, of the trials that were not chosen too.
        chosen: the trial of each variant and number of labels.
        test: rows of `analysis.summarise` on test.
    """

    spec: Spec
    folder: pathlib.Path
    rows: Sequence[Row]
    chosen: Mapping[tuple[str, int], int]
    test: Summary

    def runs(self, variant: str, shots: int) -> list[Row]:
        """Returns the finished runs of the chosen trial."""
        key = (variant, shots, self.chosen[variant, shots])
        return [
            row
            for row in self.rows
            if (row["variant"], row["shots"], row["trial"]) == key and row["status"] == "finished"
        ]

    def mean(self, variant: str, shots: int, field: str) -> float | None:
        """Returns the mean of a field over the finished runs of the chosen trial; None where one lacks it."""
        values = [row[field] for row in self.runs(variant, shots)]
        if not values or any(value is None for value in values):
            return None
        return sum(values) / len(values)

    @property
    def percent(self) -> bool:
        """Whether the metric is a fraction, drawn in percent."""
        return self.spec.metric != "loss"

    @property
    def metric(self) -> str:
        """The metric as a label of an axis."""
        return tables.label(self.spec.metric) + (" (%)" if self.percent else "")

    def estimate(self, fields: Mapping[str, Any]) -> Estimate:
        """Returns a mean or a difference of the metric in the unit of the plots."""
        return _scaled(fields["mean"], fields["interval"], self.percent)

    def said(self, row: Mapping[str, Any]) -> str:
        """Returns the mean of a row on test with its interval, in words."""
        return intervals.mean(intervals.of_fields(row["test"], Mean), percent=self.percent)


def draw(results: Results) -> list[Figure]:
    """Returns the figures for which there are data, in the order of the page; of many variants the differences."""
    if len(results.spec.variants) > MOST_VARIANTS:
        of_many = differences(results)
        return [] if of_many is None else [of_many]
    makers: tuple[Callable[[Results], Figure | None], ...] = (
        differences,
        over_labels,
        over_parameters,
        over_time,
    )
    found = [make(results) for make in makers]
    found += [classes(results, shots) for shots in results.spec.labelled]
    found.append(curves(results))
    return [figure for figure in found if figure is not None]


def differences(results: Results) -> Figure | None:
    """Draws the paired differences with their intervals."""
    several = len(results.spec.labelled) > 1
    compared = [row for row in results.test if row["variant"] != row["reference"]]
    drawn, said = [], []
    for row in compared:
        group = per_class(row["shots"]) if several else ""
        difference = row["difference"]
        estimate = Estimate() if difference is None else results.estimate(difference)
        if estimate.is_known and difference is not None:
            verdict = {None: "", True: ", differs", False: ", noise"}[difference["differs"]]
            digits = ".2f" if results.percent else ".4g"
            text = f"{estimate.mean:+{digits}}, n={difference['n']}{verdict}"
            paired = intervals.of_fields(difference, PairedDifference)
            words = intervals.difference(paired, percent=results.percent) + verdict
        else:
            failed = console.count(row["failed"], "run") + " failed" if row["failed"] else ""
            text = words = failed or "no pair of runs"
        name = row["variant"]
        if results.spec.question == "best" or results.spec.pairs:
            name = f"{name} - {row['reference']}"
        differs = None if difference is None else difference["differs"]
        drawn.append(Difference(group, name, estimate, differs, text))
        said.append(f"{row['variant']} against {row['reference']}{_of_labels(group)}: {words}")
    if not any(row.estimate.is_known for row in drawn):
        return None
    unit = "percentage points of " if results.percent else ""
    of_one = results.spec.question == "effects" and not results.spec.pairs
    against = f", against {results.spec.reference}" if of_one else ""
    name = tables.label(results.spec.metric)
    return Figure(
        "differences",
        "Differences",
        "Mean difference on test over pairs of runs of one seed, with its 95% interval and the number n of pairs. "
        f"Filled: the p-value is below {results.spec.level:g}. Hollow: noise.",
        f"Forest plot of the differences of {name} on test. {'; '.join(said)}.",
        interval_plots.forest(drawn, f"difference on test, {unit}{name}{against}"),
    )


def over_labels(results: Results) -> Figure | None:
    """Draws the metric over labels per class, a line for each variant, where there are several numbers of labels."""
    spec = results.spec
    if len(spec.labelled) < 2:
        return None
    places = _places_of_labels(results)
    points = [
        Point(places[row["shots"]], results.estimate(row["test"]), row["variant"], row["variant"])
        for row in _in_order(results)
        if results.estimate(row["test"]).is_known
    ]
    if not points:
        return None
    all_labels = ""
    if 0 in spec.labelled:
        all_labels = " “all”: all labelled images, where their number per class is on average."
    ticks = {place: f"{shots:,}" if shots else _all(results) for shots, place in places.items()}
    return Figure(
        "labels",
        "Labels per class",
        "Means over seeds on test with their 95% intervals; marks beside each other have the same number of labels."
        + all_labels,
        f"Test {tables.label(spec.metric)} over labels per class. "
        + _said(results, lambda row: per_class(row["shots"])),
        interval_plots.points(
            points,
            "labels per class",
            f"test {results.metric}",
            headings=("variant", "variant"),
            joined=True,
            log=True,
            ticks=ticks,
        ),
    )


def over_parameters(results: Results) -> Figure | None:
    """Draws the metric over the number of trained parameters, where variants differ in it."""
    spec = results.spec
    sizes = {
        (row["variant"], row["shots"]): results.mean(row["variant"], row["shots"], "trainable")
        for row in results.test
    }
    totals = {key: results.mean(*key, "parameters") for key in sizes}
    rows = [
        row
        for row in _in_order(results)
        if sizes[row["variant"], row["shots"]] is not None
        and results.estimate(row["test"]).is_known
    ]
    if len({sizes[row["variant"], row["shots"]] for row in rows}) < 2:
        return None

    def size(row: Mapping[str, Any]) -> float:
        return sizes[row["variant"], row["shots"]] or 0.0

    def named(row: Mapping[str, Any]) -> str:
        total = totals[row["variant"], row["shots"]]
        share = f", {100 * size(row) / total:.3g}%" if total else ""
        return f"{plots.shortened(row['variant'])} ({size(row):,.0f}{share})"

    rows.sort(key=size)
    several = len(spec.labelled) > 1
    points = [
        Point(
            size(row),
            results.estimate(row["test"]),
            per_class(row["shots"]) if several else "",
            named(row),
        )
        for row in rows
    ]
    return Figure(
        "depth",
        "Trained parameters",
        "Means over seeds on test with their 95% intervals, over the number of parameters that are not frozen. "
        "A mark stands for a variant.",
        f"Test {tables.label(spec.metric)} over trained parameters. "
        + _said(results, lambda row: f"{per_class(row['shots'])}, {size(row):,.0f} trained", rows),
        interval_plots.points(
            points,
            "trained parameters",
            f"test {results.metric}",
            headings=("labels", "variant (trained)"),
            joined=True,
            log=_is_wide([size(row) for row in rows]),
        ),
    )


def over_time(results: Results) -> Figure | None:
    """Draws the metric over the mean wall time of a run."""
    seconds = {
        (row["variant"], row["shots"]): results.mean(row["variant"], row["shots"], "seconds")
        for row in results.test
    }
    rows = [
        row
        for row in _in_order(results)
        if seconds[row["variant"], row["shots"]] and results.estimate(row["test"]).is_known
    ]
    if not rows:
        return None

    def time(row: Mapping[str, Any]) -> float:
        return seconds[row["variant"], row["shots"]] or 0.0

    several = len(results.spec.labelled) > 1
    times = [time(row) for row in rows]
    return Figure(
        "time",
        "Wall time",
        "Means over seeds on test with their 95% intervals, over the mean time of a run: training and validation.",
        f"Test {tables.label(results.spec.metric)} over the wall time of a run. "
        + _said(
            results, lambda row: f"{per_class(row['shots'])}, {tables.duration(time(row))}", rows
        ),
        interval_plots.points(
            [
                Point(
                    time(row),
                    results.estimate(row["test"]),
                    row["variant"],
                    per_class(row["shots"]) if several else row["variant"],
                )
                for row in rows
            ],
            "mean wall time of a run (s)",
            f"test {results.metric}",
            headings=("variant", "labels" if several else "variant"),
            joined=False,
            log=_is_wide(times),
        ),
    )


def classes(results: Results, shots: int) -> Figure | None:
    """Draws how recall of each class changes against what a variant is compared with, of one number of labels."""
    rows = [row for row in results.test if row["shots"] == shots]
    references = {row["reference"] for row in rows}
    recalls = {row["variant"]: _recalls(results, row["variant"], shots) for row in rows}
    found = {
        row["variant"]: run_metrics.class_changes(
            recalls[row["variant"]], recalls[row["reference"]]
        )
        for row in rows
        if row["variant"] != row["reference"] and recalls[row["reference"]]
    }
    found = {variant: changes for variant, changes in found.items() if changes}
    if not found:
        return None
    names = [
        name for name in next(iter(found.values())) if all(name in of for of in found.values())
    ]

    def change(variant: str, name: str) -> float:
        return found[variant][name].mean or 0.0

    most = min(MOST_CLASSES, max(_MOST_OF_MANY, _MOST_MARKS // len(found)))
    if len(names) > most:
        left_out = f" Of {len(names):,} classes those that change most are drawn."
        largest = sorted(names, key=lambda name: -max(abs(change(of, name)) for of in found))
        names = largest[:most]
    else:
        left_out = ""
    names.sort(key=lambda name: sum(change(of, name) for of in found))
    series = {
        variant: [_scaled(of_class[name].mean, of_class[name].interval, True) for name in names]
        for variant, of_class in found.items()
    }
    labels = f", {per_class(shots)}" if len(results.spec.labelled) > 1 else ""
    reference = next(iter(references)) if len(references) == 1 else "what each is compared with"
    said = "; ".join(
        f"{variant}: "
        + ", ".join(f"{name} {intervals.difference(of_class[name])}" for name in names)
        for variant, of_class in found.items()
    )
    return Figure(
        f"classes_{_number_of_labels(shots)}",
        f"Change by class{labels}",
        f"Mean change of each class's recall on test against {reference}, over pairs of runs of one seed, with its "
        "95% interval, which is not corrected for there being many classes. Filled: the interval leaves out 0."
        + left_out,
        f"Change of recall by class against {reference}{labels}. {said}.",
        interval_plots.changes(
            names, series, f"change of recall against {reference} (percentage points)"
        ),
    )


def curves(results: Results) -> Figure | None:
    """Draws the metric on validation and the training loss over steps, a column for each number of labels."""
    spec = results.spec
    measures = (("validation", spec.metric), ("train", "loss"))
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for row, (split, metric) in enumerate(measures):
        for column, shots in enumerate(spec.labelled):
            for variant in spec.variants:
                folders = [results.folder / run["run"] for run in results.runs(variant, shots)]
                band = run_metrics.curve(folders, split, metric)
                if band is not None:
                    scale = 100.0 if split == "validation" and results.percent else 1.0
                    found.setdefault((row, column), {})[variant] = band.times(scale)
    if not found:
        return None
    # A row or a column without any curve is left out.
    rows = [row for row in range(len(measures)) if any(at == row for at, _ in found)]
    columns = [at for at in range(len(spec.labelled)) if any(column == at for _, column in found)]
    labels = [f"validation {results.metric}", "training loss"]
    titles = [per_class(shots) if len(spec.labelled) > 1 else "" for shots in spec.labelled]
    panels = {
        (rows.index(row), columns.index(column)): drawn for (row, column), drawn in found.items()
    }
    names = [name for name in spec.variants if any(name in drawn for drawn in found.values())]
    said = [
        f"{labels[row]}{_of_labels(titles[column])}: "
        + ", ".join(f"{name} {band.mean[-1]:.4g}" for name, band in drawn.items())
        for (row, column), drawn in sorted(found.items())
    ]
    return Figure(
        "curves",
        "Curves",
        "Means over the seeds of the chosen trial; the band is from the lowest to the highest seed. Runs that failed "
        "or diverged are not drawn, nor steps that not all runs of a variant made. Of "
        f"{interval_plots.POINTS_TO_SMOOTH} points and more a running mean is drawn.",
        f"Metrics over steps, mean over seeds at the last step drawn. {'; '.join(said)}.",
        interval_plots.bands(
            [labels[row] for row in rows], [titles[column] for column in columns], panels, names
        ),
    )


def per_class(shots: int) -> str:
    """Returns "5 per class", or "all labels"."""
    return f"{shots} per class" if shots else "all labels"


def _is_wide(values: Sequence[float]) -> bool:
    """Returns whether numbers, all above 0, need a logarithmic axis."""
    return 0 < min(values) * _RATIO_FOR_LOG < max(values)


def _number_of_labels(shots: int) -> str:
    return str(shots) if shots else "all"


def _of_labels(group: str) -> str:
    return f" ({group})" if group else ""


def _in_order(results: Results) -> list[Mapping[str, Any]]:
    """Returns the rows of test, variant after variant."""
    order = list(results.spec.variants)
    return sorted(results.test, key=lambda row: order.index(row["variant"]))


def _said(
    results: Results, place: Callable[[Mapping[str, Any]], str], rows: Summary | None = None
) -> str:
    shown = _in_order(results) if rows is None else rows
    return "; ".join(f"{row['variant']} ({place(row)}): {results.said(row)}" for row in shown) + "."


def _places_of_labels(results: Results) -> dict[int, float]:
    """Returns {shots: place on the axis}; all labels are where they are on average, at the right in any case."""
    places = {shots: float(shots) for shots in results.spec.labelled if shots}
    if 0 in results.spec.labelled:
        places[0] = max(_labels_on_average(results) or 0.0, 1.5 * max(places))
    return places


def _labels_on_average(results: Results) -> float | None:
    """Returns how many labels of a class there are where all are used; None where that is not known."""
    sizes = {row["shots"]: row["train_examples"] for row in results.rows if row["train_examples"]}
    fewest = min(shots for shots in results.spec.labelled if shots)
    if not {0, fewest} <= sizes.keys():
        return None
    # Of the fewest labels every class has its share.
    return fewest * sizes[0] / sizes[fewest]


def _all(results: Results) -> str:
    number = _labels_on_average(results)
    return "all" if number is None else f"all ({number:,.0f})"


def _recalls(results: Results, variant: str, shots: int) -> dict[int, dict[str, float]]:
    """Returns {seed: recalls} of the runs whose test split was opened."""
    found = {
        row["seed"]: run_metrics.recalls(results.folder / row["run"])
        for row in results.runs(variant, shots)
        if row.get("test") is not None
    }
    return {seed: recalls for seed, recalls in found.items() if recalls}


def _scaled(mean: float | None, interval: Sequence[float] | None, percent: bool) -> Estimate:
    scale = 100.0 if percent else 1.0
    if mean is None:
        return Estimate()
    bounds = None if interval is None else (scale * interval[0], scale * interval[1])
    return Estimate(scale * mean, bounds)
