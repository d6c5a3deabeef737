"""Several runs as one table on a terminal, and as lines elsewhere."""

import io
import re

import pytest

from tl_jax import console
from tl_jax.reporting import RunTable
from tl_jax.training.loops import Stopped

METHODS, SEEDS = ["probe", "tuned"], [0, 7]


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


def result(accuracy, steps=20):
    splits = {} if accuracy is None else {"validation": {"top1_accuracy": accuracy}}
    return {"steps": steps, "splits": splits}


def train(table, clock, method, seed, accuracy, seconds=4.0):
    """Shows a run of 20 updates that is logged every five."""
    with table.run(method, seed, 20) as run:
        for step in (5, 10, 15, 20):
            clock.seconds += seconds / 4
            run.logged(step, "train", {"loss": 1.0})
        run.finished(result(accuracy))


def frames(stream):
    """Returns what a terminal shows, one after the other, without control sequences."""
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue())
    return ["digits: " + frame for frame in plain.split("digits: ")[1:]]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_elsewhere_a_run_is_a_line():
    stream, clock = io.StringIO(), Clock()
    with RunTable("digits", METHODS, SEEDS, stream=stream, clock=clock) as table:
        train(table, clock, "probe", 0, 0.5)
        train(table, clock, "tuned", 0, None, seconds=70.0)
        with table.run("probe", 7) as run:
            run.finished(result(0.25, 1000))
    assert stream.getvalue().splitlines() == [
        "1/4  probe, seed 0: validation top-1 50.00%, 20 steps, 4.0 s",
        # One in ten seconds at most.
        "2/4  tuned, seed 0: step 5/20",
        "2/4  tuned, seed 0: step 10/20",
        "2/4  tuned, seed 0: step 15/20",
        "2/4  tuned, seed 0: step 20/20",
        "2/4  tuned, seed 0: done, 20 steps, 1:10 min",
        "3/4  probe, seed 7: validation top-1 25.00%, 1,000 steps, finished before",
    ]


def test_a_run_without_updates_was_made_now():
    """Its metrics are of step 0."""
    stream, clock = io.StringIO(), Clock()
    table = RunTable("digits", ["ridge"], [0], stream=stream, clock=clock)
    with table, table.run("ridge", 0) as run:
        clock.seconds += 2.0
        run.logged(0, "validation", {"top1_accuracy": 0.5})
        run.finished(result(0.5, 0))
    line = "1/1  ridge, seed 0: validation top-1 50.00%, no updates, 2.0 s"
    assert stream.getvalue().splitlines() == [line]


def test_lines_are_ten_seconds_apart():
    stream, clock = io.StringIO(), Clock()
    table = RunTable("digits", ["tuned"], [0], stream=stream, clock=clock)
    with table, table.run("tuned", 0) as run:
        for step in range(1, 31):
            clock.seconds += 1.0
            run.logged(step, "validation", {"top1_accuracy": step / 100})
        run.finished(result(0.3, 30))
    assert stream.getvalue().splitlines() == [
        "1/1  tuned, seed 0: step 10, validation top-1 10.00%",
        "1/1  tuned, seed 0: step 20, validation top-1 20.00%",
        "1/1  tuned, seed 0: step 30, validation top-1 30.00%",
        "1/1  tuned, seed 0: validation top-1 30.00%, 30 steps, 30.0 s",
    ]


def test_a_terminal_gets_one_table_that_changes(terminal):
    clock = Clock()
    with RunTable("digits", METHODS, SEEDS, stream=terminal, clock=clock) as table:
        train(table, clock, "probe", 0, 0.5)
        train(table, clock, "tuned", 0, 0.75, seconds=62.0)
        with table.run("probe", 7, 20) as run:
            run.logged(10, "validation", {"top1_accuracy": 0.625})
            table._live.refresh()
            run.finished(result(0.25))
    first, *_, before_last, last = frames(terminal)
    lines = [" ".join(line.split()) for line in last.splitlines()]
    assert "seed 0 7 mean time" in lines
    assert "probe 50.0 25.0 37.5 4.0 s" in lines
    assert "tuned 75.0 · 75.0 1:02 min" in lines
    assert lines[-1] == "3 of 4 runs done in 1:06 min"
    assert "0 of 4 runs done in 0.0 s" in first and "probe · ·" in " ".join(first.split())
    assert "probe 50.0 ▸ 50.0" in " ".join(before_last.split())
    assert "; probe, seed 7: step 10/20, validation top-1 62.50%" in before_last
    # Every line is written over: each frame goes up by what the one before took.
    assert terminal.getvalue().count("\x1b[1A") == (len(frames(terminal)) - 1) * (
        len(first.rstrip("\r\n").splitlines()) - 1
    )


def test_a_title_wider_than_the_terminal_is_one_line(terminal):
    with RunTable("digits: " + 30 * "wide ", ["probe"], [0], stream=terminal):
        pass
    lines = frames(terminal)[-1].splitlines()
    assert lines[0].startswith("digits: wide wide") and lines[0].endswith("…")
    assert all(len(line) <= 80 for line in lines)


def test_time_is_shared_by_runs_that_are_made_at_once():
    """Alone for 2 s, two at once for 6 s, the other alone for 4 s; one that is made elsewhere has no share."""
    stream, clock = io.StringIO(), Clock()
    with RunTable("digits", METHODS, SEEDS, stream=stream, clock=clock) as table:
        table.elsewhere("tuned", 7)
        with table.run("probe", 0) as other:
            clock.seconds += 2.0
            with table.run("probe", 7) as one:
                clock.seconds += 6.0
                one.finished(result(0.25))
                one.was_there = False
            clock.seconds += 4.0
            other.finished(result(0.5))
            other.was_there = False
        assert (one.seconds, other.seconds) == (3.0, 9.0)
        # Between runs, nobody's.
        clock.seconds += 5.0
        with pytest.raises(ValueError), table.run("tuned", 0) as last:
            clock.seconds += 1.0
            raise ValueError
        assert last.seconds == 1.0


def test_a_run_that_stops_is_not_done(terminal):
    clock = Clock()
    with (
        pytest.raises(Stopped),
        RunTable("digits", METHODS, SEEDS, stream=terminal, clock=clock) as table,
        table.run("probe", 0, 20) as run,
    ):
        run.logged(5, "train", {"loss": 1.0})
        raise Stopped(5)
    last = frames(terminal)[-1]
    assert "0 of 4 runs done in 0.0 s; probe, seed 0: step 5/20" in last
    assert terminal.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_a_run_that_fails_is_marked_and_the_others_go_on(terminal):
    clock = Clock()
    with RunTable("digits", METHODS, SEEDS, stream=terminal, clock=clock) as table:
        with pytest.raises(ValueError), table.run("probe", 0, 20):
            raise ValueError
        train(table, clock, "tuned", 0, 0.75)
    last = " ".join(frames(terminal)[-1].split())
    assert "probe ✗ · tuned 75.0 ·" in last
    assert last.endswith("1 of 4 runs done in 4.0 s, 1 failed")


def test_runs_that_were_done_before_and_several_at_once(terminal):
    clock = Clock()
    with RunTable("digits", METHODS, SEEDS, stream=terminal, clock=clock) as table:
        table.ended("probe", 0, result(0.5), before=True)
        table.ended("probe", 7, None, before=True)
        with table.run("tuned", 0, 20) as one, table.run("tuned", 7, 20) as other:
            one.logged(5, "train", {"loss": 1.0})
            other.logged(10, "train", {"loss": 1.0})
            table.pace("trained: 1 of 4 cells", "about 9.0 s left")
            table.say("a line above")
            table._live.refresh()
            one.finished(result(0.25))
    shown = " ".join(frames(terminal)[-2].split())
    assert "probe 50.0 ✗ 50.0 0.0 s tuned ▸ ▸" in shown
    assert "1 of 4 runs done in 0.0 s, 1 failed; 2 at once: step 10/20; about 9.0 s left" in shown
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.getvalue())
    assert plain.count("a line above") == 1


def test_lines_of_several_runs_at_once_are_counted_as_they_end(capsys):
    stream, clock = io.StringIO(), Clock()
    with RunTable("digits", METHODS, SEEDS, stream=stream, clock=clock) as table:
        table.ended("probe", 0, result(0.5), before=True)
        with table.run("tuned", 0, 20) as one:
            with table.run("tuned", 7, 20) as other:
                clock.seconds += 11.0
                one.logged(5, "train", {"loss": 1.0})
                other.finished(result(0.5))
            one.finished(result(0.25))
        table.pace("trained: 3 of 4 cells", "about 9.0 s left")
        table.pace("trained: 4 of 4 cells", "")
        table.say("a line")
    assert [line.partition(":")[0] for line in stream.getvalue().splitlines()] == [
        "2/4  tuned, seed 0",
        "2/4  tuned, seed 7",
        "3/4  tuned, seed 0",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "trained: 3 of 4 cells, about 9.0 s left",
        "trained: 4 of 4 cells",
        "a line",
    ]


def test_a_table_that_is_higher_than_the_terminal_is_lines(terminal, monkeypatch):
    monkeypatch.setenv("LINES", "12")
    clock = Clock()
    for methods, whole in ((METHODS, True), ([f"method{row}" for row in range(8)], False)):
        before = len(terminal.getvalue())
        table = RunTable("digits", methods, SEEDS, stream=terminal, clock=clock)
        with table, table.run(methods[0], 0, 20) as run:
            run.finished(result(0.5))
        assert ("runs done in" in terminal.getvalue()[before:]) == whole
    assert "1/16  method0, seed 0: validation top-1 50.00%" in terminal.getvalue()


@pytest.mark.parametrize("level", ["silent", "verbose"])
def test_nothing_is_shown_where_runs_speak_for_themselves_or_nobody_does(terminal, level):
    clock = Clock()
    with (
        console.verbosity(level),
        RunTable("d", METHODS, SEEDS, stream=terminal, clock=clock) as table,
    ):
        train(table, clock, "probe", 0, 0.5, seconds=100.0)
    assert terminal.getvalue() == ""


def test_columns_may_be_folds():
    stream, clock = io.StringIO(), Clock()
    with RunTable("digits", ["fold"], [1, 2], column="fold", stream=stream, clock=clock) as table:
        train(table, clock, "fold", 1, 0.5)
    assert stream.getvalue().splitlines()[0].startswith("1/2  fold 1: validation top-1 50.00%")
