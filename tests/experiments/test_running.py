"""The launcher of commands: nothing that hangs, ends early or is left behind goes unnoticed."""

import os
import signal
import time

import pytest
import running
from running import Launcher, arguments, wait_for_steps

ENDLESS = ["--config=configs/quickstart.py", *arguments(init__weights="", train__steps=100000)]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_command_that_hangs_is_killed_and_its_output_shown(launcher, tmp_path, monkeypatch):
    command = launcher.start("finetune", *ENDLESS, f"--workdir={tmp_path / 'run'}")
    command.signal(signal.SIGSTOP)
    monkeypatch.setattr(running, "SECONDS", 0.2)
    with pytest.raises(AssertionError, match=r"killed after 0\.2 s:\n-- output of process"):
        command.wait()
    monkeypatch.undo()
    assert command.wait()[0] == -signal.SIGKILL
    assert not is_alive(command.pid)


def test_waiting_for_a_command_that_has_ended_shows_its_output(launcher, tmp_path):
    command = launcher.start("finetune", "--config=nowhere.py", f"--workdir={tmp_path / 'run'}")
    with pytest.raises(AssertionError, match=r"(?s)a command has ended.*nowhere\.py"):
        wait_for_steps(tmp_path / "run", 1, command)
    assert command.wait()[0] == 2


def test_commands_end_with_the_launcher(tmp_path):
    with Launcher(tmp_path) as launcher:
        commands = [
            launcher.start("finetune", *ENDLESS, f"--workdir={tmp_path / str(number)}")
            for number in range(2)
        ]
        commands[0].signal(signal.SIGSTOP)
        assert all(is_alive(command.pid) for command in commands)
    deadline = time.monotonic() + 10
    while any(is_alive(command.pid) for command in commands):
        assert time.monotonic() < deadline
