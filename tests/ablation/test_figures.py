"""What the figures of an ablation draw, on runs made up here, and which are left out."""

import dataclasses
import json
import math
import pathlib
import re

import numpy as np
import pytest

from tl_jax.ablation import analysis, figures, run_metrics
from tl_jax.reporting import interval_plots
from tl_jax.reporting.interval_plots import Estimate, Point

# Of three classes with 2, 1 and 1 test images.
LABELS = np.array([0, 0, 1, 2])
SIZES = {"slow": 100, "fast": 4000}


def write_run(folder: pathlib.Path, predicted, top1, steps=(2, 4)):
    """Writes the predictions and the metrics of a run."""
    folder.mkdir(parents=True)
    np.savez(
        folder / "predictions.npz",
        probabilities=np.eye(4, dtype=np.float32)[np.asarray(predicted)],
        labels=LABELS,
        class_names=np.array(["cat", "a$b", "dog", "absent"]),
    )
    lines = [{"step": step, "split": "train", "loss": 8.0 / step} for step in (1, *steps)]
    lines += [{"step": step, "split": "validation", "top1_accuracy": top1 * step} for step in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def made_up(spec, tmp_path):
    """Returns what figures are drawn from: by default of two variants, two seeds and two numbers of labels."""

    def make(test=None, shots=(5, 0), predictions=True, **arguments):
        made = spec(shots=shots, **{"baseline": "slow", **arguments})
        rows = []
        for number in made.labelled:
            for variant in made.variants:
                for seed in made.seeds:
                    value = {"slow": 0.5, "fast": 0.7}[variant] + 0.1 * seed * (variant == "fast")
                    value = value if test is None else test[variant][seed]
                    name = f"cells/{variant}/{number}/seed{seed}"
                    failed = value is None
                    rows.append(
                        {
                            "variant": variant,
                            "shots": number,
                            "trial": 0,
                            "values": {},
                            "seed": seed,
                            "run": name,
                            "status": "diverged" if failed else "finished",
                            "validation": value,
                            "seconds": None if failed else {"slow": 2.0, "fast": 30.0}[variant],
                            "devices": 2,
                            "trainable": None if failed else SIZES[variant],
                            "parameters": None if failed else 8000,
                            "train_examples": 15 if number == 5 else 120,
                            **({} if failed else {"test": value}),
                        }
                    )
                    if predictions and not failed:
                        own = {"slow": (0, 1, 0, 1 + seed), "fast": (0, seed, 1, 1 + seed)}[variant]
                        write_run(tmp_path / name, own, (1 + seed) / 10)
        chosen = analysis.choose(made, rows)
        summary = analysis.summarise(made, rows, chosen, "test")
        return figures.Results(made, tmp_path, rows, chosen, summary)

    return make


def bars(figure, place=0):
    """Returns {label: (x, y, ((x, y), (x, y)) of its bar)} of what has error bars."""
    found = {}
    for bar in figure.axes[place].containers:
        ((x, y),) = bar.lines[0].get_xydata()
        ends = [tuple(map(tuple, one.get_segments()[0])) for one in bar.lines[2]]
        found.setdefault(bar.get_label(), []).append((x, y, *ends))
    return found


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_figures_are_in_order_and_say_their_numbers(made_up):
    drawn = figures.draw(made_up())
    assert [figure.name for figure in drawn] == [
        "differences",
        "labels",
        "depth",
        "time",
        "classes_5",
        "classes_all",
        "curves",
    ]
    assert all(figure.caption.endswith(".") and figure.alt.endswith(".") for figure in drawn)
    assert all(re.search(r"\d", figure.alt) and "nan" not in figure.alt for figure in drawn)


def test_accuracy_over_labels(made_up):
    figure = figures.over_labels(made_up())
    axes = figure.drawn.axes[0]
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    # 15 images of 3 classes for 5 of each: 120 are 40 of each.
    assert lines["slow"].get_xydata().tolist() == [[5, 50], [40, 50]]
    np.testing.assert_allclose(lines["fast"].get_xydata(), [[5, 75], [40, 75]])
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["5", "all (40)"]
    assert legend(figure.drawn) == ["variant", "slow", "fast"]
    # Of 0.7 and 0.8: 12.7062 * 0.0707107 / sqrt(2) = 63.53 points.
    (_, mean, ((_, low), (_, high))), _ = bars(figure.drawn)["_fast, fast"]
    np.testing.assert_allclose((mean, low, high), (75, 75 - 63.531, 75 + 63.531), atol=1e-3)
    low, high = axes.get_ylim()
    assert low < 12 and high > 138
    assert "fast (all labels): 75.00% (11.47 to 138.53)" in figure.alt


def test_all_labels_are_at_the_right_where_their_number_is_not_known(made_up):
    results = made_up(shots=(0, 4, 20))
    rows = [row | {"train_examples": None} for row in results.rows]
    axes = figures.over_labels(dataclasses.replace(results, rows=rows)).drawn.axes[0]
    ticks = dict(
        zip(axes.get_xticks(), [text.get_text() for text in axes.get_xticklabels()], strict=True)
    )
    assert ticks == {4: "4", 20: "20", 30: "all"}


def test_accuracy_over_trained_parameters(made_up):
    figure = figures.over_parameters(made_up())
    axes = figure.drawn.axes[0]
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert lines.keys() == {"5 per class", "all labels"}
    np.testing.assert_allclose(lines["5 per class"].get_xydata(), [[100, 50], [4000, 75]])
    assert axes.get_xscale() == "log"
    assert legend(figure.drawn)[-2:] == ["slow (100, 1.25%)", "fast (4,000, 50%)"]
    assert "fast (5 per class, 4,000 trained): 75.00%" in figure.alt


def test_accuracy_over_time(made_up):
    figure = figures.over_time(made_up())
    found = bars(figure.drawn)
    assert [name for name in found] == [
        "_slow, 5 per class",
        "_slow, all labels",
        "_fast, 5 per class",
        "_fast, all labels",
    ]
    ((x, y, _),) = found["_fast, 5 per class"]
    assert (x, y) == (30, 75)
    axes = figure.drawn.axes[0]
    assert axes.get_xlabel() == "mean wall time of a run (s)" and axes.get_xscale() == "log"
    assert "slow (all labels, 2.0 s): 50.00%" in figure.alt


@pytest.mark.parametrize("differs", [True, False], ids=["differs", "noise"])
def test_differences(made_up, differs):
    values = {"slow": (0.5, 0.5), "fast": (0.7, 0.701 if differs else 0.9)}
    figure = figures.differences(made_up(values))
    axes = figure.drawn.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "5 per class",
        "fast",
        "all labels",
        "fast",
    ]
    points = bars(figure.drawn)["_fast"]
    assert [round(y) for _, y, _ in points] == [1, 3]
    mean = 20.05 if differs else 30.0
    assert points[0][0] == pytest.approx(mean)
    ((low, _), (high, _)) = points[0][2]
    assert bool(low > 0) is differs and high > mean
    mark = axes.containers[0].lines[0]
    assert mark.get_markerfacecolor() == (interval_plots.INK if differs else "white")
    verdict = "differs" if differs else "noise"
    assert [text.get_text() for text in axes.texts] == [f"+{mean:.2f}, n=2, {verdict}"] * 2
    assert "fast against slow (5 per class): +" in figure.alt and f"n=2, {verdict}" in figure.alt
    zero = [line for line in axes.lines if list(line.get_xdata()) == [0, 0]]
    assert len(zero) == 1


def test_change_by_class(made_up):
    figure = figures.classes(made_up(), 5)
    axes = figure.drawn.axes[0]
    # cat: 1 of 2 with slow, 2 and 1 with fast; a$b: none, its one; dog: none and its one with both. None is "absent".
    assert [text.get_text() for text in axes.get_yticklabels()] == ["dog", "cat", "a$b"]
    assert not any(text.get_parse_math() for text in axes.get_yticklabels())
    points = bars(figure.drawn)["_fast"]
    assert [x for x, *_ in points] == [0, 25, 100]
    # Of 50 and 0: 12.7062 * 35.3553 / sqrt(2).
    np.testing.assert_allclose(points[1][2], ((25 - 317.655, 1), (25 + 317.655, 1)), atol=1e-3)
    filled = [bar.lines[0].get_markerfacecolor() != "white" for bar in axes.containers]
    assert filled == [False, False, True]
    assert "a$b +100.00 points (+100.00 to +100.00), n=2" in figure.alt


def test_of_many_classes_those_that_change_most_are_drawn(made_up, monkeypatch):
    monkeypatch.setattr(figures, "MOST_CLASSES", 2)
    figure = figures.classes(made_up(), 5)
    names = [text.get_text() for text in figure.drawn.axes[0].get_yticklabels()]
    assert names == ["cat", "a$b"] and "Of 3 classes" in figure.caption


def test_pairs_are_named_with_both(made_up):
    results = made_up(pairs={"fast": "slow"}, shots=(5,))
    figure = figures.differences(results)
    assert "_fast - slow" in bars(figure.drawn)
    assert "against" not in figure.drawn.axes[0].get_xlabel()
    assert "fast against slow: +" in figure.alt
    assert "against slow" in figures.classes(results, 5).drawn.axes[0].get_xlabel()


def test_classes_of_several_pairs(made_up):
    """Each against its own; of a variant that is compared with none nothing is drawn."""
    results = made_up(shots=(5,))
    slow, fast = results.test
    other = dataclasses.replace(
        results, test=[slow, fast, {**fast, "reference": "fast"}, {**slow, "reference": "fast"}]
    )
    figure = figures.classes(other, 5)
    assert "what each is compared with" in figure.drawn.axes[0].get_xlabel()
    points = bars(figure.drawn)["_slow"]
    assert sorted(x for x, *_ in points) == [-100, -25, 0]


def test_of_many_variants_the_differences_are_drawn(made_up, monkeypatch):
    results = made_up()
    assert len(figures.draw(results)) > 3
    monkeypatch.setattr(figures, "MOST_VARIANTS", 1)
    assert [figure.name for figure in figures.draw(results)] == ["differences"]
    assert not figures.draw(dataclasses.replace(results, test=[]))


def test_ticks_are_readable():
    numbers = {0.05: "0.05", 1000: "1,000", 20000: "20k", 1e6: "1M", 2.5e7: "25M"}
    assert [interval_plots._number(number) for number in numbers] == list(numbers.values())


def test_curves_with_bands(made_up):
    figure = figures.curves(made_up())
    upper, _, lower, _ = figure.drawn.axes
    assert (upper.get_ylabel(), lower.get_ylabel()) == (
        "validation top-1 accuracy (%)",
        "training loss",
    )
    assert [axes.get_title("left") for axes in figure.drawn.axes[:2]] == [
        "5 per class",
        "all labels",
    ]
    # Seeds have 10 and 20 times the step.
    np.testing.assert_allclose(upper.lines[0].get_xydata(), [[2, 30], [4, 60]])
    (band,) = upper.collections[0].get_paths()
    assert {tuple(np.round(place, 3)) for place in band.vertices} >= {
        (2.0, 20.0),
        (2.0, 40.0),
        (4.0, 40.0),
        (4.0, 80.0),
    }
    np.testing.assert_allclose(lower.lines[1].get_xydata(), [[1, 8], [2, 4], [4, 2]])
    assert legend(figure.drawn) == ["slow", "fast"]
    assert "validation top-1 accuracy (%) (5 per class): slow 60, fast 60" in figure.alt


def test_a_curve_ends_with_the_first_of_its_runs(tmp_path):
    write_run(tmp_path / "long", LABELS, 0.1, steps=(2, 4, 6))
    write_run(tmp_path / "short", LABELS, 0.2, steps=(2, 4))
    folders = [tmp_path / name for name in ("long", "short", "missing")]
    band = run_metrics.curve(folders, "validation", "top1_accuracy")
    assert band.steps.tolist() == [2, 4]
    np.testing.assert_allclose(band.mean, [0.3, 0.6])
    (tmp_path / "short" / "metrics.jsonl").write_text(
        '{"step": 2, "split": "validation", "top1_accuracy": "nan"}\n'
    )
    assert run_metrics.curve(folders, "validation", "top1_accuracy") is None
    assert run_metrics.curve([], "train", "loss") is None


def test_what_failed_is_named_and_nothing_is_drawn_of_it(made_up):
    results = made_up({"slow": (0.5, 0.6), "fast": (None, None)})
    drawn = {figure.name: figure for figure in figures.draw(results)}
    assert drawn.keys() == {"labels", "time", "curves"}
    assert legend(drawn["labels"].drawn) == ["variant", "slow"]
    three = results.test + [
        row | {"variant": "other", "difference": {**FOUND}}
        for row in results.test
        if row["variant"] == "fast"
    ]
    figure = figures.differences(dataclasses.replace(results, test=three))
    texts = [text.get_text() for text in figure.drawn.axes[0].texts]
    assert texts == ["2 runs failed", "2 runs failed", "+1.00, n=2, noise", "+1.00, n=2, noise"]
    assert "fast against slow (5 per class): 2 runs failed" in figure.alt


FOUND = {
    "n": 2,
    "mean": 0.01,
    "sample_std": 0.1,
    "interval": (-0.1, 0.12),
    "values": {},
    "unpaired": (),
    "differs": False,
}


def test_what_is_not_finite_is_not_drawn(made_up):
    results = made_up({"slow": (0.5, 0.6), "fast": (math.nan, 0.7)})
    drawn = {figure.name: figure for figure in figures.draw(results)}
    assert {"differences", "depth"}.isdisjoint(drawn)
    for figure in drawn.values():
        interval_plots.to_bytes(figure.drawn, "svg")


def test_figures_without_data_are_left_out(made_up):
    results = made_up(shots=(5,), predictions=False, test=None)
    same = [row | {"trainable": 7} for row in results.rows]
    names = [figure.name for figure in figures.draw(dataclasses.replace(results, rows=same))]
    assert names == ["differences", "time"]
    unknown = [row | {"trainable": None, "seconds": None} for row in results.rows]
    names = [figure.name for figure in figures.draw(dataclasses.replace(results, rows=unknown))]
    assert names == ["differences"]


def test_broken_predictions_cost_no_more_than_their_pair(made_up, tmp_path):
    results = made_up(shots=(5,))
    (tmp_path / "cells/fast/5/seed1/predictions.npz").write_bytes(b"no archive")
    figure = figures.classes(results, 5)
    assert "dog +0.00 points (one seed, no interval), n=1" in figure.alt


def test_a_loss_is_no_percentage(made_up):
    results = made_up(metric="loss", shots=(5,))
    figure = figures.differences(results)
    assert bars(figure.drawn)["_fast"][0][0] == pytest.approx(0.25)
    assert "percentage" not in figure.drawn.axes[0].get_xlabel()
    assert figures.over_time(results).drawn.axes[0].get_ylabel() == "test loss"


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_figures_are_the_same_bytes(made_up, kind):
    results = made_up()
    once, again = (
        [interval_plots.to_bytes(figure.drawn, kind) for figure in figures.draw(results)]
        for _ in range(2)
    )
    assert once == again and len(set(once)) == len(once) - 1  # of both numbers of labels alike
    assert b"<dc:date>" not in b"".join(once)


def test_points_of_one_place_are_not_joined():
    points = [Point(x, Estimate(y), "a", str(y)) for x, y in ((1.0, 2.0), (1.0, 3.0))]
    figure = interval_plots.points(points, "x", "y", headings=("c", "m"), joined=True, log=False)
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert "a" not in labels and len(bars(figure)) == 2


def test_marks_of_one_place_stand_beside_each_other():
    """Two colours, in one of which two variants train as much."""
    points = [
        Point(10.0, Estimate(0.5, (0.4, 0.6)), "5", "a"),
        Point(10.0, Estimate(0.5, (0.4, 0.6)), "5", "b"),
        Point(10.0, Estimate(0.5, (0.4, 0.6)), "20", "a"),
        Point(20.0, Estimate(0.5, (0.4, 0.6)), "5", "c"),
    ]
    drawn = interval_plots.points(
        points, "x", "y", headings=("labels", "variant"), joined=True, log=False
    )
    axes = drawn.axes[0]
    shifts = {}
    for bar in axes.containers:
        line = bar.lines[0]
        ((x, y),) = line.get_xydata()
        shown, true = line.get_transform().transform((x, y)), axes.transData.transform((x, y))
        assert shown[1] == true[1]
        shifts[bar.get_label()] = round((shown[0] - true[0]) * 72 / drawn.dpi, 6)
    assert shifts == {"_5, a": -2.0, "_5, b": 6.0, "_5, c": -2.0, "_20, a": 2.0}
