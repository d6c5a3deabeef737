"""Finished runs side by side, from the command line: two real runs, an evaluation and a probe of them."""

import json

import numpy as np
import pytest
import scipy.stats
from running import arguments, tree_of

QUICKSTART = "--config=configs/quickstart.py"
FIELDS = {
    "init__weights": "resnet20_cifar.tin32",
    "train__steps": 16,
    "train__log_every_steps": 4,
    "train__eval_every_steps": 8,
    "optim__warmup_steps": 0,
    "data__validation_fraction": 0.1,
    "report__tensorboard": False,
    "data__cache_dir": "",
    "cache__dir": "",
}


@pytest.fixture(scope="module")
def runs(launcher, tmp_path_factory):
    """Returns two training runs on digits, and an evaluation of the first."""
    folder = tmp_path_factory.mktemp("runs")
    tuned, probe, again = (folder / name for name in ("tuned", "linear_probe", "again"))
    for path, fields in ((tuned, {}), (probe, {"freeze__strategy": "backbone", "seed": 1})):
        code, out, err = launcher.run(
            "finetune", QUICKSTART, *arguments(**FIELDS, **fields), f"--workdir={path}"
        )
        assert code == 0, (out, err)
    code, out, err = launcher.run("evaluate", f"--checkpoint={tuned}", f"--workdir={again}")
    assert code == 0, (out, err)
    return tuned, probe, again


def test_two_runs_and_an_evaluation(launcher, runs, tmp_path):
    before = [tree_of(run) for run in runs]
    code, out, err = launcher.run("compare", *map(str, runs), f"--out={tmp_path / 'out'}")
    assert code == 0, (out, err)
    assert [tree_of(run) for run in runs] == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "comparison.html",
        "comparison.json",
        "comparison.md",
        "plots",
    ]
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    right = []
    for run in runs:
        with np.load(run / "predictions.npz") as stored:
            right.append(stored["probabilities"].argmax(-1) == stored["labels"])
    probe, again = content["pairs"]
    alone = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
    assert (probe["only_run"], probe["only_first"]) == alone
    expected = scipy.stats.binomtest(alone[0], sum(alone), 0.5).pvalue
    assert probe["p_mcnemar"] == pytest.approx(expected, abs=1e-12)
    # The evaluation has no data.json: the same split by its name, and the same predictions.
    assert again["difference"] == 0 and again["p_mcnemar"] == 1.0 and again["not_paired"] == ""
    assert content["agreement"]["tuned"]["again"] == {"share": 1.0, "kappa": 1.0}
    fields = {entry["field"]: entry["values"] for entry in content["config"]["differing"]}
    assert fields["freeze.strategy"]["linear_probe"] == "backbone" and "seed" in fields
    # An evaluation records neither how its weights were made nor that it is no sweep.
    assert fields["evaluate.step"] == {"again": 16}
    assert not any(name.startswith(("init.", "optim.", "sweep.")) for name in fields)
    assert content["config"]["absent"] == {}
    assert [(curve["split"], curve["metric"]) for curve in content["curves"]] == [
        ("validation", "top1_accuracy"),
        ("validation", "loss"),
        ("train", "loss"),
    ]
    assert content["curves"][0]["runs"].keys() == {"tuned", "linear_probe"}
    page = (tmp_path / "out" / "comparison.html").read_text()
    link = next(part for part in page.split('"') if part.endswith("linear_probe/report.html"))
    assert (tmp_path / "out" / link).resolve() == runs[1] / "report.html"
    # The names of runs stay as they are, and all tables are printed.
    for text in (
        "tuned   linear_probe",
        "Image by image, against tuned",
        "McNemar's p",
        "freeze.strategy",
    ):
        assert text in out
    assert f"{tmp_path / 'out' / 'comparison.html'}: " in out and err == ""


def test_without_out_nothing_is_written(launcher, runs):
    folder = runs[0].parent
    before = tree_of(folder)
    code, out, err = launcher.run("compare", str(runs[0]), str(runs[1]))
    assert (code, err) == (0, "") and "--out=DIR writes this as a page" in out
    assert tree_of(folder) == before
