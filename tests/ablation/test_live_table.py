"""What is seen of cells while this process and others train them."""

import json

import pytest

from tl_jax.ablation import cells, states
from tl_jax.ablation.live_table import LiveTable
from tl_jax.ablation.outlook import TRAINED
from tl_jax.ablation.record import Record
from tl_jax.config import identity_of, of_command
from tl_jax.runs.run_folder import RunFolder


def begin(cell, record):
    """Makes the run folder of a cell, as a launcher that trains it."""
    config = cell.config
    with RunFolder.open(record.cell(cell), of_command(config), identity=identity_of(config)):
        pass


def log(cell, record, step, split="train", **metrics):
    """Logs a step of a cell."""
    with (record.cell(cell) / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "split": split, **metrics}) + "\n")


def end(cell, record, accuracy):
    """Ends the training of a cell."""
    splits = {"validation": {"top1_accuracy": accuracy, "examples": 10}}
    result = {"splits": splits, "wall_seconds": 1.0, "steps": 6}
    (record.cell(cell) / "sealed.json").write_text(json.dumps(result))


def test_what_other_launchers_do_is_shown_once(spec, tmp_path, capsys, monkeypatch):
    made, record = spec(), Record(tmp_path)
    first, second, third, fourth = cells.expand(made)
    monkeypatch.setattr("tl_jax.reporting.run_table._PLAIN_SECONDS", 0.0)
    for cell in (first, second, third):
        begin(cell, record)
    end(first, record, 0.25)
    log(third, record, 1, loss=2.0)  # by a launcher that was stopped
    with LiveTable("title", cells.expand(made)) as shown:
        assert shown.there(record) == 1
        log(second, record, 2, loss=1.0)
        log(second, record, 2, "validation", top1_accuracy=0.25)
        assert shown.look(record) == 1
        log(second, record, 3, loss=1.0)
        log(second, record, 3, "validation", top1_accuracy=0.5)
        # Each line once.
        assert shown.look(record) == shown.look(record) == 1
        end(second, record, 0.75)
        record.took(TRAINED, [second], 12.0)
        states.failure(record.cell(third)).write_text(
            '{"status": "diverged", "error": "loss is NaN"}'
        )
        assert shown.look(record) == shown.look(record) == 3
        with shown.run(fourth) as run:
            run.logged(6, "validation", {"top1_accuracy": 1.0})
        assert shown.look(record) == 4
    told = capsys.readouterr()
    names = [f"{cell.variant}, seed {cell.seed}" for cell in (first, second, third, fourth)]
    assert told.err.splitlines() == [
        f"2/4  {names[1]}: step 2/6",
        f"2/4  {names[1]}: step 2/6, validation top-1 25.00%",
        f"2/4  {names[1]}: step 3/6, validation top-1 25.00%",
        f"2/4  {names[1]}: step 3/6, validation top-1 50.00%",
        f"2/4  {names[1]}: validation top-1 75.00%, 6 steps, 12.0 s elsewhere",
        f"4/4  {names[3]}: step 6/6, validation top-1 100.00%",
        f"4/4  {names[3]}: validation top-1 100.00%, 6 steps, 0.0 s",
    ]
    path = states.failure(record.cell(third))
    assert told.out.splitlines() == [
        f"{third}: diverged: loss is NaN; delete {path} to have it run again"
    ]


@pytest.mark.parametrize("shots", [(), (1, 2)])
def test_rows_name_labels_where_there_are_several(spec, tmp_path, shots):
    made = spec(shots=shots, tune={"optim.momentum": (0.0, 0.9)})
    shown = LiveTable("title", cells.expand(made))._shown.values()
    rows = list(dict.fromkeys(cell.row for cell in shown))
    labels = [f", {few} per class" for few in shots] or [""]
    assert rows == [
        f"{variant}{few}, momentum={value}"
        for few in labels
        for variant in ("slow", "fast")
        for value in (0.0, 0.9)
    ]
