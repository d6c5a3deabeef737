"""What cells are made together, and what is foretold of them."""

import json

import pytest

from tl_jax import ablation
from tl_jax.ablation import analysis, outlook, planner
from tl_jax.ablation.cells import expand
from tl_jax.ablation.record import Record
from tl_jax.config import identity_of, of_command
from tl_jax.errors import InputError
from tl_jax.runs import results, together, training

pytestmark = pytest.mark.usefixtures("small_networks")
HEAD = ("freeze.strategy=backbone", "cache.boundary=auto")
STORED = {"augment__crop_padding": 0, "augment__flip": False}
WHOLE = ("freeze.strategy=none", "cache.boundary=")


def units_of(made, width=planner.WIDTH):
    return [
        ([(cell.variant, cell.trial, cell.seed) for cell in unit.cells], unit.why_alone)
        for unit in planner.plan(expand(made), width)
    ]


def test_cells_that_differ_in_seeds_and_strengths_are_one_unit(spec):
    made = spec(
        {"head": HEAD, "whole": WHOLE},
        fields=STORED,
        tune={"optim.learning_rate": (0.1, 0.2)},
    )
    head = [("head", trial, seed) for seed in (0, 1) for trial in (0, 1)]
    alone = [([("whole", trial, seed)], "no stored activations") for _, trial, seed in head]
    first, *others = units_of(made)
    assert first == (head, "") and others == alone


def test_a_unit_has_no_more_cells_than_asked_for(spec):
    made = spec({"head": HEAD}, seeds=range(5), fields=STORED)
    cells = [("head", 0, seed) for seed in range(5)]
    assert units_of(made, 2) == [
        (cells[:2], ""),
        (cells[2:4], ""),
        (cells[4:], "no other like it"),
    ]


def test_other_labels_and_other_fields_are_other_units(spec):
    variants = {"head": HEAD, "slow": (*HEAD, "optim.momentum=0.5"), "rate": (*HEAD, RATE)}
    made = spec(variants, seeds=(0,), shots=(2, 3), fields=STORED)
    shown = [[name for name, _, _ in cells] for cells, _ in units_of(made)]
    assert shown == [["head", "rate"], ["slow"]] * 2


RATE = "optim.learning_rate=0.7"
SOLVED = ("freeze.strategy=backbone", "solver.name=ridge")


def test_heads_that_are_solved_are_made_by_themselves_and_share_activations(spec):
    """Over a base with crops and flips, which their activations do not see."""
    made = spec({"ridge": SOLVED, "all": WHOLE}, fields={"augment__crop_padding": 2})
    reasons = {cells[0][0]: (len(cells), why) for cells, why in units_of(made)}
    assert reasons["ridge"] == (1, "a head that is solved")
    of_all = spec({"ridge": SOLVED, "all": WHOLE}, seeds=range(3), shots=(0,))
    told = planner.sharing_activations(expand(of_all))
    assert [cell.config.cache.whole for cell in told] == [cell.variant == "ridge" for cell in told]


def test_what_only_updates_look_at_makes_no_other_cell_of_a_solved_head(spec):
    rates = {"optim.learning_rate": (0.1, 0.2)}
    cells = expand(spec({"ridge": SOLVED, "all": WHOLE}, seeds=(0,), tune=rates))
    names = {(cell.variant, cell.trial): cell.name.name for cell in cells}
    assert names["ridge", 0] == names["ridge", 1]
    assert names["all", 0] != names["all", 1]


def test_an_ablation_with_a_head_that_is_solved(spec, tmp_path):
    solved = (*SOLVED, "solver.strengths=(0.1,1.0)")
    made = spec({"all": WHOLE, "ridge": solved}, fields={"model__name": "small_cnn"})
    result = ablation.ablate(made, tmp_path / "run")
    rows = [row for row in result["runs"] if row["variant"] == "ridge"]
    assert [row["steps"] for row in rows] == [0, 0]
    for row in rows:
        found = results.read_result(tmp_path / "run" / row["run"] / "result.json")
        assert (
            found["solver"]["name"] == "ridge"
            and row["test"] == found["splits"]["test"]["top1_accuracy"]
        )
        assert row["validation"] == max(head["top1_accuracy"] for head in found["solver"]["heads"])
    assert ablation.ablate(made, tmp_path / "run")["runs"] == result["runs"]


@pytest.mark.parametrize(
    ("seeds", "shots", "whole"),
    [
        (range(3), (0,), True),  # 10 classes: train and hold-out are all there is
        (range(1), (0,), False),  # one choice
        (range(2), (2,), False),
        (range(40), (2, 3), True),
    ],
)
def test_whole_splits_are_stored_where_choices_together_are_as_many(spec, seeds, shots, whole):
    """Digits have 1,437 training images, of which a fifth is held out."""
    made = spec({"head": HEAD, "all": WHOLE}, seeds=seeds, shots=shots, fields=STORED)
    cells = expand(made)
    told = planner.sharing_activations(cells)
    assert [str(one) for one in told] == [str(one) for one in cells]
    assert [cell.config.cache.whole for cell in told] == [
        whole and cell.variant == "head" for cell in cells
    ]
    assert not any(cell.config.cache.whole for cell in cells)  # a copy was told
    assert [one.name for one in told] == [one.name for one in cells]


def test_runs_that_share_whole_activations_are_made_and_finished(spec, tmp_path):
    """Of all labels, so that seeds choose as many images as there are: such cells are copies."""
    made = spec({"head": HEAD}, seeds=range(3), shots=(0,), fields=STORED, test=("head",))
    content = ablation.run(made, tmp_path / "run")
    assert [row["status"] for row in content["runs"]] == ["finished"] * 3
    assert [row["together"] for row in content["runs"]] == [3] * 3
    assert all(cell.config.cache.whole for cell in planner.sharing_activations(expand(made)))


def test_a_width_is_how_many_are_trained_at_once(spec, tmp_path):
    made = spec({"head": HEAD}, seeds=range(4), fields=STORED)
    content = ablation.run(made, tmp_path / "run", width=2)
    assert [row["status"] for row in content["runs"]] == ["finished"] * 4
    assert [row["together"] for row in content["runs"]] == [2] * 4


def test_cells_that_have_to_be_made_alone_are(spec, tmp_path, monkeypatch):
    made, tried = spec({"head": HEAD}, fields=STORED), []

    def refused(group, jobs):
        tried.append(len(jobs))
        return [together.NotTogether("here not"), jobs[1](None)]

    monkeypatch.setattr(together.Group, "run", refused)
    content = ablation.run(made, tmp_path / "run")
    assert tried == [2]
    assert [row["status"] for row in content["runs"]] == ["finished"] * 2


def test_units_that_fail_as_a_whole_are_halved(spec, tmp_path, monkeypatch):
    """Here there is memory for two at once."""
    made, tried, run = spec({"head": HEAD}, seeds=range(5), fields=STORED), [], together.Group.run

    def limited(group, jobs):
        tried.append(len(jobs))
        if len(jobs) > 2:
            return [InputError("the run needs more memory")] * len(jobs)
        return run(group, jobs)

    monkeypatch.setattr(together.Group, "run", limited)
    content = ablation.run(made, tmp_path / "run")
    assert tried == [5, 2, 3, 2]
    assert [row["together"] for row in content["runs"]] == [2, 2, 1, 2, 2]


def test_cells_that_refuse_company_are_made_alone_at_once(spec, tmp_path, monkeypatch):
    made, tried = spec({"head": HEAD}, seeds=range(4), fields=STORED), []

    def refused(group, jobs):
        tried.append(len(jobs))
        return [together.NotTogether("here not")] * len(jobs)

    monkeypatch.setattr(together.Group, "run", refused)
    content = ablation.run(made, tmp_path / "run")
    assert tried == [4] and [row["together"] for row in content["runs"]] == [1] * 4


def test_nothing_is_read_of_what_diverged(spec, tmp_path):
    made = spec({"head": HEAD}, seeds=range(3), fields=STORED)
    record, cells = Record(tmp_path), expand(made)
    record.took(outlook.TRAINED, cells, 9.0)
    record.took(outlook.READ, cells[:2], 4.0)
    rows = outlook.rows(made, record, cells, ["test read", "diverged", "test read"])
    assert [row["time left"] for row in rows] == ["0.0 s"] * 2
    assert [(row["trained"], row["failed"]) for row in rows] == [(2, 1)] * 2


def test_a_cell_that_fails_in_company_is_tried_alone(spec, tmp_path, monkeypatch):
    made, run = spec({"head": HEAD}, fields=STORED), together.Group.run
    monkeypatch.setattr(
        together.Group, "run", lambda group, jobs: [RuntimeError("no"), run(group, jobs)[1]]
    )
    content = ablation.run(made, tmp_path / "run")
    assert [row["status"] for row in content["runs"]] == ["finished"] * 2


def times(workdir):
    return (workdir / "times.jsonl").read_text().splitlines()


def sealed(record, cell):
    return results.read_sealed(record.cell(cell), of_command(cell.config), identity_of(cell.config))


def test_cells_of_a_unit_are_trained_by_one_program_and_share_its_time(spec, tmp_path):
    made = spec({"head": HEAD, "fast": (*HEAD, RATE)}, fields=STORED)
    content = ablation.run(made, tmp_path / "run")
    record, cells = Record(tmp_path / "run"), expand(made)
    assert [row["together"] for row in content["runs"]] == [4] * 4
    [line] = [json.loads(one) for one in times(tmp_path / "run") if "trained" in one]
    assert line["cells"] == [str(cell.name) for cell in cells]
    assert [row["seconds"] for row in content["runs"]] == [line["seconds"] / 4] * 4
    longest = max(sealed(record, cell)["wall_seconds"] for cell in cells)
    assert 0 < longest < line["seconds"]
    solo = training.run(cells[-1].config, tmp_path / "solo")
    last = content["runs"][-1]
    assert last["test"] == solo["splits"]["test"]["top1_accuracy"]


def test_what_is_left_takes_as_long_as_what_was_done(spec, tmp_path):
    made = spec({"head": HEAD, "whole": WHOLE}, seeds=range(3), fields=STORED, test=("head",))
    record, cells = Record(tmp_path), expand(made)
    head = [cell for cell in cells if cell.variant == "head"]
    record.took(outlook.TRAINED, head[:2], 5.0)  # interrupted
    record.took(outlook.TRAINED, head[:2], 3.0)
    record.took(outlook.TRAINED, head[2:], 1.0)  # interrupted, and not done yet
    record.took(outlook.READ, head[:1], 3.0)
    states = dict.fromkeys((str(cell.name) for cell in cells), analysis.TO_BE_RUN)
    states |= {str(head[0].name): "test read", str(head[1].name): "trained"}
    rows = outlook.rows(made, record, cells, [*states.values()])
    first, second, last = rows
    assert first | {"memory": ""} == {
        "variant": "head",
        "runs": 3,
        "trained": 2,
        "failed": 0,
        "test read": 1,
        "updates": "3 at once",
        "time of a run": "4.0 s",
        "time left": "10.0 s",  # a run of 4, two readings of 3
        "memory": "",
    }
    assert second["time of a run"] == "-" == second["time left"]
    assert second["updates"] == "by themselves: no stored activations"
    assert last["time left"] == "more than 10.0 s"
    assert (last["runs"], last["trained"], last["test read"]) == (6, 2, 1)


def test_test_is_left_to_be_read_for_one_trial_of_each_seed(spec, tmp_path):
    tune = {"optim.learning_rate": (0.1, 0.2)}
    made = spec({"head": HEAD, "read": HEAD}, fields=STORED, tune=tune)
    record, cells = Record(tmp_path), expand(made)
    record.took(outlook.TRAINED, cells, 8.0)
    read = [cell for cell in cells if (cell.variant, cell.trial) == ("read", 1)]
    record.took(outlook.READ, read, 6.0)
    states = ["test read" if cell in read else "trained" for cell in cells]
    head, other, last = outlook.rows(made, record, cells, states)
    assert (head["trained"], head["test read"], head["time left"]) == (4, 0, "6.0 s")
    assert (other["trained"], other["test read"], other["time left"]) == (4, 2, "0.0 s")
    assert last["time left"] == "6.0 s"


def test_memory_is_the_most_that_a_run_of_the_row_planned(spec, tmp_path):
    made = spec({"head": HEAD}, fields=STORED)
    ablation.run(made, tmp_path / "run")
    row, last = ablation.look_ahead(made, tmp_path / "run").left
    assert "(device)" in row["memory"] and "(host)" in row["memory"]
    assert row["time left"] == last["time left"] == "0.0 s"
    row, last = ablation.look_ahead(made).left
    assert row["memory"] == row["time left"] == last["time left"] == "-"
