"""Two methods over two seeds: ordinary runs, a table, and nothing trained twice."""

import contextlib
import io
import json
import re

import numpy as np
import pytest
from running import tiny_config, tree_of

from tl_jax import console, data, reporting
from tl_jax.errors import InputError
from tl_jax.runs import compare
from tl_jax.runs.setup import prepare

METHODS = {"linear_probe": ("freeze.strategy=backbone",), "full_finetune": ()}


@pytest.fixture(scope="module")
def compared(small_networks, tmp_path_factory):
    config = tiny_config(train__steps=2, data__validation_fraction=0.1)
    config.compare.seeds = (0, 1)
    config.compare.baseline = "linear_probe"
    with config.unlocked():
        config.compare.methods = METHODS
    workdir = tmp_path_factory.mktemp("compare")
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        rows = compare.run_cells(config, workdir)
    # A line for each run, and nothing that a run prints by itself.
    for number, line in enumerate(err.getvalue().splitlines()):
        row = rows[number]
        percent = f"{100 * row['validation_top1_accuracy']:.2f}"
        start = (
            f"{number + 1}/4  {row['method']}, seed {row['seed']}: validation top-1 {percent}%, 2 "
        )
        assert re.fullmatch(rf"{re.escape(start)}steps, (\d+\.\d s|\d:\d\d min)", line)
    assert number == 3
    return config, workdir, rows


def test_every_cell_is_an_ordinary_run(compared):
    _, workdir, rows = compared
    assert [(row["method"], row["seed"], row["run"]) for row in rows] == [
        (method, seed, f"{method}/seed{seed}") for seed in (0, 1) for method in METHODS
    ]
    for row in rows:
        result = json.loads((workdir / row["run"] / "result.json").read_text())
        assert result["steps"] == 2
        test, validation = (result["splits"][split] for split in ("test", "validation"))
        assert (row["top1_accuracy"], row["test_examples"]) == (test["top1_accuracy"], 500)
        assert row["validation_top1_accuracy"] == validation["top1_accuracy"]
        assert row["validation_examples"] == validation["examples"] == round(0.1 * 1297)
    few, many = rows[0]["trainable_parameters"], rows[1]["trainable_parameters"]
    assert few == 16 * 10 + 10 < many  # the head of the shrunk network: 4 * 2 * 2 features


def test_what_is_reported_as_test_is_measured_on_test(compared):
    """Counted again from the predictions, on the labels of the data set's own test split."""
    _, workdir, rows = compared
    labels = data.load_splits("digits")["test"].labels
    assert any(row["top1_accuracy"] != row["validation_top1_accuracy"] for row in rows)
    for row in rows:
        with np.load(workdir / row["run"] / "predictions.npz") as saved:
            predicted = saved["probabilities"].argmax(-1)
        assert row["top1_accuracy"] == np.mean(predicted == labels)


def test_few_shot_keeps_its_labels_beside_a_held_out_slice(compared):
    """Images are held out first: two of each class are still taken, none of them held out."""
    config, _, _ = compared
    for seed in (0, 1):
        splits = prepare(compare.cell_config(config, "full_finetune", seed)).splits
        train_rows, held_rows = (splits[name].whole()[1] for name in ("train", "validation"))
        assert np.bincount(splits["train"].labels).tolist() == [2] * 10
        assert np.bincount(splits["validation"].labels).min() >= 12
        assert not set(train_rows) & set(held_rows)


def test_methods_of_a_seed_meet_the_same_examples(compared):
    """And another seed others: its few-shot choice, order and initialisation differ."""
    config, _, _ = compared
    setups = {
        (method, seed): prepare(compare.cell_config(config, method, seed))
        for method in METHODS
        for seed in (0, 1)
    }

    def images(method, seed):
        return setups[method, seed].splits["train"].images.tobytes()

    assert images("linear_probe", 0) == images("full_finetune", 0)
    assert images("full_finetune", 0) != images("full_finetune", 1)
    tests = {setup.splits["test"].images.tobytes() for setup in setups.values()}
    assert len(tests) == 1


def test_the_comparison_is_written_and_read(compared):
    config, workdir, rows = compared
    reporting.write_comparison(workdir, compare.title(config), rows)
    table = (workdir / "comparison.md").read_text()
    assert all(method in table for method in METHODS)
    assert "Choose by validation, report test" in (workdir / "comparison.html").read_text()
    assert compare.title(config) == ("resnet20_cifar on digits, 2 labelled images per class")


def test_finished_cells_are_not_run_again(compared, capsys):
    config, workdir, rows = compared
    before = tree_of(workdir)
    assert compare.run_cells(config, workdir) == rows
    assert tree_of(workdir) == before
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("2 steps, finished before\n") == len(rows)


def test_each_run_speaks_for_itself_on_request(compared, capsys):
    config, workdir, rows = compared
    with console.verbosity("verbose"):
        compare.run_cells(config, workdir)
    shown = capsys.readouterr()
    assert shown.out.count("is finished") == len(rows) and shown.err == ""
    assert "linear_probe, seed 1" in shown.out


def test_a_terminal_shows_one_table(compared, monkeypatch):
    config, workdir, rows = compared
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(stream):
        compare.run_cells(config, workdir)
    last = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue().split("resnet20_cifar on")[-1])
    for method in METHODS:
        accuracies = [row["validation_top1_accuracy"] for row in rows if row["method"] == method]
        cells = " +".join(f"{100 * value:.1f}" for value in [*accuracies, np.mean(accuracies)])
        assert re.search(f"{method} +{cells} ", last)
    assert "4 of 4 runs done" in last and out.getvalue() == ""


def test_an_unknown_method(compared):
    config, _, _ = compared
    with pytest.raises(InputError, match="unknown method 'full_finetun'; nearest: full_finetune"):
        compare.cell_config(config, "full_finetun", 0)


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
    """Noticed before the first cell is trained."""
    config = compared[0].copy_and_resolve_references()
    with config.unlocked():
        config.compare.methods.broken = (assignment,)
    with pytest.raises(InputError) as raised:
        compare.run_cells(config, tmp_path / "new")
    assert message in str(raised.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("emptied", ["seeds", "methods"])
def test_a_comparison_of_nothing(compared, tmp_path, emptied):
    config = compared[0].copy_and_resolve_references()
    with config.unlocked():
        config.compare[emptied] = type(config.compare[emptied])()
    with pytest.raises(InputError, match="expected at least one of each"):
        compare.run_cells(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ((0, 1, 0), r"^compare\.seeds=\(0, 1, 0\): a seed is there twice$"),
        ((0, -1), r"^compare\.seeds=\(0, -1\): expected integers from 0 "),
    ],
)
def test_seeds_are_checked_before_the_first_cell_trains(compared, tmp_path, seeds, message):
    config = compared[0].copy_and_resolve_references()
    config.compare.seeds = seeds
    with pytest.raises(InputError, match=message):
        compare.run_cells(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_config_without_comparison(tmp_path):
    with pytest.raises(InputError, match=r"compare\.methods and compare\.seeds"):
        compare.run_cells(tiny_config("cifar10_resnet20"), tmp_path / "new")


def test_an_unknown_baseline(compared, tmp_path):
    config = compared[0].copy_and_resolve_references()
    config.compare.baseline = "linear_prob"
    with pytest.raises(InputError, match="'linear_prob'; nearest: linear_probe"):
        compare.run_cells(config, tmp_path / "new")
    with config.unlocked():
        del config.compare.baseline
    with pytest.raises(InputError, match=r"lacks compare\.baseline"):
        compare.run_cells(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()
