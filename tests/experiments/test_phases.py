"""LP-FT from the command line: killed in each of its phases, it ends with the bits of a run that never was."""

import json
import signal

import pytest
from running import arguments, assert_same_bits, metric_lines, wait_for_steps

from tl_jax.config import lp_ft

PHASES = lp_ft(("train.steps=8",), ("train.steps=12", "optim.learning_rate=0.01"))
COMMAND = [
    "--config=configs/quickstart.py",
    f"--config.phases={PHASES}",
    *arguments(
        init__weights="",
        train__log_every_steps=1,
        train__eval_every_steps=5,
        train__checkpoint_every_steps=2,
        train__updates_per_dispatch=1,
        data__train_split="train",
        data__test_split="test",
        data__validation_fraction=0.05,
        data__batch_size=20,
        data__image_size=8,
        data__eval_batch_size=256,
        optim__warmup_steps=2,
        cache__dir="",
        report__html="false",
        report__tensorboard="false",
    ),
]


@pytest.fixture(scope="module")
def uninterrupted(launcher, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    code, out, err = launcher.run("finetune", *COMMAND, f"--workdir={workdir}")
    assert code == 0, err
    assert "phase 1, trained: 650 of " in out and "phase 2, trained: 269,722 of 269,722" in out
    return workdir


def test_killed_in_each_phase(launcher, uninterrupted, tmp_path):
    """After 3 updates of the probe, at or just behind its end, and in the midst of fine-tuning."""
    workdir = tmp_path / "run"
    for after in (3, 8, 14):
        command = launcher.start("finetune", *COMMAND, f"--workdir={workdir}")
        wait_for_steps(workdir, after, command)
        command.signal(signal.SIGKILL)
        code, _, err = command.wait()
        assert code == -signal.SIGKILL, (after, err)
        assert not (workdir / "result.json").exists()
    code, _, err = launcher.run("finetune", *COMMAND, f"--workdir={workdir}")
    assert code == 0, err
    assert_same_bits(workdir, uninterrupted)
    lines = metric_lines(workdir)
    assert lines == metric_lines(uninterrupted)
    evaluated = [line["step"] for line in lines if line["split"] == "validation"]
    assert evaluated == [5, 8, 13, 18, 20]
    result = json.loads((workdir / "result.json").read_text())
    assert [row["frozen"]["changed"] for row in result["phases"]] == [[], []]
    assert [row["last_step"] for row in result["phases"]] == [8, 20]


def test_phases_that_are_no_tuples(launcher, tmp_path):
    for text in ("train.steps=8", "('train.steps=8', 'train.steps=9')", "((1,),)"):
        code, _, err = launcher.run(
            "finetune", *COMMAND, f"--config.phases={text}", f"--workdir={tmp_path / 'run'}"
        )
        assert code == 2, err
        assert f"--config.phases={text}: expected a tuple of tuples of assignments" in err
    code, _, err = launcher.run(
        "finetune", *COMMAND, "--config.phases=(('seed=1',),)", f"--workdir={tmp_path / 'run'}"
    )
    assert code == 2 and "error: phase 1: seed=1: seed is of the whole run" in err
    assert not (tmp_path / "run").exists()
