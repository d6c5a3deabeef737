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


TEST, VALIDATION = (f"{split} top-1 (95%)" for split in ("test", "validation"))
DIFFERENCE = "test, against linear_probe (95%)"


def test_statistics_are_those_computed_by_hand(tmp_path):
    rows = write_comparison(tmp_path, "Methods", make_results(device="cpu"))
    content = json.loads((tmp_path / "comparison.json").read_text())
    probe, full, one = content["methods"]
    # 90, 92, 94: mean 92, squared deviations 4 + 0 + 4 over 2; t(2) = 4.30265, half 4.9683 points.
    assert probe["mean"] == pytest.approx(0.92) and probe["sample_std"] == pytest.approx(0.02)
    assert probe["interval"] == pytest.approx([0.870317, 0.969683], abs=1e-6)
    assert probe["difference"] is None and probe["wall_seconds"] == 20.0
    assert full["mean"] == pytest.approx(0.96) and full["sample_std"] == pytest.approx(0.01)
    # 5, 4, 3 points: half 2.4841.
    assert list(full["difference"]["values"].values()) == pytest.approx([0.05, 0.04, 0.03])
    assert full["difference"]["mean"] == pytest.approx(0.04)
    assert full["difference"]["sample_std"] == pytest.approx(0.01)
    assert full["difference"]["interval"] == pytest.approx([0.015159, 0.064841], abs=1e-6)
    assert full["difference"]["to"] == "linear_probe" and full["difference"]["unpaired"] == []
    # Only seed 0 is common.
    assert one["n"] == 1 and one["sample_std"] is None and one["interval"] is None
    assert one["difference"]["mean"] == pytest.approx(-0.1) and one["difference"]["n"] == 1
    assert one["difference"]["unpaired"] == [1, 2]
    assert rows[0] == {
        "method": "linear_probe",
        TEST: "92.00% (87.03 to 96.97)",
        "seeds": 3,
        DIFFERENCE: "-",
        "wall time of a run": "20.0 s",
        "trainable parameters": 1200,
    }
    assert [row[DIFFERENCE] for row in rows[1:]] == [
        "+4.00 points (+1.52 to +6.48), n=3",
        "-10.00 points (one seed, no interval), n=1",
    ]
    assert rows[2][TEST] == "80.00% (one seed, no interval)"
    for name in ("comparison.md", "comparison.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "92.00% (87.03 to 96.97)" in text and "+4.00 points (+1.52 to +6.48), n=3" in text
        assert "95% t-intervals over seeds" in text and "±" not in text
        assert "device cpu" in text
    assert (tmp_path / "plots" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_differences_are_those_of_pairs(tmp_path):
    """Accuracy rises with the seed and the runs come in another order: only pairs show 2, 1 and 3 points."""
    values = {"a": {0: 0.10, 1: 0.40, 2: 0.70}, "b": {2: 0.73, 0: 0.12, 1: 0.41}}
    results = [
        {"method": method, "seed": seed, "run": "r", "top1_accuracy": value}
        for method, by_seed in values.items()
        for seed, value in by_seed.items()
    ]
    rows = write_comparison(tmp_path, "Methods", results)
    assert rows[1]["test, against a (95%)"] == "+2.00 points (-0.48 to +4.48), n=3"
    difference = json.loads((tmp_path / "comparison.json").read_text())["methods"][1]["difference"]
    assert difference["values"] == pytest.approx({"0": 0.02, "1": 0.01, "2": 0.03})


def with_validation():
    """Returns runs whose best method on validation, the first one, is not the best on test."""
    results = make_results()
    for result in results:
        bonus = 0.05 if result["method"] == "linear_probe" else -0.05
        result["validation_top1_accuracy"] = result["top1_accuracy"] + bonus
        result["validation_examples"] = 100
    return results


def test_validation_is_shown_beside_test_and_chooses(tmp_path):
    rows = write_comparison(tmp_path, "Methods", with_validation())
    assert [(row[VALIDATION], row[TEST]) for row in rows] == [
        ("97.00% (92.03 to 101.97)", "92.00% (87.03 to 96.97)"),
        ("91.00% (88.52 to 93.48)", "96.00% (93.52 to 98.48)"),
        ("75.00% (one seed, no interval)", "80.00% (one seed, no interval)"),
    ]
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["methods"][0]["validation"]["mean"] == pytest.approx(0.97)
    assert content["chosen_on_test"] is False
    sentence = (
        "the best mean on validation is that of linear_probe, 97.00% (92.03 to 101.97); "
        "on test it has 92.00% (87.03 to 96.97)."
    )
    assert sentence in content["choice"]
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert sentence in page and sentence in (tmp_path / "comparison.md").read_text()
    assert 'class="warning"' not in page
    # The runs one by one: validation first, then test.
    assert page.index('<td class="n">95.00%') < page.index('<td class="n">90.00%')


def with_averages():
    """Returns runs with averages over classes; of macro F1 that of "one" was not measured on validation."""
    results = with_validation()
    for result in results:
        lower = result["top1_accuracy"] - 0.1
        result |= {"macro_f1": lower, "balanced_accuracy": lower + 0.02}
        if result["method"] != "one":
            result["validation_macro_f1"] = lower + 0.01
    return results


def test_averages_over_classes_have_means_and_intervals(tmp_path):
    rows = write_comparison(tmp_path, "Methods", with_averages(), shown=("macro_f1",))
    # A column where asked for; the other one is in the files alone, and no mean of "further" fields.
    assert [row["test macro F1 (95%)"] for row in rows] == [
        "82.00% (77.03 to 86.97)",
        "86.00% (83.52 to 88.48)",
        "70.00% (one seed, no interval)",
    ]
    assert not any("balanced" in name or "mean)" in name for name in rows[0])
    methods = json.loads((tmp_path / "comparison.json").read_text())["methods"]
    further = methods[0]["further"]
    assert set(further) == {"macro_f1", "balanced_accuracy"}
    assert further["macro_f1"]["test"]["interval"] == pytest.approx([0.770317, 0.869683], abs=1e-6)
    assert further["macro_f1"]["validation"]["mean"] == pytest.approx(0.83)
    assert further["balanced_accuracy"]["test"]["values"] == pytest.approx(
        {"0": 0.82, "1": 0.84, "2": 0.86}
    )
    assert methods[2]["further"]["macro_f1"]["validation"] is None
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "Averages over classes" in page and "83.00% (78.03 to 87.97)" in page
    assert "84.00% (79.03 to 88.97)" in page


def test_runs_without_averages_have_no_table_of_them(tmp_path):
    rows = write_comparison(tmp_path, "Methods", make_results(), shown=("macro_f1",))
    assert rows[0]["test macro F1 (95%)"] == "-"
    assert "Averages over classes" not in (tmp_path / "comparison.html").read_text()


@pytest.mark.parametrize("lacking", ["all", "full_finetune"])
def test_without_validation_the_page_warns_of_choosing_on_test(tmp_path, lacking):
    results = with_validation()
    for result in results:
        if lacking in ("all", result["method"]):
            del result["validation_top1_accuracy"]
    rows = write_comparison(tmp_path, "Methods", results)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["chosen_on_test"] is True
    assert "means choosing on the test split" in content["choice"]
    assert ("of full_finetune:" in content["choice"]) == (lacking == "full_finetune")
    assert [row.get(VALIDATION) == "-" for row in rows] == [False, lacking != "all", False]
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert '<p class="warning">Nothing was held out of train' in page


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
    assert rows[0]["test loss (95%)"] == "2 (-10.71 to 14.71)"
    assert rows[1]["test, against a (95%)"] == "+2 (+2 to +2), n=2"


@pytest.mark.parametrize("value", [math.nan, None, "nan"])
def test_a_diverged_run_does_not_hide(tmp_path, value):
    results = make_results()
    results[0]["top1_accuracy"] = value
    rows = write_comparison(tmp_path, "Methods", results)
    assert rows[0][TEST] == "not finite"
    assert rows[1][DIFFERENCE] == "not finite"
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
