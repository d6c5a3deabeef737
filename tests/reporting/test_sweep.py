"""The pages of a sweep and of a probe say what their numbers are."""

import json
import math
import re

import numpy as np
import pytest

from tl_jax import reporting
from tl_jax.reporting import plots, probe, sweep
from tl_jax.statistics import mean_over_seeds


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
    # The second combination is chosen; of its two seeds the second one is the best.
    columns = len(members) // len(grid["seeds"])
    own = range(1 % columns, len(members), columns)
    for place, top1 in zip(own, (0.5, 0.625), strict=True):
        members[place] |= {"test_top1": top1, "diverged": True}
    return {
        "title": "small <net> on digits",
        "fields": fields,
        "members": members,
        "chosen": {"place": own[-1]},
        "over_seeds": {
            "validation": mean_over_seeds(
                [members[place]["best_validation_top1"] for place in own]
            ).to_json(),
            "test": mean_over_seeds([0.5, 0.625]).to_json(),
        },
        "test_was_read": "for the 2 seeds of this combination, at the end, and chose nothing",
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
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "small &lt;net&gt; on digits" in text
    # 50 and 62.5: mean 56.25, half the interval 12.7062 * 6.25 = 79.41.
    assert "56.25% test top-1 of the chosen combination, mean of 2 seeds" in text
    assert "95% interval -23.16% to 135.66%" in text
    assert "Best seed of the combination by validation: 1," in text
    # Wilson's interval of 1,250 of 2,000.
    assert "62.50% on test (95% interval 60.36% to 64.60%" in text
    assert f"Test (2,000 images) was read {content['test_was_read']}." in text
    assert "read once" not in text
    assert (tmp_path / "plots" / "sweep.png").is_file() == bool(fields)
    assert json.loads((tmp_path / "sweep.json").read_text())["members"] == content["members"]
    assert [row["seeds"] for row in rows] == [2] * len(rows)


def test_the_page_says_when_every_member_was_read_on_test(tmp_path):
    content = make_content(["learning_rate"], rates=[0.1, 0.2], decays=[0.0], seeds=[0, 1])
    content["test_was_read"] = "for every member, at the end, and chose nothing"
    reporting.write_sweep(tmp_path, content)
    page = (tmp_path / "sweep.html").read_text()
    assert "Test (2,000 images) was read for every member, at the end, and chose nothing" in page
    assert "once" not in page


def test_one_seed_has_no_interval(tmp_path):
    content = make_content(["learning_rate"], rates=[0.1, 0.2], decays=[0.0], seeds=[0, 1])
    content["members"] = content["members"][:2]
    content["members"][1]["test_top1"] = 0.625
    content["chosen"] = {"place": 1}
    content["over_seeds"] = {
        name: mean_over_seeds([value]).to_json()
        for name, value in {"validation": 0.7, "test": 0.625}.items()
    }
    rows = reporting.write_sweep(tmp_path, content)
    assert rows[0]["validation top-1 (95%)"] == "70.00% (one seed, no interval)"
    page = (tmp_path / "sweep.html").read_text()
    assert "one seed: no interval over seeds" in page


def test_combinations_are_ordered_by_their_mean_over_seeds():
    members = make_members([0.1, 0.2], [0.0], [0, 1])
    rows = sweep.combinations(members, ["learning_rate"])
    # 0.70 and 0.71: half the interval of two values 0.01 apart is t(1) * 0.005 = 0.063531.
    assert rows[0] == {
        "learning_rate": 0.2,
        "seeds": 2,
        "validation top-1 (95%)": "70.50% (64.15 to 76.85)",
        "best seed": "71.00%",
        "diverged": 0,
    }


def test_a_heatmap_marks_the_chosen_cell_and_shows_no_interval_of_one_seed():
    mean = np.array([[50.0, 60.0], [70.0, 80.0]])
    half = np.array([[1.0, 2.0], [3.0, math.nan]])
    figure = plots.heatmap("top-1", ("decay", [0, 1]), ("rate", [2, 3]), mean, half, (1, 0))
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
    assert "95% interval 70.53% to 78.99%" in page  # Wilson's of 300 of 400
    assert json.loads((tmp_path / "probe.json").read_text())["chosen"] == 1.0
    assert (tmp_path / "plots" / "probe.png").is_file()
