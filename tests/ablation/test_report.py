"""What an ablation answers in a sentence, and which tables it shows."""

import csv

import pytest

from tl_jax.ablation import Spec, analysis, report
from tl_jax.ablation.record import Record
from tl_jax.config import default_config


def rows_of(made, validation, test):
    """Returns rows of finished runs; validation, test: {(variant, shots): a value for every seed}."""
    return [
        {
            "variant": variant,
            "shots": shots,
            "trial": 0,
            "values": {},
            "seed": seed,
            "run": f"cells/{variant}/{shots}/{seed}",
            "status": "finished",
            "held_out": True,
            "validation": validation[variant, shots],
            "test": test[variant, shots],
            "seconds": 1.0,
            "devices": 1,
            "error": None,
            "trainable": 3,
            "parameters": 3,
            "train_examples": 9,
            "steps": 2,
            "together": 1,
        }
        for variant in made.variants
        for shots in made.labelled
        for seed in made.seeds
    ]


def written(made, rows, folder):
    folder.mkdir()
    chosen = analysis.choose(made, rows)
    return report.write(made, Record(folder), rows, chosen, peek=False)


def held_out(**arguments):
    config = default_config(data__validation_fraction=0.1)
    return Spec(config, {"a": (), "b": ()}, (0, 1), **arguments)


def test_the_answer_is_the_best_on_validation_not_on_test(tmp_path):
    made = held_out(shots=(5, 0))
    validation = {("a", 5): 0.5, ("b", 5): 0.4, ("a", 0): 0.6, ("b", 0): 0.7}
    test = {("a", 5): 0.1, ("b", 5): 0.9, ("a", 0): 0.9, ("b", 0): 0.2}
    content = written(made, rows_of(made, validation, test), tmp_path / "run")
    assert content["answers"] == [
        "Best on validation with 5 labels per class: a, 50.00% (50.00 to 50.00); on test it has 10.00% "
        "(10.00 to 10.00).",
        "Best on validation with all labels: b, 70.00% (70.00 to 70.00); on test it has 20.00% "
        "(20.00 to 20.00).",
    ]
    text = (tmp_path / "run" / "ablation.md").read_text()
    assert all(answer in text for answer in content["answers"])


def test_the_lowest_loss_is_the_best(tmp_path):
    made = held_out(metric="loss")
    validation = {("a", 0): 2.0, ("b", 0): 1.0}
    content = written(made, rows_of(made, validation, validation), tmp_path / "run")
    [answer] = content["answers"]
    assert answer.startswith("Best on validation: b, 1 ")


def test_runs_that_failed_are_named_though_nothing_of_them_is_in_the_tables(tmp_path, capsys):
    made = held_out(tune={"optim.momentum": (0.0, 0.9)}, shots=(5,))
    values = {("a", 5): 0.5, ("b", 5): 0.6}
    rows = rows_of(made, values, values)
    failed = [
        {
            **row,
            "trial": 1,
            "values": {"optim.momentum": 0.9},
            "status": "diverged",
            "validation": None,
            "error": f"loss {number} is NaN",
        }
        for number, row in enumerate([*rows, *rows[:3]])
    ]
    for row in failed:
        del row["test"]
    content = written(made, [*rows, *failed], tmp_path / "run")
    assert content["notes"] == []
    named = [
        "a, optim.momentum=0.9, seed=0, 5 per class diverged: loss 0 is NaN",
        "a, optim.momentum=0.9, seed=1, 5 per class diverged: loss 1 is NaN",
        "b, optim.momentum=0.9, seed=0, 5 per class diverged: loss 2 is NaN",
        "b, optim.momentum=0.9, seed=1, 5 per class diverged: loss 3 is NaN",
        "a, optim.momentum=0.9, seed=0, 5 per class diverged: loss 4 is NaN",
        f"2 more failed: {tmp_path / 'run' / 'runs.csv'}",
    ]
    assert capsys.readouterr().err.splitlines() == named
    text = (tmp_path / "run" / "ablation.md").read_text()
    assert [line for line in text.splitlines() if "NaN" in line or "more failed" in line] == [
        f"Note: {line}" for line in named
    ]


def test_what_was_not_opened_has_no_place_in_the_answer(tmp_path):
    made = held_out(test=("a",))
    rows = rows_of(made, {("a", 0): 0.5, ("b", 0): 0.6}, {("a", 0): 0.5, ("b", 0): 0.6})
    for row in rows:
        if row["variant"] == "b":
            del row["test"]
    content = written(made, rows, tmp_path / "run")
    [answer] = content["answers"]
    assert answer == "Best on validation: b, 60.00% (60.00 to 60.00)."


@pytest.mark.parametrize("value", [None, float("nan")])
def test_where_every_variant_failed_there_is_no_answer(tmp_path, value):
    made = held_out()
    rows = rows_of(made, dict.fromkeys([("a", 0), ("b", 0)], value), {("a", 0): 0, ("b", 0): 0})
    assert written(made, rows, tmp_path / "run")["answers"] == []
    assert analysis.best_on_validation(made, rows, analysis.choose(made, rows), 0) is None


def test_a_terminal_has_one_narrow_table(tmp_path, capsys):
    made = held_out(further_metrics=("macro_f1",))
    values = {("a", 0): 0.5, ("b", 0): 0.75}
    rows = rows_of(made, values, values)
    rows[0]["validation"], rows[1]["test"] = 0.6, 0.7
    for row in rows:
        row["further"] = {"macro_f1": 0.25}
    written(made, rows, tmp_path / "run")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "resnet18 on tfds:cifar10: top-1 accuracy in %, ± half the 95% interval" in lines
    at = lines.index("variant validation test macro F1 n difference p")
    # Half of t(1) * 0.1 * sqrt(2) / sqrt(2), about 12.7 times the half of what two values are apart.
    assert lines[at + 2] == "a 55.0 ± 63.5 60.0 ± 127.1 25.0 ± 0.0 2 reference"
    assert lines[at + 3] == "b 75.0 ± 0.0 75.0 ± 0.0 25.0 ± 0.0 2 +15.0 ± 127.1 0.37, noise"


def test_a_look_at_validation_compares_on_validation(tmp_path, capsys):
    made = held_out(metric="loss")
    rows = rows_of(made, {("a", 0): 2.0, ("b", 0): 1.0}, {("a", 0): 0.0, ("b", 0): 0.0})
    for row in rows:
        del row["test"]
    (tmp_path / "run").mkdir()
    report.write(made, Record(tmp_path / "run"), rows, analysis.choose(made, rows), peek=True)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    at = lines.index("variant validation n difference p")
    assert lines[at + 3] == "b 1 ± 0 2 -1 ± 0"
    assert not list((tmp_path / "run").iterdir())


def test_corrected_p_values_are_shown_where_the_question_is_which_is_best(tmp_path):
    config = default_config(data__validation_fraction=0.1)
    made = Spec(config, {"a": (), "b": (), "c": ()}, (0, 1, 2), question="best")
    values = {("a", 0): 0.5, ("b", 0): 0.6, ("c", 0): 0.7}
    rows = rows_of(made, values, values)
    for number, row in enumerate(rows):
        row["test"] += (0.01, 0.02, 0.04)[number % 3] * (1 + number // 3)
    content = written(made, rows, tmp_path / "run")
    of = {row["variant"]: row["difference"] for row in content["test"]}
    assert of["a"]["p_corrected"] > of["a"]["p"] > 0
    full = report.table(made, content["test"], "test")
    narrow = report.brief(made, content["validation"], content["test"])
    for row, small in zip(full[:2], narrow[:2], strict=True):
        corrected = of[row["variant"]]["p_corrected"]
        assert row["p"] == corrected and small["p"].startswith(f"{corrected:.2g}")


def test_pairs_are_of_a_seed_whatever_is_missing(tmp_path):
    made = Spec(default_config(data__validation_fraction=0.1), {"a": (), "b": ()}, (0, 1, 2))
    rows = rows_of(made, {("a", 0): 0.5, ("b", 0): 0.5}, {("a", 0): 0.5, ("b", 0): 0.5})
    for row, value in zip(rows, (0.1, 0.2, 0.4, 0.9, 0.3, 0.6), strict=True):
        row["test"] = value
    rows[3] |= {"status": analysis.TO_BE_RUN}  # of b, seed 0
    [_, found] = analysis.summarise(made, rows, analysis.choose(made, rows), "test")
    values = found["difference"]["values"]
    assert {seed: round(value, 6) for seed, value in values.items()} == {1: 0.1, 2: 0.2}


def test_a_spreadsheet_has_a_column_for_each_number(tmp_path):
    made = held_out(further_metrics=("macro_f1",))
    values = {("a", 0): 0.5, ("b", 0): 0.6}
    rows = rows_of(made, values, values)
    for row in rows:
        row["further"], row["values"] = {"macro_f1": 0.25}, {"optim.momentum": 0.9}
    written(made, rows, tmp_path / "run")
    [first, *_] = csv.DictReader((tmp_path / "run" / "runs.csv").read_text().splitlines())
    assert first["macro_f1"] == "0.25" and "further" not in first
    assert first["values"] == "optim.momentum=0.9"


def test_more_metrics_are_columns_of_test_alone(tmp_path):
    made = held_out(further_metrics=("macro_f1", "balanced_accuracy"))
    values = {("a", 0): 0.5, ("b", 0): 0.6}
    rows = rows_of(made, values, values)
    for number, row in enumerate(rows):
        row["further"] = {"macro_f1": number / 10, "balanced_accuracy": 0.25}
    content = written(made, rows, tmp_path / "run")
    first, second = content["test"]
    assert first["further"]["macro_f1"]["mean"] == pytest.approx(0.05)
    assert second["further"]["macro_f1"]["mean"] == pytest.approx(0.25)
    assert all("further" not in row for row in content["validation"])
    [shown, _] = report.table(made, content["test"], "test")
    assert shown["macro F1"].startswith("5.00%")
    assert shown["balanced accuracy"].startswith("25.00%")
