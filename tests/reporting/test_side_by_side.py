"""Figures of several runs: a line, a panel or a row for each, and names drawn as they are."""

import pytest

from tl_jax.reporting import plots, side_by_side

CALIBRATION = {
    "ece": 0.125,
    "bin_count": [0, 4, 4],
    "bin_accuracy": [0.0, 0.5, 0.75],
    "bin_confidence": [0.0, 0.5, 0.9],
}


def test_every_run_has_a_line_of_its_own():
    series = {f"run {place}": ([1, 2], [place, float("nan")]) for place in range(15)}
    axes = side_by_side.curves("train loss", series, list(series)).axes[0]
    assert len(axes.lines) == 15
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 15
    assert [line.get_ydata()[0] for line in axes.lines] == list(range(15))


def test_a_run_looks_the_same_in_every_picture():
    line = ([1], [1.0])
    both = side_by_side.curves("loss", {"a": line, "b": line}, ["a", "b"]).axes[0].lines
    (alone,) = side_by_side.curves("top-1", {"b": line}, ["a", "b"]).axes[0].lines
    assert alone.get_color() == both[1].get_color() != both[0].get_color()


def test_many_points_are_drawn_as_their_mean():
    count = plots.POINTS_TO_SMOOTH
    series = {"noisy": (range(count), [0.0, 2.0] * (count // 2)), "short": ([1], [0.5])}
    figure = side_by_side.curves("loss", series, list(series))
    noisy, short = figure.axes[0].lines
    assert noisy.get_label() == "noisy (mean)" and short.get_label() == "short"
    assert 0 < noisy.get_ydata()[10] < 2


@pytest.mark.parametrize("count", [1, 3, 5])
def test_every_run_has_a_diagram(count):
    runs = {f"$run_{place}$": CALIBRATION for place in range(count)}
    figure = side_by_side.reliabilities(runs)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 2 * count
    titles = [axes.get_title(loc="left") for axes in shown]
    assert [title for title in titles if title] == [f"{name}\nECE 0.1250" for name in runs]
    assert plots.to_png(figure).startswith(b"\x89PNG")


def test_differences_are_drawn_in_points():
    figure = side_by_side.differences(
        "first", {"b": (-0.1, (-0.15, -0.06)), "c": (0.02, (0, 0.04))}
    )
    axes = figure.axes[0]
    drawn = [float(container.lines[0].get_xdata()[0]) for container in axes.containers]
    assert drawn == pytest.approx([-10, 2])
    bars = [container.lines[2][0].get_segments()[0][:, 0].tolist() for container in axes.containers]
    assert bars[0] == pytest.approx([-15, -6]) and bars[1] == pytest.approx([0, 4])
    assert axes.get_xlabel() == "test top-1 minus that of first (points)"


def test_names_are_drawn_as_they_are():
    figure = side_by_side.curves(
        "$loss$", {"_hidden": ([1], [1.0]), "a$b$": ([1], [2.0])}, ["_hidden", "a$b$"]
    )
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text.lstrip("\u200b") for text in texts] == ["_hidden", r"a\$b\$"]
    plots.to_png(figure)
