"""An ablation from its spec to its tables: what is trained, what is opened, what goes on after an interruption."""

import csv
import json
import re
import signal
import threading
import time

import numpy as np
import pytest
from running import tiny_config

from tl_jax import ablation
from tl_jax.ablation import Spec, cells, work
from tl_jax.ablation.record import Record, claims
from tl_jax.config import identity_of, of_command
from tl_jax.errors import InputError
from tl_jax.runs import evaluate, training
from tl_jax.runs import results as results_of_run
from tl_jax.runs.phases import PhaseRecords
from tl_jax.runs.run_folder import RunFolder
from tl_jax.training.loops import NonFiniteLoss, Stopped

pytestmark = pytest.mark.usefixtures("small_networks")
TUNE = {"optim.momentum": (0.0, 0.9)}


def opened(workdir):
    """Returns the cells whose test split was read."""
    return {str(path.parent.relative_to(workdir / "cells")) for path in results(workdir)}


def results(workdir):
    return sorted(workdir.glob("cells/*/*/*/*/result.json"))


def tables(workdir):
    """Returns the tables, but for times."""
    return (workdir / "ablation.md").read_text().partition("## Time")[0]


def log(workdir):
    return [(line["what"], line.get("cell")) for line in Record(workdir).log()]


@pytest.fixture
def quick(monkeypatch):
    """Has runs made up by their configs: their files without any training."""

    def run(config, folder, stop=lambda: False, *, sealed=False, **_):
        record, identity = of_command(config), identity_of(config)
        found = results_of_run.read_sealed(folder, record, identity) if sealed else None
        if found is not None:
            return found
        if config.optim.learning_rate > 1e3:
            raise NonFiniteLoss(3, "loss", 0, np.arange(2))
        number = int(cells.digest(config), 16) % 997 / 997
        splits = {"validation": {"top1_accuracy": number, "examples": 100}}
        if not sealed:
            splits["test"] = {"top1_accuracy": 1 - number, "examples": 100}
        with RunFolder.open(folder, record, identity=identity) as opened:
            result = {"splits": splits, "wall_seconds": 1.0, "steps": 6}
            opened.write_json("sealed.json" if sealed else "result.json", result)
        return result

    monkeypatch.setattr(training, "run", run)
    return run


@pytest.fixture(scope="module")
def whole(small_networks, tmp_path_factory):
    """Returns a spec with two trials, the folder of its ablation, and what it came to."""
    base = tiny_config(data__validation_fraction=0.2)
    variants = {"slow": ("optim.learning_rate=0.01",), "fast": ()}
    made = Spec(base, variants, (0, 1), tune=TUNE)
    workdir = tmp_path_factory.mktemp("ablation") / "whole"
    return made, workdir, ablation.run(made, workdir)


def test_test_is_read_for_what_validation_chose_and_nothing_else(whole):
    made, workdir, content = whole
    chosen = {row["variant"]: row["values"] for row in content["test"]}
    expected = {
        str(cell.name) for cell in cells.expand(made) if cell.values == chosen[cell.variant]
    }
    assert opened(workdir) == expected and len(expected) == 4
    assert sorted(log(workdir)) == sorted(("opened", name) for name in expected)
    for variant in ("slow", "fast"):
        by_trial = [
            sum(
                row["validation"]
                for row in content["runs"]
                if (row["variant"], row["trial"]) == (variant, trial)
            )
            for trial in (0, 1)
        ]
        assert chosen[variant] == made.trials(variant)[by_trial.index(max(by_trial))]
    assert all(
        ("test" in row) is (str(cell.name) in expected)
        for row, cell in zip(content["runs"], cells.expand(made), strict=True)
    )


def test_tables_for_papers_and_spreadsheets(whole):
    _, workdir, content = whole
    lines = (workdir / "ablation.tex").read_text().splitlines()
    assert lines[1] == r"\toprule" and len(lines) == 2 + 1 + 1 + 2 + 2
    rows = list(csv.DictReader((workdir / "runs.csv").read_text().splitlines()))
    for row, run in zip(rows, content["runs"], strict=True):
        assert (row["variant"], int(row["seed"]), row["run"]) == (
            run["variant"],
            run["seed"],
            run["run"],
        )
        assert float(row["validation"]) == run["validation"]
        assert row["test"] == str(run.get("test", ""))


def test_a_cell_is_its_solo_run(whole, tmp_path):
    made, workdir, content = whole
    cell = cells.expand(made)[-1]
    solo = training.run(cell.config, tmp_path / "solo")
    result = Record(workdir).cell(cell) / "sealed.json"
    sealed = json.loads(result.read_text())
    assert sealed["splits"].keys() == {"validation"}
    assert sealed["splits"]["validation"] == json.loads(json.dumps(solo["splits"]["validation"]))
    row = next(row for row in content["runs"] if row["run"].endswith(cell.name.name))
    assert row["validation"] == solo["splits"]["validation"]["top1_accuracy"]
    if "test" in row:
        assert row["test"] == solo["splits"]["test"]["top1_accuracy"]


def test_a_later_launch_trains_and_opens_nothing(whole, monkeypatch):
    made, workdir, _ = whole
    before, trained = tables(workdir), []
    monkeypatch.setattr(training, "run", lambda *given, **options: trained.append(given))
    ablation.run(made, workdir)
    assert not trained and tables(workdir) == before and len(log(workdir)) == 4


@pytest.mark.parametrize("after", [0, 1, 3, 6, 8, 9, 11])
def test_a_launch_that_is_killed_goes_on_to_the_same_tables(
    whole, quick, tmp_path, monkeypatch, after
):
    """Killed after so many of the eight runs and four readings of test."""
    (made, _, _), workdir = whole, tmp_path / "whole"
    ablation.run(made, workdir)
    run, count = quick, iter(range(100))

    def killed(*given, **options):
        if next(count) == after:
            raise KeyboardInterrupt
        return run(*given, **options)

    monkeypatch.setattr(training, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        ablation.run(made, tmp_path / "again")
    assert not (tmp_path / "again" / "ablation.md").exists()
    assert (len(opened(tmp_path / "again")) > 0) is (after > 8)
    ablation.run(made, tmp_path / "again")
    assert tables(tmp_path / "again") == tables(workdir)
    assert sorted(log(tmp_path / "again")) == sorted(log(workdir))
    assert next(count) == 13  # the one that was killed once more, and no other


def test_a_look_at_validation_opens_nothing(spec, quick, tmp_path, capsys):
    made = spec()
    with pytest.raises(InputError, match=r"run holds no ablation; expected the folder of one"):
        ablation.run(made, tmp_path / "run", peek=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(Stopped):
        ablation.run(made, tmp_path / "run", lambda: True)
    content = ablation.run(made, tmp_path / "run", peek=True)
    assert content["test"] == [] and not results(tmp_path / "run")
    assert "4 cells are trained; test has not been looked at" in capsys.readouterr().out
    assert not (tmp_path / "run" / "ablation.md").exists()
    ablation.run(spec({"other": ()}), tmp_path / "run", peek=True)
    assert "run holds another spec: of its cells only" in capsys.readouterr().err
    ablation.run(made, tmp_path / "run")
    capsys.readouterr()
    ablation.run(made, tmp_path / "run", peek=True)
    told = capsys.readouterr()
    assert "4 of 4 cells are trained; test was read for 4 runs before" in told.out
    assert "another spec" not in told.err


def test_a_run_that_diverges_is_reported_and_the_others_go_on(spec, quick, tmp_path):
    made = spec({"wild": ("optim.learning_rate=1e30",), "calm": ()}, baseline="calm")
    content = ablation.run(made, tmp_path / "run")
    states = {(row["variant"], row["status"]) for row in content["runs"]}
    assert states == {("wild", "diverged"), ("calm", "finished")}
    failures = sorted(tmp_path.glob("run/cells/wild/*/*/*.failed.json"))
    assert len(failures) == 2
    assert "NonFiniteLoss" in json.loads(failures[0].read_text())["error"]
    assert {name.split("/")[0] for name in opened(tmp_path / "run")} == {"calm"}
    wild = content["validation"][0]
    assert wild["failed"] == 2 and wild["difference"]["differs"] is None
    assert "not finite" in (tmp_path / "run" / "ablation.md").read_text()


def test_what_fits_no_run_ends_it_and_what_fits_some_is_reported(
    spec, quick, tmp_path, monkeypatch
):
    """Missing data are one message at once; a variant that asks too much is no reason to stop the others."""
    made, refused = spec(seeds=(0, 1)), {"slow", "fast"}

    def run(config, folder, *given, **options):
        if folder.parts[-4] in refused:
            raise InputError("no such data")
        return quick(config, folder, *given, **options)

    monkeypatch.setattr(training, "run", run)
    with pytest.raises(InputError, match=r"^slow, 2 per class, seed 0: no such data$"):
        ablation.run(made, tmp_path)
    assert not list(tmp_path.rglob("*failed.json"))
    refused -= {"slow"}
    content = ablation.run(made, tmp_path)
    assert [row["status"] for row in content["runs"]] == ["finished", "failed"] * 2
    assert content["runs"][1]["error"] == "InputError: no such data"


def test_only_the_variants_that_a_spec_names_are_opened(spec, quick, tmp_path):
    content = ablation.run(spec(test=("fast",)), tmp_path / "run")
    assert {name.split("/")[0] for name in opened(tmp_path / "run")} == {"fast"}
    slow, fast = content["test"]
    assert slow["test"]["n"] == 0 and fast["test"]["n"] == 2 and fast["difference"] is None


def test_a_spec_that_changes_after_test_was_opened_needs_a_reason(spec, quick, tmp_path):
    workdir = tmp_path / "run"
    ablation.run(spec(seeds=(0,)), workdir)
    for changed in (spec(seeds=(0, 1)), spec(seeds=(0,), baseline="fast")):
        with pytest.raises(InputError, match=r"its test split was opened \(2 runs\).*--amend"):
            ablation.run(changed, workdir)
    content = ablation.run(spec(seeds=(0, 1)), workdir, amend="a second seed")
    assert any(
        re.search("changed after test was opened.*a second seed", note) for note in content["notes"]
    )
    assert "a second seed" in (workdir / "ablation.md").read_text()
    assert [what for what, _ in log(workdir)] == ["opened"] * 2 + ["amended"] + ["opened"] * 2


def test_the_order_of_variants_makes_another_spec_where_the_first_is_the_baseline(
    spec, quick, tmp_path
):
    names = {"slow": ("optim.learning_rate=0.01",), "fast": ()}
    ablation.run(spec(names), tmp_path)
    ablation.run(spec(names, baseline="slow", test=("slow", "fast")), tmp_path)  # says the same
    turned = dict(reversed(names.items()))
    with pytest.raises(InputError, match="--amend"):
        ablation.run(spec(turned), tmp_path)
    ablation.run(spec(turned, baseline="slow"), tmp_path)


def test_other_pairs_make_another_spec(spec, quick, tmp_path):
    variants = {
        "one": (),
        "slow": ("optim.learning_rate=0.01",),
        "fast": ("optim.learning_rate=0.02",),
    }
    ablation.run(spec(variants, seeds=(0,)), tmp_path)
    with pytest.raises(InputError, match="--amend"):
        ablation.run(spec(variants, seeds=(0,), pairs={"fast": "slow"}), tmp_path)


def test_a_run_whose_frozen_weights_moved_has_failed(spec, tmp_path, monkeypatch):
    """Its state is saved; it is not sealed, and test is not read for it, also when it is tried again."""
    made = spec({"head": ("freeze.strategy=backbone",)}, seeds=(0,))
    monkeypatch.setattr(PhaseRecords, "frozen", lambda self, *_: {"changed": ["params/stem"]})
    for _ in range(2):
        [row] = ablation.run(made, tmp_path)["runs"]
        assert row["status"] == "failed" and "FrozenChanged" in row["error"]
        assert not list(tmp_path.rglob("sealed.json")) and not list(tmp_path.rglob("result.json"))
        next(tmp_path.rglob("*.failed.json")).unlink()


@pytest.mark.parametrize(
    "change",
    [{"metric": "loss"}, {"question": "best"}, {"test": ("fast",)}, {"level": 0.01}],
    ids=str,
)
def test_all_that_decides_what_is_said_is_part_of_the_spec(spec, quick, tmp_path, change):
    ablation.run(spec(seeds=(0,)), tmp_path)
    with pytest.raises(InputError, match="--amend"):
        ablation.run(spec(seeds=(0,), **change), tmp_path)
    content = ablation.ablate(spec(seeds=(0,), **change), tmp_path, amend="another question")
    assert "another question" in content["notes"][0]


def test_a_launcher_trains_and_decides_nothing(spec, quick, tmp_path):
    assert ablation.run(spec(tune=TUNE), tmp_path, train_only=True) == {}
    assert len(list(tmp_path.rglob("sealed.json"))) == 8
    assert not results(tmp_path) and not (tmp_path / "ablation.md").exists()
    assert log(tmp_path) == []


def test_the_metric_of_the_spec_chooses_and_is_reported(spec, tmp_path, monkeypatch):
    """Here the trial with the higher accuracy has the higher loss; for each number of labels another one."""

    def run(config, folder, *_, sealed=False, **__):
        better = (config.optim.momentum > 0) == (config.data.examples_per_class == 2)
        value = {"top1_accuracy": 0.75 if better else 0.25, "loss": 3.0 if better else 1.0}
        splits = {name: {**value, "examples": 100} for name in ("validation", "test")}
        if sealed:
            del splits["test"]
        with RunFolder.open(folder, of_command(config), identity=identity_of(config)) as opened_:
            result = {"splits": splits, "wall_seconds": 1.0, "steps": 6}
            opened_.write_json("sealed.json" if sealed else "result.json", result)
        return result

    monkeypatch.setattr(training, "run", run)
    for metric, value in (("top1_accuracy", 0.75), ("loss", 1.0)):
        made = spec(shots=(2, 3), seeds=(0,), tune=TUNE, metric=metric)
        content = ablation.run(made, tmp_path / metric)
        slow = [row for row in content["runs"] if row["variant"] == "slow"]
        by_cell = {(row["shots"], row["trial"]): row for row in slow}
        of_two, of_three = (0, 1) if metric == "loss" else (1, 0)
        assert {place for place, row in by_cell.items() if "test" in row} == {
            (2, of_two),
            (3, of_three),
        }
        for shots, trial in ((2, of_two), (3, of_three)):
            row = by_cell[shots, trial]
            assert row["validation"] == row["test"] == value
        assert {row["values"]["optim.momentum"] for row in content["test"]} == {0.0, 0.9}


def test_a_spec_may_change_before_test_is_opened(spec, quick, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(Stopped):
        ablation.run(spec(seeds=(0,)), workdir, lambda: True)
    content = ablation.run(spec(seeds=(1,)), workdir)
    assert content["notes"] == [] and len(results(workdir)) == 2


def test_a_test_split_that_another_command_read_is_noted(spec, quick, tmp_path):
    made, workdir = spec(seeds=(0,)), tmp_path / "run"
    with pytest.raises(Stopped):
        ablation.run(made, workdir, lambda: True)
    first = cells.expand(made)[0]
    training.run(first.config, Record(workdir).cell(first))
    content = ablation.run(made, workdir)
    assert content["notes"] == [
        "the test split of 1 run was read by another command than this ablation"
    ]
    assert ("opened outside", str(first.name)) in log(workdir)


@pytest.mark.parametrize("size", [1, 5])
def test_launchers_share_the_work_and_repeat_none(spec, tmp_path, size):
    """Four launchers on twelve cells, in units that take a moment."""
    record, made = Record(tmp_path), cells.expand(spec(seeds=range(6)))
    units = [made[start : start + size] for start in range(0, len(made), size)]
    done, lock = [], threading.Lock()

    def make(given, record, stop_requested):
        time.sleep(0.02)
        with lock:
            done.extend(cell.name for cell in given)
        for cell in given:
            record.cell(cell).mkdir()

    launchers = [
        threading.Thread(
            target=work.each_done,
            args=(
                work.Pace("made", len(made)),
                record,
                units,
                make,
                lambda cell, folder: folder.is_dir(),
                lambda: False,
            ),
        )
        for _ in range(4)
    ]
    for launcher in launchers:
        launcher.start()
    for launcher in launchers:
        launcher.join()
    assert sorted(done) == sorted(cell.name for cell in made)


def test_the_time_of_a_unit_is_that_of_the_cells_that_were_claimed(spec, tmp_path):
    """Of two cells one is done by another launcher, which is shown while it is waited for."""
    record, made = Record(tmp_path), cells.expand(spec(seeds=(0,)))
    theirs = claims(record.cell(made[1]))
    record.cell(made[1]).parent.mkdir(parents=True)
    told, worked = [], []

    def done_elsewhere():
        record.cell(made[1]).mkdir()
        theirs.release()

    def make(given, record, stop_requested):
        worked.extend(given)
        for cell in given:
            record.cell(cell).mkdir()

    theirs.acquire()
    work.each_done(
        work.Pace("made", 2, tell=lambda *said: told.append(said[0])),
        record,
        [made],
        make,
        lambda cell, folder: folder.is_dir(),
        lambda: False,
        waiting=done_elsewhere,
    )
    assert worked == made[:1] and record.seconds("made").keys() == {str(made[0].name)}
    assert told == ["made: 1 of 2 cells", "made: 2 of 2 cells"]


def test_how_far_it_is_and_how_long_it_takes(spec, quick, tmp_path, capsys, monkeypatch):
    """Six cells of three seconds each, one of which is done already; test is read in two."""
    made, now = spec(seeds=range(3), fields={"cache__boundary": ""}), [0.0]
    Record(tmp_path).begin(made, cells.expand(made))
    training.run(cells.expand(made)[2].config, Record(tmp_path).cell(cells.expand(made)[2]))
    monkeypatch.setattr(work.time, "perf_counter", lambda: now[0])

    def timed(*given, **options):
        now[0] += 3.0 if options.get("sealed") else 2.0
        return quick(*given, **options)

    monkeypatch.setattr(training, "run", timed)
    ablation.run(made, tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if " cells" in line]
    assert said == [
        # Ten seconds apart, but for the last one of each.
        "trained: 2 of 6 cells, about 12.0 s left",
        "trained: 6 of 6 cells",
        "test read: 1 of 6 cells, about 10.0 s left",
        "test read: 6 of 6 cells",
    ]


def test_the_time_before_an_interruption_counts(spec, quick, tmp_path, monkeypatch):
    """One cell, interrupted after three seconds and done by two more; five seconds together."""
    made, now, ends = spec({"only": ()}, seeds=(0,)), [0.0], iter((True, False))
    monkeypatch.setattr(work.time, "perf_counter", lambda: now[0])

    def timed(*given, **options):
        if not options.get("sealed"):
            return quick(*given, **options)
        if next(ends):
            now[0] += 3.0
            raise Stopped(1)
        now[0] += 2.0
        return quick(*given, **options)

    monkeypatch.setattr(training, "run", timed)
    with pytest.raises(Stopped):
        ablation.run(made, tmp_path)
    [row] = ablation.run(made, tmp_path)["runs"]
    assert row["seconds"] == 5.0


def test_a_folder_of_something_else_is_left_alone(spec, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for peek in (False, True):
        with pytest.raises(InputError, match=r"not the folder of an ablation.*holds thesis\.txt"):
            ablation.run(spec(), tmp_path, peek=peek)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="is a file"):
        ablation.run(spec(), tmp_path / "thesis.txt")


def test_what_a_run_would_refuse_is_refused_before_any_trains(spec, tmp_path):
    made = spec({"good": (), "bad": ("freeze.strategy=up_to:stage9",)})
    with pytest.raises(InputError, match=r"bad, 2 per class, seed 0: .*stage9"):
        ablation.run(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data__name": "npz:nothing.npz"}, r"slow, 2 per class, seed 0: .*nothing\.npz"),
        ({"data__examples_per_class": 5000}, r"slow, 5000 per class, seed 0: .*examples_per_class"),
        ({"data__batch_size": 4000}, r"slow, 2 per class, seed 0: data\.batch_size=4000 is larger"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_written(
    spec, tmp_path, fields, message
):
    made = spec(fields=fields)
    for refused in (ablation.run, ablation.look_ahead):
        with pytest.raises(InputError, match=message):
            refused(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_that_one_variant_alone_has_not_are_refused(spec, tmp_path):
    made = spec({"few": (), "many": ("data.examples_per_class=5000",)})
    with pytest.raises(InputError, match=r"^many, 5000 per class, seed 0: "):
        ablation.look_ahead(made)


def test_a_plan_downloads_nothing(spec, tmp_path, monkeypatch):
    monkeypatch.setattr("tl_jax.data.prepare.prepare", lambda *_: pytest.fail("downloads"))
    made = spec(fields={"data__name": "tfds:cifar10", "data__data_dir": str(tmp_path)})
    assert len(ablation.look_ahead(made, tmp_path / "run").cells) == 4
    made = spec(fields={"data__name": "tfds:mnist", "data__data_dir": str(tmp_path)})
    with pytest.raises(InputError, match="tfds data set mnist is not prepared"):
        ablation.look_ahead(made, tmp_path / "run")


def test_a_plan_of_another_spec_after_test_was_opened_is_refused(spec, quick, tmp_path):
    ablation.run(spec(seeds=(0,)), tmp_path)
    with pytest.raises(InputError, match="holds another spec, and its test split was opened"):
        ablation.look_ahead(spec(seeds=(0, 1)), tmp_path)
    assert ablation.look_ahead(spec(seeds=(0, 1)), tmp_path, amend="more seeds").cells
    assert [what for what, _ in log(tmp_path)] == ["opened"] * 2


def test_a_log_that_is_gone_opens_no_seal(spec, quick, tmp_path):
    ablation.run(spec(seeds=(0,)), tmp_path)
    (tmp_path / "test_log.jsonl").unlink()
    with pytest.raises(InputError, match=r"its test split was opened \(2 runs\)"):
        ablation.run(spec(seeds=(0, 1)), tmp_path)


def test_of_two_specs_in_one_folder_at_once_the_first_reads_no_test(
    spec, quick, tmp_path, monkeypatch
):
    other = spec(seeds=(0, 1, 2))

    def meanwhile(*given, **options):
        Record(tmp_path).begin(other, cells.expand(other))
        return quick(*given, **options)

    monkeypatch.setattr(training, "run", meanwhile)
    with pytest.raises(InputError, match="holds another spec now, begun by another command"):
        ablation.run(spec(), tmp_path)
    assert not results(tmp_path) and not log(tmp_path)


def test_a_result_that_is_none_is_said(spec, quick, tmp_path):
    ablation.run(spec(seeds=(0,)), tmp_path)
    [path, _] = results(tmp_path)
    path.write_text("[]")
    with pytest.raises(InputError, match=r"result\.json is no result of a run"):
        ablation.run(spec(seeds=(0,)), tmp_path)


def test_a_blank_reason_is_none(spec, quick, tmp_path):
    ablation.run(spec(seeds=(0,)), tmp_path)
    with pytest.raises(InputError, match="holds another spec"):
        ablation.ablate(spec(seeds=(0, 1)), tmp_path, amend="  ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workdir": 3}, "workdir=3: expected the path of a folder"),
        ({"workers": 1.5}, r"workers=1\.5: expected an integer, 1 or more"),
        ({"resources": ["a"]}, r"resources=\['a'\]: expected {name: value}"),
        (
            {"resources": {"gpus_per_node": 1}},
            "resources are of launchers: expected executor local",
        ),
    ],
)
def test_arguments_of_another_type(spec, tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        ablation.ablate(spec(), **{"workdir": tmp_path / "run", **given})
    assert not (tmp_path / "run").exists()


def test_one_who_may_not_write_may_look(spec, quick, tmp_path, monkeypatch):
    ablation.run(spec(seeds=(0,)), tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert {row["state"] for row in ablation.look_ahead(spec(seeds=(0,)), tmp_path).cells} == {
        "test read"
    }
    with pytest.raises(InputError, match="cannot be written"):
        ablation.run(spec(seeds=(0,)), tmp_path)


def test_what_a_run_in_python_prints(spec, quick, tmp_path, capsys):
    ablation.ablate(spec(), tmp_path / "run")
    assert capsys.readouterr() == ("", "")
    ablation.ablate(spec(), tmp_path / "run", progress=True)
    assert "Best on validation" in capsys.readouterr().out


def test_an_interrupt_in_python_is_a_request_to_stop(spec, quick, tmp_path, monkeypatch):
    def interrupted(*given, **options):
        signal.raise_signal(signal.SIGINT)
        return quick(*given, **options)

    monkeypatch.setattr(training, "run", interrupted)
    with pytest.raises(Stopped):
        ablation.ablate(spec(fields={"cache__boundary": ""}), tmp_path / "run")
    assert len(list(tmp_path.glob("run/cells/*/*/*/*/sealed.json"))) == 1


def test_a_config_with_methods_is_a_spec_and_a_number_is_none(spec, quick, tmp_path):
    base = spec().base
    base.compare.methods = {"slow": ("optim.learning_rate=0.01",), "fast": ()}
    base.compare.seeds, base.compare.baseline = (0,), "fast"
    content = ablation.ablate(base, tmp_path / "run")
    assert {row["variant"] for row in content["test"]} == {"slow", "fast"}
    with pytest.raises(InputError, match=r"^spec is a int: expected an ablation\.Spec, the path"):
        ablation.ablate(3, tmp_path / "run")


def test_a_plan_says_what_is_to_be_run(whole):
    made, workdir, _ = whole
    assert [row["state"] for row in ablation.look_ahead(made).cells] == ["to be run"] * 8
    states = [row["state"] for row in ablation.look_ahead(made, workdir).cells]
    assert sorted(states) == ["test read"] * 4 + ["trained"] * 4


def test_a_sealed_test_split_is_not_evaluated(whole, tmp_path):
    _, workdir, _ = whole
    sealed = [path.parent for path in workdir.glob("cells/*/*/*/*/sealed.json")]
    closed = next(path for path in sealed if not (path / "result.json").exists())
    with pytest.raises(
        InputError, match=r"\(test of digits\) is sealed: .* expected experiments\.ablate"
    ):
        evaluate.evaluate_run(closed, None, tmp_path / "early")
    assert not (tmp_path / "early").exists()
    evaluate.evaluate_run(closed, None, tmp_path / "other", ["data.test_split=train[:20]"])
    read = next(path for path in sealed if (path / "result.json").exists())
    result = evaluate.evaluate_run(read, None, tmp_path / "after")
    expected = json.loads((read / "result.json").read_text())["splits"]["test"]["top1_accuracy"]
    assert result["splits"]["test"]["top1_accuracy"] == expected
