"""Two methods over two seeds, as `config.compare` names them: an ablation with these variants."""

import contextlib
import io
import json
import re

import numpy as np
import pytest
from running import tiny_config, tree_of

from tl_jax import ablation, data
from tl_jax.ablation.cells import expand
from tl_jax.errors import InputError
from tl_jax.runs.setup import prepare

METHODS = {"full_finetune": (), "linear_probe": ("freeze.strategy=backbone",)}


def asked_for(**fields):
    config = tiny_config(train__steps=2, **({"data__validation_fraction": 0.1} | fields))
    config.compare.seeds = (0, 1)
    config.compare.baseline = "linear_probe"
    with config.unlocked():
        config.compare.methods = METHODS
    return config


@pytest.fixture(scope="module")
def compared(small_networks, tmp_path_factory):
    config = asked_for()
    config.compare.metrics = ("macro_f1",)
    workdir = tmp_path_factory.mktemp("compare")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        content = ablation.run(ablation.spec_of(config), workdir)
    return config, workdir, content, out.getvalue()


def result_of(workdir, row):
    return json.loads((workdir / row["run"] / "result.json").read_text())


def test_every_method_of_every_seed_is_an_ordinary_run(compared):
    _, workdir, content, _ = compared
    rows = content["runs"]
    # The baseline is the first; a ConfigDict gives its names in alphabetical order.
    assert [(row["variant"], row["seed"]) for row in rows] == [
        (method, seed) for seed in (0, 1) for method in ("linear_probe", "full_finetune")
    ]
    for row in rows:
        result = result_of(workdir, row)
        assert result["steps"] == 2
        test, validation = (result["splits"][split] for split in ("test", "validation"))
        assert (row["test"], test["examples"]) == (test["top1_accuracy"], 500)
        assert row["further"] == {"macro_f1": test["macro_f1"]} and 0 < test["macro_f1"] < 1
        assert row["validation"] == validation["top1_accuracy"]
        assert validation["examples"] == round(0.1 * 1297)
    few, many = rows[0]["trainable"], rows[1]["trainable"]
    assert few == 16 * 10 + 10 < many  # the head of the shrunk network: 4 * 2 * 2 features


def test_what_is_reported_as_test_is_measured_on_test(compared):
    """Counted again from the predictions, on the labels of the data set's own test split."""
    _, workdir, content, _ = compared
    labels = data.load_splits("digits")["test"].labels
    assert any(row["test"] != row["validation"] for row in content["runs"])
    for row in content["runs"]:
        with np.load(workdir / row["run"] / "predictions.npz") as saved:
            predicted = saved["probabilities"].argmax(-1)
        assert row["test"] == np.mean(predicted == labels)


def test_the_tables_name_the_baseline_the_best_and_more_metrics(compared):
    _, workdir, content, out = compared
    probe, tuned = content["test"]
    assert probe["difference"] is None and tuned["reference"] == "linear_probe"
    rows = [row for row in content["runs"] if row["variant"] == "full_finetune"]
    mean = np.mean([result_of(workdir, row)["splits"]["test"]["macro_f1"] for row in rows])
    assert tuned["further"]["macro_f1"]["mean"] == pytest.approx(mean)
    best = max(content["validation"], key=lambda row: row["validation"]["mean"])["variant"]
    [answer] = content["answers"]
    assert answer.startswith(f"Best on validation: {best}, ") and "; on test it has " in answer
    for shown in (out, *((workdir / f"{name}").read_text() for name in ("ablation.md",))):
        assert "macro F1" in shown and "linear_probe" in shown
        assert answer in shown.replace("\n", " ")
    page = (workdir / "report.html").read_text()
    assert answer in page and "macro F1" in page


def test_without_a_held_out_split_nothing_is_chosen(small_networks, tmp_path, capsys):
    config = asked_for(data__validation_fraction=0.0)
    config.compare.seeds = (0,)
    content = ablation.run(ablation.spec_of(config), tmp_path / "run")
    assert content["validation"] == [] == content["answers"]
    [note] = content["notes"]
    assert note.startswith("nothing was held out of train: choosing a variant by this table means")
    shown = capsys.readouterr()
    assert note in " ".join((shown.out + shown.err).split())
    assert note in (tmp_path / "run" / "ablation.md").read_text()
    assert note in (tmp_path / "run" / "report.html").read_text()
    assert "## Validation" not in (tmp_path / "run" / "ablation.md").read_text()


def shown_by(config, workdir, monkeypatch, terminal):
    stream = io.StringIO()
    if terminal:
        stream.isatty = lambda: True
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("LINES", "30")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stream):
        content = ablation.run(ablation.spec_of(config), workdir)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue())
    return {(row["variant"], row["seed"]): row for row in content["runs"]}, plain


def test_each_run_is_a_line_and_nothing_that_it_prints_by_itself(
    small_networks, tmp_path, monkeypatch
):
    rows, shown = shown_by(asked_for(), tmp_path / "run", monkeypatch, terminal=False)
    lines = [line for line in shown.splitlines() if not line.startswith("batch ")]
    for number, ((method, seed), row) in enumerate(rows.items(), 1):
        start = f"{number}/4  {method}, seed {seed}: validation top-1 {100 * row['validation']:.2f}%, 2 "
        assert re.fullmatch(rf"{re.escape(start)}steps, (\d+\.\d s|\d:\d\d min)", lines[number - 1])
    assert number == 4 == len(lines)


def test_a_terminal_shows_one_table(small_networks, tmp_path, monkeypatch):
    rows, shown = shown_by(asked_for(), tmp_path / "run", monkeypatch, terminal=True)
    last = " ".join(shown.split("resnet20_cifar on digits, 2 labelled")[-1].split())
    for method in METHODS:
        accuracies = [row["validation"] for (of, _), row in rows.items() if of == method]
        cells = " ".join(f"{100 * value:.1f}" for value in [*accuracies, np.mean(accuracies)])
        assert f"{method} {cells} " in last
    assert "4 of 4 runs done in " in last
    # What is done is in the tables at the end: nothing goes on that could be shown.
    again, shown = shown_by(asked_for(), tmp_path / "run", monkeypatch, terminal=True)
    assert shown == "" and again.keys() == rows.keys()


def test_few_shot_keeps_its_labels_beside_a_held_out_slice(compared):
    """Images are held out first: two of each class are still taken, none of them held out."""
    for cell in expand(ablation.spec_of(compared[0])):
        splits = prepare(cell.config).splits
        train_rows, held_rows = (splits[name].whole()[1] for name in ("train", "validation"))
        assert np.bincount(splits["train"].labels).tolist() == [2] * 10
        assert np.bincount(splits["validation"].labels).min() >= 12
        assert not set(train_rows) & set(held_rows)


def test_methods_of_a_seed_meet_the_same_examples(compared):
    """And another seed others: its few-shot choice, order and initialisation differ."""
    cells = {
        (cell.variant, cell.seed): prepare(cell.config)
        for cell in expand(ablation.spec_of(compared[0]))
    }

    def images(method, seed):
        return cells[method, seed].splits["train"].images.tobytes()

    assert images("linear_probe", 0) == images("full_finetune", 0)
    assert images("full_finetune", 0) != images("full_finetune", 1)
    tests = {setup.splits["test"].images.tobytes() for setup in cells.values()}
    assert len(tests) == 1


def test_finished_runs_are_not_made_again(compared):
    config, workdir, content, _ = compared
    of_runs = {path: made for path, made in tree_of(workdir).items() if "cells" in str(path)}
    assert ablation.run(ablation.spec_of(config), workdir) == content
    again = {path: made for path, made in tree_of(workdir).items() if "cells" in str(path)}
    assert again == of_runs


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.learning_rat=1", "unknown config field 'optim.learning_rat'; nearest: optim.learn"),
        ("optim.learning_rate=fast", "optim.learning_rate=fast: expected a number"),
        ("train.steps=1.5", "train.steps=1.5: expected an integer"),
        ("augment.flip=maybe", "augment.flip=maybe: expected true or false"),
        ("augment.operations=rotaton=15", "unknown operation 'rotaton'; nearest: rotation"),
    ],
)
def test_a_method_that_sets_what_is_not_there(compared, tmp_path, assignment, message):
    """Noticed before the first run is trained."""
    config = compared[0].copy_and_resolve_references()
    with config.unlocked():
        config.compare.methods.broken = (assignment,)
    with pytest.raises(InputError) as raised:
        ablation.run(ablation.spec_of(config), tmp_path / "new")
    assert message in str(raised.value) and "broken" in str(raised.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": ()}, "expected at least one of each"),
        ({"methods": {}}, "expected at least one of each"),
        ({"seeds": (0, 1, 0)}, r"^config\.compare: seeds=\(0, 1, 0\): a value is there twice$"),
        ({"seeds": (0, -1)}, r"compare\.seeds=\(0, -1\): expected integers from 0 "),
        ({"baseline": "linear_prob"}, "compare.baseline 'linear_prob'; nearest: linear_probe"),
        ({"metrics": ("macro_f2",)}, "'macro_f2'; nearest: macro_f1"),
        ({"methods": {"linear_probe": (), "a/b": ()}}, "variant 'a/b': expected letters, digits"),
    ],
    ids=str,
)
def test_a_comparison_that_cannot_be_made(compared, fields, message):
    config = compared[0].copy_and_resolve_references()
    with config.unlocked():
        for name, value in fields.items():
            config.compare[name] = value
    with pytest.raises(InputError, match=message):
        ablation.spec_of(config)


def test_a_config_without_comparison():
    with pytest.raises(InputError, match=r"compare\.methods and compare\.seeds"):
        ablation.spec_of(tiny_config("cifar10_resnet20"))


def test_a_method_may_be_a_strategy_by_name(compared):
    config = compared[0].copy_and_resolve_references()
    with config.unlocked():
        config.compare.methods.named = "linear_probe"
    cells = {cell.variant: cell.config for cell in expand(ablation.spec_of(config))}
    assert {name: cell.freeze.strategy for name, cell in cells.items()} == {
        "linear_probe": "backbone",
        "full_finetune": "none",
        "named": "backbone",
    }
