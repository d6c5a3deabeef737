import json
import math

import pytest

from tl_jax.errors import InputError
from tl_jax.reporting import write_comparison

ACCURACY = {"linear_probe": (0.90, 0.92, 0.94), "full_finetune": (0.95, 0.96, 0.97), "one": (0.80,)}


def make_results(**extra):
    return [
        {
            "method": method,
            "seed": seed,
            "run": f"runs/{method}-{seed}",
            "top1_accuracy": value,
            "wall_seconds": 10.0 * (seed + 1),
            "trainable_parameters": 100 * len(method),
            **extra,
        }
        for method, values in ACCURACY.items()
        for seed, value in enumerate(values)
    ]


def test_statistics_are_those_computed_by_hand(tmp_path):
    rows = write_comparison(tmp_path, "Methods", make_results(device="cpu"))
    content = json.loads((tmp_path / "comparison.json").read_text())
    probe, full, one = content["methods"]
    # 90, 92, 94: mean 92, squared deviations 4 + 0 + 4 over 2.
    assert probe["mean"] == pytest.approx(0.92) and probe["sample_std"] == pytest.approx(0.02)
    assert probe["difference"] is None and probe["wall_seconds"] == 20.0
    assert full["mean"] == pytest.approx(0.96) and full["sample_std"] == pytest.approx(0.01)
    # 5, 4, 3 points.
    assert full["difference"]["values"] == pytest.approx([0.05, 0.04, 0.03])
    assert full["difference"]["mean"] == pytest.approx(0.04)
    assert full["difference"]["sample_std"] == pytest.approx(0.01)
    # Only seed 0 is common.
    assert one["n"] == 1 and one["sample_std"] is None
    assert one["difference"]["mean"] == pytest.approx(-0.1) and one["difference"]["n"] == 1
    assert rows[0] == {
        "method": "linear_probe",
        "top-1 accuracy": "92.00 ± 2.00%",
        "seeds": 3,
        "difference to the first": "-",
        "wall time of a run": "20.0 s",
        "trainable_parameters": 1200,
        "device": "cpu",
    }
    assert [row["difference to the first"] for row in rows[1:]] == [
        "+4.00 ± 1.00 points",
        "-10.00 points",
    ]
    assert rows[2]["top-1 accuracy"] == "80.00%"
    for name in ("comparison.md", "comparison.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "92.00 ± 2.00%" in text and "+4.00 ± 1.00 points" in text
        assert "sample standard deviation over seeds (divisor n - 1)" in text
    assert (tmp_path / "plots" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_links_the_reports_that_exist_and_nothing_else(tmp_path):
    report = tmp_path / "runs" / "linear_probe-0" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("x")
    write_comparison(tmp_path, "Methods", make_results())
    text = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert text.count("<a href=") == 1 and '<a href="runs/linear_probe-0/report.html">' in text
    assert "http:" not in text and "https:" not in text and "<script" not in text
    markdown = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "[runs/linear_probe-0](runs/linear_probe-0/report.html)" in markdown


def test_runs_elsewhere_are_linked_by_a_relative_path(tmp_path):
    run = tmp_path / "a run" / "x"
    run.mkdir(parents=True)
    (run / "report.html").write_text("x")
    results = [{"method": "a", "seed": 0, "run": str(run), "top1_accuracy": 0.5}]
    write_comparison(tmp_path / "out", "Methods", results)
    assert 'href="../a%20run/x/report.html"' in (tmp_path / "out" / "comparison.html").read_text()


def test_fields_that_differ_between_runs_become_means(tmp_path):
    results = make_results()
    for result in results:
        result["loss"] = float(result["seed"])
        result["host"] = f"host{result['seed']}"
    rows = write_comparison(tmp_path, "Methods", results)
    assert rows[0]["loss (mean)"] == "1" and "host" not in rows[0] and "loss" not in rows[0]


def test_another_metric_is_not_in_percent(tmp_path):
    results = [
        {"method": method, "seed": seed, "run": "r", "loss": value + seed}
        for method, value in (("a", 1.0), ("b", 3.0))
        for seed in (0, 2)
    ]
    rows = write_comparison(tmp_path, "Loss", results, metric="loss")
    assert rows[0]["loss"] == "2 ± 1.4" and rows[1]["difference to the first"] == "+2 ± 0"


@pytest.mark.parametrize("value", [math.nan, None, "nan"])
def test_a_diverged_run_does_not_hide(tmp_path, value):
    results = make_results()
    results[0]["top1_accuracy"] = value
    rows = write_comparison(tmp_path, "Methods", results)
    assert rows[0]["top-1 accuracy"] == "not finite"
    assert rows[1]["difference to the first"] == "not finite"
    text = (tmp_path / "comparison.json").read_text()
    assert "NaN" not in text and json.loads(text)["methods"][0]["mean"] == "nan"


def test_hostile_names_are_text(tmp_path):
    results = [{"method": "<script>|$x", "seed": 0, "run": "<b>", "top1_accuracy": 0.5}]
    write_comparison(tmp_path, "<i>title</i>", results)
    text = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "<script" not in text and "<i>" not in text and "&lt;script&gt;|$x" in text


@pytest.mark.parametrize(
    ("results", "message"),
    [
        pytest.param([], "no result to compare", id="none"),
        pytest.param(
            [{"method": "a", "run": "r"}], "result 0 has no seed, top1_accuracy", id="fields"
        ),
        pytest.param(
            make_results()[:1] * 2, "result 1: method 'linear_probe' has seed 0 twice", id="twice"
        ),
    ],
)
def test_what_cannot_be_compared(tmp_path, results, message):
    with pytest.raises(InputError, match=message):
        write_comparison(tmp_path, "Methods", results)
    assert not list(tmp_path.iterdir())
