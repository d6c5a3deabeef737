"""The pages of a sweep and of a probe say what their numbers are."""

import json
import math

import numpy as np
import pytest

from tl_jax import reporting
from tl_jax.reporting import plots, probe, sweep


def make_members(rates, decays, seeds):
    return [
        {
            "learning_rate": rate,
            "weight_decay": decay,
            "label_smoothing": 0.0,
            "l2_sp": 0.0,
            "seed": seed,
            "best_validation_top1": 0.5 + rate + 0.01 * seed - decay,
            "best_step": 10,
            "stopped_at": 20,
            "diverged": False,
        }
        for seed in seeds
        for rate in rates
        for decay in decays
    ]


def make_content(fields, **grid):
    members = make_members(**grid)
    members[1] |= {"test_top1": 0.625, "diverged": True}
    return {
        "title": "small <net> on digits",
        "fields": fields,
        "members": members,
        "chosen": {"place": 1},
        "validation_examples": 1000,
        "test_examples": 2000,
        "seconds": {"train": 1.25},
        "history": {"train_loss": [[0.5, math.nan]]},
    }


@pytest.mark.parametrize(
    ("fields", "grid"),
    [
        (["learning_rate", "weight_decay"], {"rates": [0.1, 0.2], "decays": [0.0, 0.1]}),
        (["learning_rate"], {"rates": [0.2, 0.1], "decays": [0.0]}),
        ([], {"rates": [0.1], "decays": [0.0]}),
    ],
    ids=["two fields", "one field", "seeds alone"],
)
def test_a_sweep_is_written(tmp_path, fields, grid):
    content = make_content(fields, **grid, seeds=[0, 1])
    rows = reporting.write_sweep(tmp_path, content)
    page = (tmp_path / "sweep.html").read_text()
    assert "62.50%" in page and "small &lt;net&gt; on digits" in page
    assert (tmp_path / "plots" / "sweep.png").is_file() == bool(fields)
    assert json.loads((tmp_path / "sweep.json").read_text())["members"] == content["members"]
    assert [row["seeds"] for row in rows] == [2] * len(rows)


def test_combinations_are_ordered_by_their_mean_over_seeds():
    members = make_members([0.1, 0.2], [0.0], [0, 1])
    rows = sweep.combinations(members, ["learning_rate"])
    # 0.70 and 0.71; the sample deviation of two values 0.01 apart is 0.01 / sqrt(2).
    assert rows[0] == {
        "learning_rate": 0.2,
        "seeds": 2,
        "validation top-1 (%)": "70.50 ± 0.71",
        "best (%)": "71.00",
        "diverged": 0,
    }
    alone = sweep.combinations(make_members([0.1], [0.0], [0]), ["learning_rate"])
    assert alone[0]["validation top-1 (%)"] == "60.00"


def test_a_heatmap_marks_the_chosen_cell_and_shows_no_spread_of_one_seed():
    mean = np.array([[50.0, 60.0], [70.0, 80.0]])
    spread = np.array([[1.0, 2.0], [3.0, math.nan]])
    figure = plots.heatmap("top-1", ("decay", [0, 1]), ("rate", [2, 3]), mean, spread, (1, 0))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["50.00\n± 1.00", "60.00\n± 2.00", "70.00\n± 3.00", "80.00"]
    (mark,) = figure.axes[0].lines
    assert np.mean(mark.get_xdata()[:4]) == pytest.approx(0)
    assert np.mean(mark.get_ydata()[:4]) == pytest.approx(1)


def test_a_curve_over_values_is_logarithmic_where_it_can_be():
    given = {"validation": ([0.5, 0.6], None)}
    assert plots.over_values("t", "l", [0.1, 1.0], given).axes[0].get_xscale() == "log"
    assert plots.over_values("t", "l", [0.0, 1.0], given).axes[0].get_xscale() == "linear"


def test_a_probe_is_written(tmp_path):
    rows = [
        {
            "strength": s,
            "train_top1": 0.9,
            "validation_top1": v,
            "evaluations": 9,
            "converged": True,
        }
        for s, v in [(0.1, 0.5), (1.0, 0.75)]
    ]
    splits = {name: {"top1_accuracy": 0.75, "examples": 400} for name in ("validation", "test")}
    probe.write_probe(tmp_path, "net on data", rows, 1.0, {"splits": splits, "selection": "chosen"})
    page = (tmp_path / "probe.html").read_text()
    assert "net on data" in page and "75.00%" in page and "400 images, read once" in page
    assert json.loads((tmp_path / "probe.json").read_text())["chosen"] == 1.0
    assert (tmp_path / "plots" / "probe.png").is_file()
