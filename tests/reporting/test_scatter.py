"""Features in the plane: a colour, a marker and a name for each class."""

import numpy as np
import pytest

from tl_jax.reporting import SCATTER_FILE, plots, scatter
from tl_jax.training.projection import Projection


def projection(count, axes=2, name="PCA"):
    points = np.random.default_rng(0).normal(size=(count, axes)).astype(np.float32)
    return Projection(name, points, (0.5, 0.25)[:axes])


@pytest.mark.parametrize("classes", [5, 20, 64])
def test_every_class_is_drawn_in_a_way_of_its_own(classes):
    labels = np.arange(200) % classes
    names = [f"$class$ {place}" for place in range(classes)]
    drawn = scatter.figure(projection(200), labels, names)
    axes = drawn.axes[0]
    assert len(axes.collections) == classes
    assert sum(len(cloud.get_offsets()) for cloud in axes.collections) == 200
    looks = {
        (tuple(cloud.get_facecolor()[0]), cloud.get_paths()[0].vertices.tobytes())
        for cloud in axes.collections
    }
    assert len(looks) == classes
    assert {text.get_text() for text in axes.texts} == {plots.shortened(n, 14) for n in names}
    assert axes.get_title(loc="left") == "PCA: 50.0% and 25.0% of the variance"
    # Of very many classes a legend would be larger than the plot.
    assert len(drawn.legends) == (1 if classes <= 40 else 0)
    assert plots.to_png(drawn).startswith(b"\x89PNG")


def test_a_name_is_at_the_median_of_its_class():
    points = np.array([[0, 0], [1, 2], [9, 9], [5, 5]], np.float32)
    drawn = scatter.figure(
        Projection("LDA", points, (0.9, 0.1)), np.array([0, 0, 0, 2]), ["a", "none", "c"]
    )
    places = {text.get_text(): text.xy for text in drawn.axes[0].texts}
    assert {name: tuple(place) for name, place in places.items()} == {"a": (1, 2), "c": (5, 5)}
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["a", "c"]


def test_one_axis_is_a_histogram_of_each_class():
    drawn = scatter.figure(projection(60, 1, "LDA"), np.arange(60) % 2, ["a", "b"])
    assert sum(bar.get_height() for bar in drawn.axes[0].patches) == 60
    assert drawn.axes[0].get_title(loc="left") == "LDA: 50.0% of the variance between classes"


@pytest.mark.parametrize("axes", [1, 2])
def test_names_that_begin_with_an_underscore_are_in_the_legend(axes):
    drawn = scatter.figure(projection(9, axes), np.arange(9) % 3, ["_a", "b", "_c"])
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["_a", "b", "_c"]


def test_plots_of_a_folder(tmp_path):
    assert scatter.write_plots(tmp_path) is None
    arrays = scatter.arrays_of(
        [projection(8), projection(8, name="LDA")], np.arange(8) % 2, ["a", "b"], 30
    )
    np.savez(tmp_path / SCATTER_FILE, **arrays)
    found = scatter.write_plots(tmp_path)
    assert (found["examples"], found["fitted"]) == (8, 30)
    assert [picture["alt"].partition(":")[0] for picture in found["pictures"]] == ["PCA", "LDA"]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["lda.png", "pca.png"]
    del arrays["LDA_points"], arrays["LDA_shares"]
    np.savez(tmp_path / SCATTER_FILE, **arrays)
    assert len(scatter.write_plots(tmp_path)["pictures"]) == 1
