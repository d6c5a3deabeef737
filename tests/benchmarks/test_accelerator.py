"""`benchmarks.accelerator` leaves a valid file whatever becomes of its processes; no framework is imported here."""

import dataclasses
import io
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import pytest

from benchmarks.accelerator import __main__ as command
from benchmarks.accelerator import child, children, curves, parent, peaks, stages, timed
from benchmarks.accelerator.children import Child, Children
from benchmarks.accelerator.rows import Ask, Asked, Side, Timed
from benchmarks.accelerator.stage_file import StageFile, as_json, identity

CHILD = pathlib.Path(__file__).parent / "accelerator_child.py"
REPOSITORY = CHILD.parents[2]
FACTS = {"code": "a", "device": {"kind": "NVIDIA H100"}, "versions": {"jax": "1"}}


def start(name):
    return Child(name, [sys.executable, str(CHILD), name])


@pytest.fixture
def started():
    with Children(start) as running:
        yield running


def row(name="row", **behaviours):
    """Returns a row of the sides "jax" and "torch_eager", which behave as said."""
    sides = {
        side: Side(side, {"behaviour": behaviours.get(side, "")}) for side in ("jax", "torch_eager")
    }
    return Timed(name, 0.1, sides, {"precision": "bfloat16"}, 2, 0.01, 0.01)


def asked(name, seconds=0.1, /, **arguments):
    return Asked(name, seconds, {"run": Ask("jax", "answer", arguments)})


def read(path):
    """Returns what a file holds, which must be JSON as everybody reads it."""
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def measure(rows, path, started, seconds=60.0, facts=FACTS, **options):
    """Returns the file of a call that measures these rows."""
    until = time.monotonic() + seconds
    parent.measure(rows, StageFile(path, facts), started, until, **options)
    return read(path)


def test_figures_of_both_sides(started, tmp_path):
    found = measure([row()], tmp_path / "rows.json", started)["rows"]["row"]
    assert found["status"] == "measured"
    ours, theirs = found["sides"]["jax"], found["sides"]["torch_eager"]
    # A hundred images in half a second, and in one.
    assert ours["images_per_second"] == pytest.approx(200)
    assert ours["images_per_second_interval"] == pytest.approx([200, 200])
    assert theirs["images_per_second"] == pytest.approx(100)
    assert found["speed_of_first"] == {"torch_eager": {"mean": 2.0, "interval": [2.0, 2.0]}}
    # 1e12 operations an image, which the other side does not count, of 989e12 a second.
    assert ours["share_of_peak"] == pytest.approx(200 / 989)
    assert theirs["share_of_peak"] == pytest.approx(100 / 989)
    assert found["agreement"]["torch_eager"]["agrees"]


def test_a_killed_process_is_recorded_and_the_next_row_gets_another(started, tmp_path):
    path = tmp_path / "rows.json"
    found = measure([row("one", jax="killed"), row("two")], path, started)["rows"]
    assert found["one"]["status"] == "incomplete"
    assert found["one"]["sides"]["jax"]["signal"] == "SIGKILL"
    assert "ended by SIGKILL during 'prepare'" in found["one"]["sides"]["jax"]["error"]
    # The other side is measured all the same.
    assert found["one"]["sides"]["torch_eager"]["images_per_second"] == pytest.approx(100)
    assert found["two"]["status"] == "measured"


def test_a_process_killed_in_its_turn_leaves_the_other_side(started, tmp_path):
    found = measure([row(torch_eager="killed_in_turn")], tmp_path / "rows.json", started)
    sides = found["rows"]["row"]["sides"]
    assert sides["torch_eager"]["signal"] == "SIGKILL"
    assert sides["jax"]["images_per_second"] == pytest.approx(200)
    assert found["rows"]["row"]["speed_of_first"] == {}


def test_a_command_that_fails_is_recorded_with_what_was_written_last(started, tmp_path):
    found = measure([row("one", jax="failed"), row("two")], tmp_path / "rows.json", started)["rows"]
    side = found["one"]["sides"]["jax"]
    assert side["error"] == "MemoryError: out of memory"
    assert side["signal"] is None
    assert "~/somewhere says it first" in side["last_lines"]
    assert any("MemoryError" in line for line in side["last_lines"])
    # What failed holds memory, perhaps: the next row is measured by another process.
    assert found["two"]["status"] == "measured"


def test_the_row_after_a_failure_gets_a_new_process(started, tmp_path):
    rows = [asked("before"), asked("fails", value="failed"), asked("after")]
    found = measure(rows, tmp_path / "rows.json", started)["rows"]
    pids = [found[name]["answers"]["run"]["pid"] for name in ("before", "after")]
    assert pids[0] != pids[1]


def test_an_answer_that_makes_no_sense_fails_its_row_alone(started, tmp_path):
    side = {"jax": Side("jax", {"images": 0})}
    rows = [Timed("one", 0.1, side, {}, 2, 0.01, 0.01), asked("two")]
    found = measure(rows, tmp_path / "rows.json", started)["rows"]
    assert (found["one"]["status"], found["two"]["status"]) == ("failed", "measured")
    assert "ZeroDivisionError" in found["one"]["error"]


def test_both_sides_failed(started, tmp_path):
    found = measure([row(jax="failed", torch_eager="killed")], tmp_path / "rows.json", started)
    assert found["rows"]["row"]["status"] == "failed"


def test_a_process_that_says_something_else_is_ended(started, tmp_path):
    found = measure([row(jax="talks")], tmp_path / "rows.json", started)
    assert "'no JSON\\n', which is no JSON" in found["rows"]["row"]["sides"]["jax"]["error"]


def test_sides_of_one_process_fail_together_where_it_ends(started):
    sides = {name: Side("jax", {"behaviour": of}) for name, of in (("a", ""), ("b", "killed"))}
    case = Timed("row", 0.1, sides, {}, 2, 0.01, 0.01)
    found = timed.run(case, started, time.monotonic() + 60, None)
    assert [of["signal"] for of in found["sides"].values()] == ["SIGKILL", "SIGKILL"]


def test_a_side_that_refuses_leaves_the_other_of_its_process(started):
    sides = {name: Side("jax", {"behaviour": of}) for name, of in (("a", ""), ("b", "failed"))}
    case = Timed("row", 0.1, sides, {}, 2, 0.01, 0.01)
    found = timed.run(case, started, time.monotonic() + 60, None)["sides"]
    assert found["a"]["images_per_second"] and "error" in found["b"]


def test_disagreement_is_recorded_and_measured_all_the_same(started, tmp_path):
    found = measure([row(torch_eager="disagrees")], tmp_path / "rows.json", started)["rows"]["row"]
    assert found["status"] == "measured"
    assert found["agreement"] == {
        "torch_eager": {"error": 0.25, "tolerance": 0.01, "agrees": False}
    }
    assert found["sides"]["torch_eager"]["images_per_second"] == pytest.approx(100)


def test_what_is_no_number_disagrees_and_leaves_a_valid_file(started, tmp_path):
    found = measure([row(jax="not_a_number")], tmp_path / "rows.json", started)["rows"]["row"]
    assert found["agreement"]["torch_eager"]["agrees"] is False
    assert found["agreement"]["torch_eager"]["error"] == "nan"
    assert as_json({1: [math.inf, (2.0,)]}) == {"1": ["inf", [2.0]]}


def test_rows_are_written_one_after_the_other(started, tmp_path):
    path = tmp_path / "rows.json"
    seen = []

    class Watched(StageFile):
        def write(self):
            super().write()
            seen.append((sorted(read(path)["rows"]), sorted(read(path)["not_run"])))

    rows = [asked("a"), asked("b")]
    parent.measure(rows, Watched(path, FACTS), started, time.monotonic() + 60)
    assert seen == [([], ["a", "b"]), (["a"], ["b"]), (["a", "b"], [])]


def test_a_row_is_not_begun_where_the_budget_is_too_small_for_it(started, tmp_path):
    path = tmp_path / "rows.json"
    rows = [asked("long", 100), asked("short")]
    found = measure(rows, path, started, seconds=20)
    assert list(found["rows"]) == ["short"]
    assert list(found["not_run"]) == ["long"]
    assert "about 100 s are needed" in found["not_run"]["long"]
    # With more, it goes on; what was measured is left as it is.
    again = measure(rows, path, started, seconds=200)
    assert again["rows"]["long"]["status"] == "measured" and not again["not_run"]
    assert again["rows"]["short"] == found["rows"]["short"]


def test_a_row_that_the_budget_ends_is_not_run(started, tmp_path):
    path = tmp_path / "rows.json"
    found = measure([asked("a", wait=60), asked("b")], path, started, seconds=1.5)
    assert found["not_run"]["a"] == "the budget ended while it was measured"
    assert "no answer to 'answer' within" in found["rows"]["a"]["answers"]["run"]["error"]
    assert "0 s of the budget were left" in found["not_run"]["b"]


def test_a_hung_row_is_given_up_for_those_after_it(started, tmp_path, monkeypatch):
    monkeypatch.setattr(parent, "_AT_LEAST", 1.0)
    rows = [row("hung", jax="hung"), asked("after")]
    found = measure(rows, tmp_path / "rows.json", started)["rows"]
    assert "its process was ended" in found["hung"]["sides"]["jax"]["error"]
    assert found["after"]["status"] == "measured"


def test_what_was_measured_is_repeated_where_it_would_be_another_number(started, tmp_path):
    path = tmp_path / "rows.json"
    first = measure([asked("a")], path, started)["rows"]["a"]
    assert measure([asked("a")], path, started)["rows"]["a"] == first
    changes = [
        {"code": "b"},
        {"device": {"kind": "NVIDIA H200"}},
        {"versions": {"jax": "2"}},
    ]
    for change in changes:
        now = measure([asked("a")], path, started, facts=FACTS | change)["rows"]["a"]
        assert now["identity"] != first["identity"]
        measure([asked("a")], path, started)
    assert (
        measure([asked("a", value=2)], path, started)["rows"]["a"]["answers"]["run"]["value"] == 2
    )
    repeated = measure([asked("a", value=2)], path, started, repeat=True)["rows"]["a"]
    assert repeated["seconds"] != first["seconds"]
    assert identity(asked("a"), FACTS | {"date": "today"}) == first["identity"]


def test_what_failed_comes_last(started, tmp_path, capsys):
    path = tmp_path / "rows.json"
    measure([asked("fails", value="failed")], path, started)
    capsys.readouterr()
    found = measure([asked("fails"), asked("new")], path, started)["rows"]
    assert capsys.readouterr().err.splitlines() == ["new ...", "fails ..."]
    assert found["fails"]["status"] == "measured"


def test_commands_after_one_that_failed_are_not_given(started, tmp_path):
    asks = {
        "first": Ask("jax", "answer", {"value": "failed"}),
        "second": Ask("jax", "answer"),
    }
    found = measure([Asked("row", 0.1, asks)], tmp_path / "rows.json", started)["rows"]["row"]
    assert list(found["answers"]) == ["first"] and found["status"] == "failed"


def test_a_command_may_have_an_argument_called_name(started, tmp_path):
    found = measure([asked("a", name="resnet20")], tmp_path / "rows.json", started)["rows"]["a"]
    assert found["status"] == "measured"


def test_a_process_says_why_it_has_nothing_to_measure(started, tmp_path):
    found = measure([asked("a", not_run="no option sets")], tmp_path / "rows.json", started)
    assert found["not_run"] == {"a": "no option sets"}
    assert found["rows"]["a"]["status"] == "not run"


def test_a_fresh_process_is_timed_from_its_start(started):
    asks = {
        "one": Ask("jax", "answer"),
        "two": Ask("jax", "answer", {"wait": 0.3}, fresh=True),
        "three": Ask("jax", "answer"),
    }
    found = parent.measure_row(Asked("row", 1.0, asks), started, time.monotonic() + 60, FACTS)
    one, two, three = found["answers"].values()
    assert one["pid"] != two["pid"] == three["pid"]
    assert two["process_seconds"] > 0.3 and "process_seconds" not in three


def test_processes_end_with_their_parent(tmp_path):
    with Children(start) as running:
        pid = running.ask("jax", "answer", time.monotonic() + 60)["pid"]
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_unreadable_file_is_set_aside(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"rows": {')
    assert StageFile(path, FACTS).rows == {}
    assert (tmp_path / "rows.json.unreadable").exists()


def test_an_exhausted_budget_leaves_every_stage_with_its_rows(tmp_path):
    """And starts nothing."""
    nothing = lambda scratch, share: pytest.fail
    settings = stages.Settings(size="full", only="jax")
    parent.run(stages.NAMES, settings, tmp_path, 0.0, starter=nothing)
    for name in stages.NAMES:
        found = read(tmp_path / f"{name}.json")
        assert found["rows"] == {} and found["stage"] == name
        assert list(found["not_run"]) == [row.name for row in stages.rows(name, settings, {})]
        assert all("0 s of the budget were left" in reason for reason in found["not_run"].values())


def test_a_call_without_time_keeps_what_is_there(tmp_path):
    settings = stages.Settings(size="tiny", only="jax")
    parent.run(["resnet50"], settings, tmp_path, 60.0, starter=lambda *_: start)
    before = read(tmp_path / "resnet50.json")
    assert before["device"]["kind"] == "NVIDIA H100"
    parent.run(["resnet50"], settings, tmp_path, 0.0, starter=lambda *_: pytest.fail)
    after = read(tmp_path / "resnet50.json")
    assert after["rows"] == before["rows"] and after["device"] == before["device"]
    assert not after["not_run"]


def test_a_process_that_cannot_say_what_it_is(tmp_path):
    broken = lambda name: Child(name, [sys.executable, "-c", "raise SystemExit(3)"])
    settings = stages.Settings(size="tiny", only="jax")
    parent.run(["resnet50"], settings, tmp_path, 60.0, starter=lambda *_: broken)
    found = read(tmp_path / "resnet50.json")
    assert "ended with exit code 3" in found["failure"]["error"]
    assert {row["status"] for row in found["rows"].values()} == {"failed"}


def test_the_parent_imports_neither_framework(tmp_path):
    """In a process of its own, rows measured and files written."""
    code = f"""
import sys
from benchmarks.accelerator import __main__, parent, stages
from benchmarks.accelerator.children import Child
start = lambda name: Child(name, [sys.executable, {str(CHILD)!r}, name])
out = __import__("pathlib").Path({str(tmp_path)!r})
parent.run(["resnet50"], stages.Settings(size="tiny"), out, 60.0, starter=lambda *_: start)
assert __main__.main(["--budget=0", "--size=tiny", f"--out={{out / 'all'}}", "--allow_dirty"]) == 0
print(sorted({{"jax", "jaxlib", "flax", "torch", "tensorflow"}} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert read(tmp_path / "resnet50.json")["rows"]
    assert len(list((tmp_path / "all").iterdir())) == len(stages.NAMES)


def test_each_process_has_its_share_of_the_memory_and_pytorch_keeps_jax_off_the_accelerator(
    monkeypatch,
):
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.75")
    ours = children.environment("jax", 0.3)
    assert ours["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.300"
    assert "XLA_CLIENT_MEM_FRACTION" not in ours
    assert children.environment("torch_eager", 0.3)["JAX_PLATFORMS"] == "cpu"


def test_an_answer_for_every_request():
    answers = io.StringIO()
    commands = {"half": lambda number: 1 / number}
    requests = [json.dumps({"command": "half", "number": number}) for number in (2, 0, 4)]
    child.serve(commands, requests, answers)
    first, second, third = map(json.loads, answers.getvalue().splitlines())
    assert (first, third) == ({"result": 0.5}, {"result": 0.25})
    assert second == {"error": "ZeroDivisionError: division by zero"}


@pytest.mark.parametrize("size", stages.SIZES)
@pytest.mark.parametrize("only", ["", "jax"])
def test_rows_have_names_of_their_own_and_can_be_written(size, only):
    settings = stages.Settings(size=size, only=only)
    described = {"option_sets": {"sets": {"fast": {"xla_option": True}}}}
    for name in stages.NAMES:
        rows = stages.rows(name, settings, described)
        names = [row.name for row in rows]
        assert names and len(set(names)) == len(names)
        for made in rows:
            json.dumps(dataclasses.asdict(made))
            parts = made.sides if isinstance(made, Timed) else made.asks
            assert {part.child for part in parts.values()} <= set(settings.children)
    made = stages.rows("networks", settings, described)[-1]
    assert made.sides["jax_fast"].settings == {"compiler_options": {"xla_option": True}}


def test_without_pytorch_the_rows_are_those_of_jax():
    settings = stages.Settings().without_torch("not installed: torch")
    assert settings.children == ("jax",)
    assert settings.why_no_torch == "not installed: torch"
    assert stages.Settings().without_torch("").children == children.NAMES


def test_outputs_are_compared_with_the_first_side_by_its_largest():
    found = timed.agreement({"a": [1.0, -4.0], "b": [1.0, -4.2], "c": [1.0]}, 0.01)
    assert found["b"]["error"] == pytest.approx(0.05) and not found["b"]["agrees"]
    assert math.isnan(found["c"]["error"]) and not found["c"]["agrees"]


def test_speeds_are_image_for_image():
    """A step of two updates takes as long as two of one."""
    turns = {"one": [{"seconds": 1.0}] * 2, "two": [{"seconds": 2.0}] * 2}
    found = timed.speeds(turns, {"one": 10, "two": 20})
    assert found["two"]["mean"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kind", "precision", "rate"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H200", "float32", 494e12),
        ("NVIDIA H200", "highest", None),
        ("cpu", "bfloat16", None),
        (None, "bfloat16", None),
    ],
)
def test_peaks(kind, precision, rate):
    assert peaks.peak(kind, precision) == rate


def test_time_to_what_both_reach():
    slow = [{"accuracy": a, "seconds_from_start": s} for a, s in ((0.5, 1), (0.8, 2), (0.9, 3))]
    fast = [{"accuracy": a, "seconds_from_start": s} for a, s in ((0.7, 5), (0.8, 6))]
    both = {"slow": slow, "fast": fast}
    assert curves.compared(both) == {"accuracy": 0.8, "reached": {"slow": slow[1], "fast": fast[1]}}
    assert curves.compared(both, 0.85)["reached"] == {"slow": slow[2], "fast": None}
    assert curves.compared({}) == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--stage=6"], "expected all, 1 to 5, or one of checks"),
        (["--stage=chekcs"], "expected all, 1 to 5, or one of checks"),
        (["--budget=-1"], "--budget=-1.0: expected seconds, from 0"),
        (["--budget=nan"], "--budget=nan: expected seconds"),
        (["--epochs=-3"], "--epochs=-3: expected a number from 1"),
        (["--target=7"], "--target=7.0: expected an accuracy from 0 to 1"),
        (["--data=folder:nowhere"], "--data=folder:nowhere: there is no nowhere"),
        (["--out=setup.py"], "--out=setup.py: this is a file"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parent, "run", None)
    with pytest.raises(SystemExit) as stopped:
        command.main([f"--out={tmp_path}", "--allow_dirty", *arguments])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_stage_by_its_number(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(parent, "run", lambda *given, **_: seen.append(given))
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    for stage in ("2", "resnet50", "all"):
        assert command.main([f"--stage={stage}", f"--out={tmp_path}", "--allow_dirty"]) == 0
    assert [given[0] for given in seen] == [("resnet50",), ("resnet50",), stages.NAMES]
    assert seen[0][3] == 540.0


def test_a_dirty_tree_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.record, "changed_files", lambda: ["code.py"])
    with pytest.raises(SystemExit):
        command.main([f"--out={tmp_path}"])
    assert "the tree is not clean (code.py)" in capsys.readouterr().err
