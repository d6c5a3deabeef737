"""Finished runs side by side, on run folders made by hand and numbers worked out by hand."""

import json
import shutil
import warnings

import numpy as np
import pytest
import scipy.stats
from handmade import CLASSES, LABELS, change_json, digest, make_run, write_json

import tl_jax
from tl_jax.errors import InputError

# Of the ten images the first run has 0 to 6 right, the second 0 to 3 and 8 and 9, the third all.
FIRST = [0, 0, 0, 0, 1, 1, 1, 2, 0, 0]
SECOND = [0, 0, 0, 0, 0, 0, 0, 0, 2, 2]
THIRD = LABELS


@pytest.fixture
def folders(tmp_path):
    """Returns three runs on the same images."""
    data = {"test": digest(), "validation": digest("held", "held")}
    curves = {("validation", "top1_accuracy"): [0.5, 0.75], ("train", "loss"): [2.0, 1.0]}
    validation = {"top1_accuracy": 0.75, "examples": 20}
    return [
        make_run(tmp_path / "first", FIRST, digests=data, curves=curves, validation=validation),
        make_run(
            tmp_path / "second",
            SECOND,
            digests=data,
            confidence=0.6,
            curves={("train", "loss"): [3.0, float("nan")]},
            seed=1,
            optim__learning_rate=0.05,
            report__mistakes=3,
        ),
        make_run(tmp_path / "third", THIRD, digests=data, seconds=61.0),
    ]


def test_pairs_are_tested_image_by_image(folders):
    pairs = tl_jax.compare_runs(folders)["pairs"]
    second, third = pairs
    assert (second["run"], second["to"], second["not_paired"]) == ("second", "first", "")
    # 8 and 9 are right in the second alone, 4 to 6 in the first alone.
    assert (second["only_run"], second["only_first"], second["examples"]) == (2, 3, 10)
    assert second["difference"] == pytest.approx(0.6 - 0.7)
    assert second["interval"][0] < -0.1 < second["interval"][1]
    assert second["p_mcnemar"] == pytest.approx(scipy.stats.binomtest(2, 5, 0.5).pvalue)
    # 7 to 9 are right in the third alone: 2 / 2**3.
    assert (third["only_run"], third["only_first"]) == (3, 0)
    assert third["p_mcnemar"] == 0.25 and third["difference"] == pytest.approx(0.3)
    # The smaller of the two p-values counts twice.
    assert third["p_holm"] == 0.5 and second["p_holm"] == 1.0


def test_one_comparison_is_not_corrected(folders):
    (pair,) = tl_jax.compare_runs(folders[:2])["pairs"]
    assert "p_holm" not in pair


def test_agreement_counts_equal_predictions_right_or_wrong(folders):
    table = tl_jax.compare_runs(folders)["agreement"]
    # The first four alone.
    assert table["first"]["second"]["share"] == table["second"]["first"]["share"] == 0.4
    assert table["first"]["third"]["share"] == 0.7
    assert table["third"]["third"] == {"share": 1.0, "kappa": 1.0}
    # By chance: 6 and 8 of ten are cats, 1 and 2 frogs, no dog in the second.
    chance = 0.6 * 0.8 + 0.1 * 0.2
    assert table["first"]["second"]["kappa"] == pytest.approx((0.4 - chance) / (1 - chance))


def test_classes_gain_and_lose_images(folders):
    cat, dog, frog = tl_jax.compare_runs(folders)["classes"]
    assert [entry["class"] for entry in (cat, dog, frog)] == list(CLASSES)
    assert [entry["examples"] for entry in (cat, dog, frog)] == [4, 4, 2]
    assert dog["recall"] == {"first": 0.75, "second": 0.0, "third": 1.0}
    assert dog["gained"] == {"second": 0, "third": 1} and dog["lost"] == {"second": 3, "third": 0}
    assert frog["recall"]["first"] == 0.0 and frog["gained"] == {"second": 2, "third": 2}
    assert cat["gained"] == cat["lost"] == {"second": 0, "third": 0}


def test_calibration_of_one_confidence(folders):
    found = tl_jax.compare_runs(folders)["calibration"]
    # 70% are right with confidence 0.8: one bin.
    assert found["first"]["ece"] == pytest.approx(0.1, abs=1e-6)
    assert found["first"]["confidence"] == pytest.approx(0.8)
    # Right: 0.2² + 2 * 0.1²; wrong: 0.8² + 0.9² + 0.1².
    brier = 0.7 * 0.06 + 0.3 * (0.64 + 0.81 + 0.01)
    assert found["first"]["brier"] == pytest.approx(brier, abs=1e-6)
    assert found["first"]["loss"] == 0.5  # of result.json
    assert found["second"]["ece"] == pytest.approx(0.0, abs=1e-6)


def test_only_fields_that_differ_are_listed(folders):
    content = tl_jax.compare_runs(folders)
    entries = {entry["field"]: entry for entry in content["config"]["differing"]}
    assert set(entries) == {"optim.learning_rate", "seed", "report.mistakes"}
    assert entries["optim.learning_rate"]["values"]["second"] == 0.05
    assert entries["seed"]["values"] == {"first": 0, "second": 1, "third": 0}
    # What cannot change a number comes last.
    assert content["config"]["differing"][-1]["field"] == "report.mistakes"
    assert [entry["changes_numbers"] for entry in content["config"]["differing"]] == [1, 1, 0]
    made_with = {entry["what"]: entry["values"] for entry in content["made_with"]}
    assert made_with["git revision"]["first"] == "0123456789ab (dirty)"
    assert made_with["device"]["third"] == "1 x cpu (cpu)"
    assert made_with["wall time"] == {"first": "5.0 s", "second": "5.0 s", "third": "1:01 min"}
    assert made_with["seed"]["second"] == "1"
    assert "jax" not in made_with  # the same everywhere


def test_a_run_of_an_older_version_lacks_fields(folders):
    """One that the others have at its default is named; one that they set is a row."""
    config = folders[1] / "config.json"
    change_json(config, optim__nesterov=None)
    change_json(config, seed=None)
    change_json(folders[0] / "config.json", seed=7)
    content = tl_jax.compare_runs(folders)["config"]
    assert content["absent"] == {"second": ["optim.nesterov"]}
    (seed,) = [entry for entry in content["differing"] if entry["field"] == "seed"]
    assert seed["values"] == {"first": 7, "third": 0} and seed["defaults"] == {"second": 0}


def test_an_evaluation_says_nothing_of_how_its_weights_were_made(folders, tmp_path):
    other = make_run(tmp_path / "other", FIRST, optim__momentum=0.5, init__head="keep", seed=3)
    change_json(other / "config.json", evaluate={"checkpoint": "first", "which": "best"})
    entries = tl_jax.compare_runs([folders[0], other])["config"]["differing"]
    fields = {entry["field"]: entry for entry in entries}
    assert fields.keys() == {"seed", "evaluate.checkpoint", "evaluate.which"}
    assert fields["evaluate.which"]["values"] == {"other": "best"}
    assert fields["evaluate.which"]["defaults"] == {}


def test_sections_of_other_commands_make_no_run_older(folders, tmp_path):
    other = make_run(tmp_path / "other", FIRST)
    change_json(other / "config.json", sweep={"learning_rate": [0.1, 0.2], "patience": 0})
    config = tl_jax.compare_runs([folders[0], other])["config"]
    (entry,) = config["differing"]
    assert entry["field"] == "sweep.learning_rate" and entry["values"] == {"other": [0.1, 0.2]}
    assert entry["defaults"] == {}
    assert config["absent"] == {}
    # Of its own section a sweep can lack a field that came later.
    older = make_run(tmp_path / "older", FIRST)
    change_json(older / "config.json", sweep={"learning_rate": [0.1, 0.2]})
    config = tl_jax.compare_runs([folders[0], other, older])["config"]
    assert config["absent"] == {"older": ["sweep.patience"]}


def test_other_versions_of_packages_are_listed(folders):
    change_json(folders[2] / "result.json", versions__jax="0.11.0")
    made_with = tl_jax.compare_runs(folders)["made_with"]
    (jax,) = [entry["values"] for entry in made_with if entry["what"] == "jax"]
    assert jax == {"first": "0.12.0", "second": "0.12.0", "third": "0.11.0"}


def test_metrics_and_curves_of_every_run(folders):
    content = tl_jax.compare_runs(folders)
    assert content["metrics"]["first"]["validation"] == {"top1_accuracy": 0.75, "examples": 20}
    assert "validation" not in content["metrics"]["second"]
    assert content["metrics"]["third"]["test"]["top1_accuracy"] == 1.0
    validation, train = content["curves"]
    assert validation["runs"] == {"first": {"steps": [10, 20], "values": [0.5, 0.75]}}
    assert train["split"] == "train" and train["runs"]["second"]["values"] == [3.0, "nan"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class_names": ("cat", "dig", "frog")}, "its class 1 is 'dig', not 'dog'"),
        ({"class_names": ("cat", "dog", "frog", "owl")}, "it has 4 classes, not 3"),
        ({"labels": LABELS[:9], "predicted": SECOND[:9]}, "it has 9 test images, not 10"),
        ({"labels": LABELS[::-1]}, "8 of 10 test images have another label there"),
        ({"digests": {"test": digest("others")}}, "the pixels of its test images are others"),
        ({"digests": {"test": digest("", "others")}}, "its test images are other files"),
        ({"digests": {"test": digest("", side=64)}, "data__test_split": "all"}, ""),
        ({"digests": {"test": digest("x", side=64)}}, ""),
        ({"digests": None}, ""),
        ({"digests": None, "data__test_split": "val"}, "its data.test_split is val, not test"),
        ({"digests": None, "data__folds": 5}, "its data.folds is 5, not 0"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, str) else "",
)
def test_other_images_are_not_paired(folders, tmp_path, changes, reason):
    """The first two are compared as ever; what the third says is in a note."""
    made = {"predicted": SECOND, "digests": {"test": digest()}} | changes
    other = make_run(tmp_path / "other", made.pop("predicted"), **made)
    content = tl_jax.compare_runs([*folders[:2], other])
    second, pair = content["pairs"]
    assert second["not_paired"] == "" and ("p_holm" in second) == (not reason)
    assert reason in pair["not_paired"] and bool(pair["not_paired"]) == bool(reason)
    assert (content["agreement"]["other"]["first"] is None) == bool(reason)
    assert ("other" in content["classes"][0]["recall"]) == (not reason)
    noted = [note for note in content["notes"] if "other is not compared with first" in note]
    assert len(noted) == bool(reason)
    assert "other" in content["calibration"] and "other" in content["metrics"]


@pytest.mark.parametrize("recorded", [None, {"test": digest("")}], ids=["nothing", "no pixels"])
def test_runs_that_share_labels_by_accident_are_not_paired(folders, tmp_path, recorded):
    other = make_run(tmp_path / "other", FIRST, digests=recorded)
    change_json(other / "config.json", data__name="tfds:digits")
    (pair,) = tl_jax.compare_runs([folders[0], other])["pairs"]
    assert pair["not_paired"] == "its data.name is tfds:digits, not digits"


def test_the_same_pixels_under_another_name_are_paired(folders, tmp_path):
    other = make_run(tmp_path / "other", FIRST, digests={"test": digest()})
    change_json(other / "config.json", data__name="folder:/elsewhere/digits")
    (pair,) = tl_jax.compare_runs([folders[0], other])["pairs"]
    assert pair["not_paired"] == "" and pair["p_mcnemar"] == 1.0


def test_another_order_is_not_paired(folders):
    with np.load(folders[1] / "predictions.npz") as stored:
        arrays = dict(stored)
    arrays["indices"] = arrays["indices"][::-1]
    np.savez(folders[1] / "predictions.npz", **arrays)
    pair = tl_jax.compare_runs(folders)["pairs"][0]
    assert pair["not_paired"] == "its test images are in another order"


def test_other_validation_images_are_noted(folders):
    change_json(folders[1] / "data.json", validation=digest("x", "others"))
    notes = tl_jax.compare_runs(folders)["notes"]
    assert notes == [
        "second was validated on other images than first: their validation results differ by the images, too."
    ]


def test_an_evaluation_reads_the_test_split_whatever_its_run_read(folders, tmp_path):
    other = make_run(tmp_path / "other", FIRST, digests=None, data__folds=3)
    change_json(other / "result.json", data={"name": "digits", "split": "test"})
    (pair,) = tl_jax.compare_runs([folders[0], other])["pairs"]
    assert pair["not_paired"] == ""


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive"])
def test_predictions_that_are_missing_or_damaged(folders, content):
    path = folders[1] / "predictions.npz"
    path.unlink() if content is None else path.write_bytes(content)
    found = tl_jax.compare_runs(folders)
    second, third = found["pairs"]
    assert second["not_paired"] == "second has no predictions" and third["p_mcnemar"] == 0.25
    assert found["notes"][0].startswith("second: predictions.npz ")
    assert "second" in found["metrics"] and "second" not in found["calibration"]
    # Of the first run nothing is left to compare with.
    path = folders[0] / "predictions.npz"
    path.unlink()
    found = tl_jax.compare_runs(folders)
    assert found["classes"] == [] and all(pair["not_paired"] for pair in found["pairs"])


def test_predictions_whose_bytes_are_damaged(folders):
    """NumPy and zipfile raise many kinds of errors; none of them gets out."""
    path, draws = folders[1] / "predictions.npz", np.random.default_rng(0)
    whole = path.read_bytes()
    damaged = [whole.replace(b"{'descr'", b"{'descr(")]
    for _ in range(60):
        content = bytearray(whole)
        for place in draws.integers(0, len(whole), 3):
            content[place] = draws.integers(0, 256)
        damaged += [bytes(content), whole[: draws.integers(0, len(whole))]]
    left_out = 0
    for content in damaged:
        path.write_bytes(content)
        with warnings.catch_warnings(action="ignore"):
            left_out += tl_jax.compare_runs(folders[:2])["pairs"][0]["not_paired"] != ""
    assert left_out > 100


def test_predictions_of_another_run_are_left_out(folders):
    shutil.copy(folders[2] / "predictions.npz", folders[1] / "predictions.npz")
    found = tl_jax.compare_runs(folders)
    assert found["pairs"][0]["not_paired"] == "second has no predictions"
    assert found["notes"][0].startswith("second: of its predictions.npz 10 of 10 are right, which ")


def test_a_sealed_run_is_compared_on_validation_alone(folders, tmp_path):
    sealed = make_run(tmp_path / "sealed", THIRD, validation={"top1_accuracy": 0.5, "examples": 20})
    (sealed / "result.json").rename(sealed / "sealed.json")
    found = tl_jax.compare_runs([folders[0], sealed], out=tmp_path / "out")
    assert found["metrics"]["sealed"].keys() == {"validation"}
    assert found["pairs"][0]["not_paired"] == "the test split of sealed is sealed"
    assert "sealed" not in found["calibration"]
    assert any(note.startswith("sealed: its test split is sealed") for note in found["notes"])
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "sealed, not read" in page and "100.00%" not in page


def test_metrics_that_are_damaged_cost_the_curves_alone(folders):
    (folders[0] / "metrics.jsonl").write_text("no line\n")
    found = tl_jax.compare_runs(folders)
    assert "first: " in found["notes"][0] and "it has no curves" in found["notes"][0]
    assert found["curves"][0]["runs"].keys() == {"second"}


def test_names_are_as_long_as_needed(tmp_path):
    folders = [make_run(tmp_path / method / "seed0", FIRST) for method in ("probe", "tuned")]
    content = tl_jax.compare_runs(folders)
    assert [run["name"] for run in content["runs"]] == ["probe/seed0", "tuned/seed0"]


def test_what_is_returned_is_what_is_written(folders, tmp_path, capsys):
    content = tl_jax.compare_runs(folders, out=tmp_path / "out" / "deep")
    assert json.loads((tmp_path / "out" / "deep" / "comparison.json").read_text()) == content
    assert capsys.readouterr() == ("", "")
    # Again over what it wrote itself.
    again = tl_jax.compare_runs(folders[:2], out=tmp_path / "out" / "deep")
    assert json.loads((tmp_path / "out" / "deep" / "comparison.json").read_text()) == again


WRONG = {
    "one run alone": (["first"], "first alone is given; expected the folders of two runs or more"),
    "no run": ([], "no run is given; expected the folders of two runs or more"),
    "a typo": (["first", "secnd"], "/secnd'; nearest: {}/second, {}/started; known: damaged, "),
    "nowhere": (["first", "a/b/c"], "unknown run folder '{}/a/b/c'; known: none"),
    "twice": (["first", "second", "first"], "first is given twice; expected every run once"),
    "twice, by another path": (["first", "second/../first"], "is given twice (as {}/first before)"),
    "a file": (["first", "second/result.json"], "is a file; expected the folder of a finished run"),
    "nothing there": (["first", "empty"], "empty: no config.json and no result.json there; expected"),
    "unfinished": (["first", "started"], "is not finished: no result.json there, it has reached step 20; expected"),
    "runs inside": (["first", "."], "is no run, it holds runs; expected the folder of a finished run, such as {}/"),
    "features": (["first", "features"], "has no accuracies of splits; expected the folder of a finished run: a "),
    "no config": (["first", "copied"], "copied: no config.json there; expected"),
    "no test": (["first", "untested"], "has no accuracy on test; expected"),
    "no JSON": (["first", "damaged"], "result.json is no JSON"),
    "no object": (["first", "list"], "result.json holds no JSON object; expected"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_run(folders, tmp_path, given, message):
    (tmp_path / "empty").mkdir()
    for name in ("started", "features", "copied", "untested", "damaged", "list"):
        shutil.copytree(folders[0], tmp_path / name)
    (tmp_path / "started" / "result.json").unlink()
    (tmp_path / "copied" / "config.json").unlink()
    change_json(tmp_path / "features" / "result.json", splits={"train": {"examples": 3}})
    change_json(tmp_path / "untested" / "result.json", splits__test=None)
    (tmp_path / "damaged" / "result.json").write_text("{")
    write_json(tmp_path / "list" / "result.json", [])
    with pytest.raises(InputError) as raised:
        tl_jax.compare_runs([tmp_path / name for name in given], out=tmp_path / "out")
    assert message.format(tmp_path, tmp_path) in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_single_path_is_no_list(folders):
    with pytest.raises(
        InputError, match="first alone is given; expected a list of two run folders"
    ):
        tl_jax.compare_runs(str(folders[0]))


OUT = {
    "a run": ("first", "is in the run folder {}/first; expected a folder that is new, empty"),
    "inside of a run": ("second/plots/new", "is in the run folder {}/second; expected"),
    "files of somebody": ("thesis", "thesis holds draft.tex; expected"),
    "a comparison of methods": ("methods", "methods holds comparison.json; expected"),
    "a file": ("first/result.json", "is a file; expected"),
}


@pytest.mark.parametrize(("out", "message"), OUT.values(), ids=OUT)
def test_files_of_others_are_not_replaced(folders, tmp_path, out, message):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.tex").touch()
    write_json(tmp_path / "methods" / "comparison.json", {"title": "methods"})
    for folder in folders:
        (folder / "class_names.json").write_text("[]")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as raised:
        tl_jax.compare_runs(folders, out=tmp_path / out)
    assert message.format(tmp_path) in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before
