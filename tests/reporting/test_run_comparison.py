"""What is shown of runs side by side: tables, a page that stands alone, pictures with their numbers in words."""

import pathlib
import re
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "runs"))

from handmade import LABELS, change_json, make_run

import tl_jax
from tl_jax.reporting import run_comparison

FIRST = [0, 0, 0, 0, 1, 1, 1, 2, 0, 0]


@pytest.fixture
def compared(tmp_path):
    """Returns the folder and the content of a comparison of three runs, one of them on other images."""
    curves = {("train", "loss"): [2.0, 1.0], ("validation", "top1_accuracy"): [0.5, 0.25]}
    validation = {"top1_accuracy": 0.25, "examples": 8}
    runs = [
        make_run(tmp_path / "run_<a>", FIRST, curves=curves, validation=validation),
        make_run(tmp_path / "b|c", LABELS, train__steps=7, report__mistakes=3),
        make_run(tmp_path / "other", FIRST[:9], labels=LABELS[:9]),
    ]
    (runs[0] / "report.html").touch()
    change_json(runs[1] / "config.json", optim__nesterov=None)
    return tmp_path / "out", tl_jax.compare_runs(runs, tmp_path / "out")


def rows(content, name, brief=False):
    (section,) = [each for each in run_comparison.sections(content, brief) if each.id == name]
    return section.rows, section.text


def test_the_tables(compared):
    _, content = compared
    metrics, _ = rows(content, "metrics")
    assert metrics[0]["validation top-1 (95%)"].startswith("25.00% (")
    assert metrics[1]["validation top-1 (95%)"] == "-"
    assert metrics[1]["test top-1 (95%)"] == "100.00% (72.2 to 100.0), 10 images"
    assert metrics[0]["test loss"] == "0.5000"
    (pair, other), text = rows(content, "pairs")
    assert pair["top-1 minus that of run_<a> (95%)"].startswith("+30.00 points (")
    assert (pair["right in this run alone"], pair["right in run_<a> alone"]) == (3, 0)
    assert pair["McNemar's p"] == "0.2500" and "p, Holm" not in pair and "Holm" not in text
    assert other == {"run": "other", "top-1 minus that of run_<a> (95%)": "not compared"}
    assert "not about that of the seed" in text
    config, text = rows(content, "config")
    assert [row["config field"] for row in config] == ["train.steps", "report.mistakes *"]
    assert config[0]["b|c"] == "7" and "*: cannot change a number" in text
    assert "b|c is of an older version and does not have these fields" in text
    classes, _ = rows(content, "classes")
    # The class that changed most first; its two frogs became right.
    assert classes[0] == {
        "test class": "frog",
        "test images": 2,
        "recall of run_<a>": "0.0%",
        "recall of b|c": "100.0% (+100.0; 2 gained, 0 lost)",
    }
    agreement, _ = rows(content, "agreement")
    assert agreement[0]["run_<a>"] == "" and agreement[0]["other"] == "-"
    assert agreement[0]["b|c"].startswith("70.00% (0.")
    calibration, _ = rows(content, "calibration")
    assert [row["run"] for row in calibration] == ["run_<a>", "b|c", "other"]


def test_a_field_that_an_older_run_lacks(compared):
    _, content = compared
    (entry,) = [e for e in content["config"]["differing"] if e["field"] == "train.steps"]
    entry["defaults"] = {"other": entry["values"].pop("other")}
    del entry["values"]["run_<a>"]
    row = rows(content, "config")[0][0]
    assert (row["run_<a>"], row["other"]) == (
        "-",
        f"absent (default: {entry['defaults']['other']})",
    )


def test_only_the_classes_that_changed_most_are_printed(compared):
    _, content = compared
    content["classes"] *= 5
    assert len(rows(content, "classes")[0]) == 15
    brief, text = rows(content, "classes", brief=True)
    assert len(brief) == 10 and "The 10 of 15 classes that changed most are shown." in text
    assert "other is not compared" in rows(content, "notes", brief=True)[1]


def test_the_page_stands_alone_and_links_the_reports(compared):
    out, _ = compared
    page = (out / "comparison.html").read_text()
    assert re.findall(r'href="([^"#]+)"', page) == ["data:,", "../run_%3Ca%3E/report.html"]
    assert "run_&lt;a&gt;" in page and "<a>" not in page and "(no report)" in page
    assert all(source.startswith("data:image/png") for source in re.findall(r'src="([^"]+)"', page))
    alts = re.findall(r'alt="([^"]+)"', page)
    assert len(alts) == page.count("<img") == 4
    assert "b|c +30.00 points (" in alts[0]
    assert "expected calibration error: run_&lt;a&gt; 0.1000" in alts[1]
    assert "Curves of train loss over the updates: run_&lt;a&gt; ends at 1 (step 20)" in alts[3]
    assert (
        "other is not compared with run_&lt;a&gt; image by image: it has 9 test images, not 10."
        in page
    )


def test_markdown_has_the_tables_and_the_pictures(compared):
    out, _ = compared
    text = (out / "comparison.md").read_text()
    assert (
        r"| run | " in text and r"b\|c" in text and "[run_<a>](../run_%3Ca%3E/report.html)" in text
    )
    for name in re.findall(r"\]\((plots/[^)]+)\)", text):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert text.count("](plots/") == 4


def test_without_a_pair_the_reason_stands_in_its_place(tmp_path):
    runs = [
        make_run(tmp_path / "a", FIRST),
        make_run(tmp_path / "b", FIRST, data__test_split="other"),
    ]
    content = tl_jax.compare_runs(runs, tmp_path / "out")
    shown, text = rows(content, "pairs")
    assert shown == [] and text.endswith("b: its data.test_split is other, not test.")
    assert not [s for s in run_comparison.sections(content) if s.id in ("agreement", "classes")]


def test_p_values_are_never_zero():
    assert run_comparison._p_value(1e-9) == "<0.0001" and run_comparison._p_value(0.25) == "0.2500"
