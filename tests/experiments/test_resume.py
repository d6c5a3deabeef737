"""A run that is killed or stopped and started again ends with the bits of one that never was."""

import json
import random
import re
import signal
import time

import pytest
from running import (
    arguments,
    assert_same_bits,
    metric_lines,
    tree_of,
    wait_for_steps,
)

STEPS = 20
COMMAND = [
    "--config=configs/quickstart.py",
    *arguments(
        init__weights="",
        train__steps=STEPS,
        train__log_every_steps=1,
        train__eval_every_steps=5,
        train__checkpoint_every_steps=2,
        data__train_split="train",
        data__test_split="test",
        data__validation_fraction=0.05,
        data__batch_size=20,
        data__image_size=8,
        data__eval_batch_size=256,
        report__html="false",
        report__tensorboard="false",
    ),
]


@pytest.fixture(scope="module")
def uninterrupted(launcher, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    code, out, err = launcher.run("finetune", *COMMAND, f"--workdir={workdir}")
    assert code == 0, err
    assert f"{workdir}: validation top-1" in out
    return workdir


def assert_same_lines(run, expected):
    lines = metric_lines(run)
    assert [(line["step"], line["split"]) for line in lines] == [
        (step, split)
        for step in range(1, STEPS + 1)
        for split in (["train", "validation"] if step % 5 == 0 else ["train"])
    ]
    assert lines == metric_lines(expected)


def test_killed_three_times(launcher, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    chance = random.Random(20)
    for after in sorted(chance.sample(range(1, 15), 3)):
        command = launcher.start("finetune", *COMMAND, f"--workdir={workdir}")
        wait_for_steps(workdir, after, command)
        time.sleep(chance.uniform(0, 0.05))
        command.signal(signal.SIGKILL)
        code, _, err = command.wait()
        assert code == -signal.SIGKILL, (after, err)
        assert not (workdir / "result.json").exists()
    code, _, err = launcher.run("finetune", *COMMAND, f"--workdir={workdir}")
    assert code == 0, err
    assert_same_lines(workdir, uninterrupted)
    assert_same_bits(workdir, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_on_request(launcher, uninterrupted, tmp_path, number):
    workdir = tmp_path / "run"
    command = launcher.start("finetune", *COMMAND, f"--workdir={workdir}")
    wait_for_steps(workdir, 3, command)
    command.signal(number)
    code, _, err = command.wait()
    assert code == 75, err
    stopped = re.search(r"stopped on request at step (\d+); run the same command again", err)
    assert stopped, err
    assert "Traceback" not in err
    assert (workdir / "checkpoints" / stopped[1]).is_dir()
    assert metric_lines(workdir)[-1]["step"] == int(stopped[1]) < STEPS
    code, _, err = launcher.run("finetune", *COMMAND, f"--workdir={workdir}")
    assert code == 0, err
    assert_same_lines(workdir, uninterrupted)
    assert_same_bits(workdir, uninterrupted)


def test_a_second_process_on_the_same_workdir(launcher, tmp_path):
    workdir = tmp_path / "run"
    first = launcher.start("finetune", *COMMAND, f"--workdir={workdir}")
    wait_for_steps(workdir, 1, first)
    first.signal(signal.SIGSTOP)
    before = tree_of(workdir)
    code, _, err = launcher.run("finetune", *COMMAND, f"--workdir={workdir}")
    assert code == 2, err
    assert f"{workdir} is in use by process {first.pid} on " in err
    assert "Traceback" not in err
    assert tree_of(workdir) == before


def test_a_finished_run_says_so_and_does_nothing(launcher, uninterrupted):
    before = tree_of(uninterrupted)
    code, out, err = launcher.run("finetune", *COMMAND, f"--workdir={uninterrupted}")
    assert (code, err) == (0, "")
    assert f"{uninterrupted} is finished: validation top-1" in out
    assert tree_of(uninterrupted) == before


def test_evaluate_gives_the_test_metrics_of_the_run(launcher, uninterrupted, tmp_path):
    again = tmp_path / "again"
    code, _, err = launcher.run("evaluate", f"--checkpoint={uninterrupted}", f"--workdir={again}")
    assert code == 0, err
    given, wanted = (json.loads((f / "result.json").read_text()) for f in (again, uninterrupted))
    assert given["splits"] == {"test": wanted["splits"]["test"]}
    assert given["preprocessing"] == wanted["preprocessing"]
    assert given["deviations"] == []
