"""Two processes with two devices each are one process with four, and go on with its checkpoints."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from running import SECONDS, arguments, metric_lines, tree_of, wait_for_steps

from tl_jax.data import images

STEPS, SAVED = 16, 12
COMMAND = [
    "--config=configs/quickstart.py",
    *arguments(
        init__weights="",
        optim__learning_rate=0.01,
        train__steps=STEPS,
        train__log_every_steps=1,
        train__checkpoint_every_steps=SAVED,
        data__train_split="train",
        data__test_split="test",
        data__validation_fraction=0.0,
        data__batch_size=20,
        data__image_size=8,
        data__eval_batch_size=256,
        augment__flip="true",
        report__html="false",
        report__tensorboard="false",
    ),
]


def start_two(launcher, workdir, *flags, each=((), ()), devices=2, small=True, command="finetune"):
    """Starts two processes, with so many devices each, that find each other at a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        launcher.start(
            command,
            *COMMAND,
            *flags,
            *each[number],
            f"--workdir={workdir}",
            f"--coordinator=127.0.0.1:{port}",
            "--num_processes=2",
            f"--process_id={number}",
            devices=devices,
            small=small,
        )
        for number in range(2)
    ]


def both_ended(commands):
    """Returns exit code, output and error of each; where one fails, the other has half a minute more."""
    deadline = time.monotonic() + SECONDS
    while not all(command.has_ended(0.1) for command in commands):
        if any(command.has_ended() and command.wait()[0] for command in commands):
            deadline = min(deadline, time.monotonic() + 30)
        if time.monotonic() > deadline:
            for command in commands:
                command.kill()
    return [command.wait() for command in commands]


def assert_close(run, expected):
    lines, wanted = metric_lines(run), metric_lines(expected)
    assert [(line["step"], line["split"]) for line in lines] == [
        (step, "train") for step in range(1, STEPS + 1)
    ]
    for line, other in zip(lines, wanted, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-5), line["step"]
        assert line["top1_accuracy"] == other["top1_accuracy"], line["step"]


def assert_same(run, expected):
    """Every line of the log but for rounding, and the result on every split."""
    lines, wanted = metric_lines(run), metric_lines(expected)
    assert len(lines) == len(wanted) >= STEPS
    for line, other in zip(lines, wanted, strict=True):
        assert (line["step"], line["split"]) == (other["step"], other["split"])
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-5), line["step"]
    results = [json.loads((one / "result.json").read_text())["splits"] for one in (run, expected)]
    assert results[0].keys() == results[1].keys()
    for name, split in results[0].items():
        assert split["examples"] == results[1][name]["examples"]
        assert split["loss"] == pytest.approx(results[1][name]["loss"], abs=1e-5)


def files_of(run):
    """Returns the files of a run, those that Orbax names by chance left out."""
    return {name for name in tree_of(run) if "/state/" not in name}


@pytest.fixture(scope="module")
def one_process(launcher, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one") / "run"
    code, _, err = launcher.run("finetune", *COMMAND, f"--workdir={workdir}", devices=4, small=True)
    assert code == 0, err
    return workdir


def test_two_processes_stop_together_and_one_goes_on(launcher, one_process, tmp_path):
    workdir = tmp_path / "run"
    commands = start_two(launcher, workdir)
    wait_for_steps(workdir, 2, *commands)
    commands[1].signal(signal.SIGTERM)  # to one process only
    ended = both_ended(commands)
    assert [code for code, _, _ in ended] == [75, 75], ended
    reached = metric_lines(workdir)[-1]["step"]
    assert 2 <= reached < STEPS
    assert all(f"stopped on request at step {reached};" in err for _, _, err in ended)

    code, _, err = launcher.run("finetune", *COMMAND, f"--workdir={workdir}", devices=4, small=True)
    assert code == 0, err
    assert_close(workdir, one_process)


def test_two_processes_go_on_where_one_was(launcher, one_process, tmp_path):
    """The run of one process, as it was after its first checkpoint; only process 0 writes."""
    workdir = tmp_path / "run"
    shutil.copytree(one_process, workdir)
    (workdir / "result.json").unlink()
    (workdir / "weights.safetensors").unlink()
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    ended = both_ended(start_two(launcher, workdir))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert f"{workdir}: test top-1" in ended[0][1]
    assert str(workdir) not in ended[1][1]
    assert all(
        f"process {number} of 2: waiting for the others at 127.0.0.1" in ended[number][2]
        for number in range(2)
    )
    assert_close(workdir, one_process)
    assert files_of(workdir) == files_of(one_process)


def test_two_processes_make_an_ablation_together(launcher, tmp_path):
    """One claims for both, and writes; each run is that of one process with as many devices."""
    flags = arguments(
        compare__seeds="(0,)",
        data__validation_fraction=0.1,
        train__steps=4,
        optim__warmup_steps=0,
    )
    both, alone = tmp_path / "both", tmp_path / "alone"
    ended = both_ended(start_two(launcher, both, *flags, command="compare"))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "Best on validation: " in ended[0][1] and "Best" not in ended[1][1]
    code, _, err = launcher.run(
        "compare", *COMMAND, *flags, f"--workdir={alone}", devices=4, small=True
    )
    assert code == 0, err
    mine, expected = (json.loads((run / "ablation.json").read_text()) for run in (both, alone))
    assert len(mine["runs"]) == len(expected["runs"]) == 3
    for row, wanted in zip(mine["runs"], expected["runs"], strict=True):
        assert (row["run"], row["status"]) == (wanted["run"], "finished")
        for split in ("validation", "test"):  # of as many images one or two may fall otherwise
            assert row[split] == pytest.approx(wanted[split], abs=0.01)
    lines = [json.loads(line) for line in (both / "test_log.jsonl").read_text().splitlines()]
    assert sorted(line["cell"] for line in lines) == sorted(
        row["run"].removeprefix("cells/") for row in mine["runs"]
    )
    trained = [json.loads(line) for line in (both / "times.jsonl").read_text().splitlines()]
    assert [line["what"] for line in trained] == ["trained"] * 3 + ["test read"] * 3


STORED = arguments(
    freeze__strategy="backbone",
    cache__boundary="auto",
    augment__flip="false",
    augment__crop_padding=0,
)


def test_two_processes_with_stored_activations(launcher, tmp_path):
    own = [*STORED, f"--config.cache.dir={tmp_path / 'activations'}"]
    alone, both = tmp_path / "alone", tmp_path / "both"
    code, _, err = launcher.run(
        "finetune", *COMMAND, *own, f"--workdir={alone}", devices=4, small=True
    )
    assert code == 0, err
    shutil.rmtree(tmp_path / "activations")
    ended = both_ended(start_two(launcher, both, *own))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert_close(both, alone)


def cache_of(run):
    """Returns what a run says of its activations: how many each process keeps, and whether they were there."""
    cache = json.loads((run / "result.json").read_text())["cache"]
    return cache.get("images_kept"), {bank["state"] for bank in cache["banks"]}


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        # Of 22 images four devices store 6, 6, 6 and 4, of 14 they store 4, 4, 4 and 2.
        ({}, [20, 16]),
        # Of 44 views each of the four stores 11.
        ({"cache__views": 2, "augment__flip": "true"}, [11 + 8, 11 + 6]),
        # Of two images the last two devices store none.
        ({"data__test_split": "test[:2]"}, [12 + 2, 10]),
        # What is held out is stored with the test split: of 4 + 14 images 5, 5, 5 and 3.
        ({"data__validation_fraction": 0.2, "train__eval_every_steps": 8}, [10 + 10, 8 + 8]),
    ],
    ids=["one view", "two views", "a process without test images", "with a validation split"],
)
def test_each_of_two_processes_keeps_the_activations_of_its_half(launcher, tmp_path, fields, kept):
    photos = write_photos(tmp_path / "photos")
    flags = [
        *SHARED,
        *STORED,
        *arguments(**fields, cache__dir=tmp_path / "activations"),
        f"--config.data.name=folder:{photos}",
    ]
    alone, both, again, whole = (tmp_path / name for name in ("alone", "both", "again", "whole"))
    runs = [both] if fields else [both, again, whole]
    for run in runs[:2]:
        ended = both_ended(start_two(launcher, run, *flags))
        assert [code for code, _, _ in ended] == [0, 0], ended
        assert cache_of(run) == (kept, {"to be computed" if run is both else "there"})
    plan = {row["what"]: row["bytes"] for row in json.loads((both / "memory.json").read_text())}
    views = fields.get("cache__views", 1)
    # Of each device that stores 6 images of 22, or 5 or 6 of what is left: activations of 16 numbers.
    trained = -(-22 * views // 4) if "data__validation_fraction" not in fields else 5
    assert plan["training data, copied"] == 2 * trained * 16 * 4
    parts = len(list(tmp_path.glob("activations/*/*.npy")))
    assert parts == (3 if "data__test_split" in fields else 4)
    shutil.rmtree(tmp_path / "activations")
    code, _, err = launcher.run(
        "finetune", *COMMAND, *flags, f"--workdir={alone}", devices=4, small=True
    )
    assert code == 0, err
    assert cache_of(alone) == (None, {"to be computed"})  # under a key of its own: of all rows
    if whole in runs:
        ended = both_ended(start_two(launcher, whole, *flags))
        assert [code for code, _, _ in ended] == [0, 0], ended
        assert cache_of(whole) == (kept, {"there"})
    for run in runs:
        assert_same(run, alone)


SHARED = arguments(
    data__examples_per_class=0,
    data__placement="device",
    data__batch_size=8,
    data__cache_dir="",
    report__mistakes=0,  # Those of the other process would be decoded for it.
)
TRAIN, TEST = 22, 14


def write_photos(folder, broken=()):
    """Writes images of two classes, in the order in which the library reads them; `broken` ones end early."""
    random = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for place in range(count):
            path = folder / split / "ab"[2 * place // count] / f"{place:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = images.to_png(random.integers(0, 256, (8, 8, 3), np.uint8))
            path.write_bytes(content[:-30] if (split, place) in broken else content)
    return folder


def test_each_of_two_processes_keeps_its_half(launcher, tmp_path):
    """Of 22 images four devices store 6, 6, 6 and 4, of 14 they store 4, 4, 4 and 2."""
    photos = write_photos(tmp_path / "photos")
    flags = [*SHARED, f"--config.data.name=folder:{photos}"]
    alone, both = tmp_path / "alone", tmp_path / "both"
    code, _, err = launcher.run(
        "finetune", *COMMAND, *flags, f"--workdir={alone}", devices=4, small=True
    )
    assert code == 0, err
    ended = both_ended(start_two(launcher, both, *flags))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert_close(both, alone)
    results = [json.loads((run / "result.json").read_text()) for run in (alone, both)]
    assert [result["dispatch"].get("images_kept") for result in results] == [None, [20, 16]]
    plans = [
        {row["what"]: row["bytes"] for row in json.loads((run / "memory.json").read_text())}
        for run in (alone, both)
    ]
    assert [plan["decoded images"] // (8 * 8 * 3) for plan in plans] == [36, 20]


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("raise Stopped(3)", 75)])
def test_the_first_process_waits_for_those_that_end_later(end, code):
    script = f"""
import os, sys, time
import jax
from experiments import cli
from tl_jax.training.loops import Stopped

def main():
    assert jax.process_count() == 2
    time.sleep(6 * ("--process_id=1" in sys.argv))  # longer than it takes to notice that the first one is gone
    {end}

try:
    cli.run(main)
    code = 0
except SystemExit as stop:
    code = stop.code
os._exit(code)  # Python's own end would wait too, as long as nothing holds up what it takes down
"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"--coordinator=127.0.0.1:{probe.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, address, "--num_processes=2", f"--process_id={number}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=SECONDS)[1] for process in processes]
    assert [process.returncode for process in processes] == [code, code], said


def test_the_paths_of_the_same_data_may_differ(launcher, tmp_path):
    """In a new run, and in one that is finished."""
    folders = [write_photos(tmp_path / name) for name in "ab"]
    each = [[f"--config.data.name=folder:{folder}"] for folder in folders]
    for _ in range(2):
        ended = both_ended(start_two(launcher, tmp_path / "run", *SHARED, each=each))
        assert [code for code, _, _ in ended] == [0, 0], ended


def test_two_processes_with_other_configs_or_data_end_at_once(launcher, tmp_path):
    each = [["--config.train.log_every_steps=1"], ["--config.train.log_every_steps=2"]]
    ended = both_ended(start_two(launcher, tmp_path / "run", each=each))
    assert [code for code, _, _ in ended] == [2, 2], ended
    for number, (_, _, err) in enumerate(ended):
        assert f"2 processes have other values of train.log_every_steps (here {number + 1})" in err
    folders = [write_photos(tmp_path / name) for name in "ab"]
    changed = folders[1] / "test" / "b" / "09.png"
    changed.write_bytes((folders[1] / "test" / "b" / "10.png").read_bytes())
    each = [[f"--config.data.name=folder:{folder}"] for folder in folders]
    ended = both_ended(start_two(launcher, tmp_path / "run", *SHARED, each=each))
    assert [code for code, _, _ in ended] == [2, 2], ended
    assert all(
        "see other images, names or labels in test (14 images here)" in err for _, _, err in ended
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fields", [[], STORED], ids=["images", "activations"])
def test_a_broken_image_of_one_process_ends_both(launcher, tmp_path, fields):
    folder = write_photos(tmp_path / "photos", {("test", TEST - 1)})
    flags = [*SHARED, *fields, f"--config.data.name=folder:{folder}"]
    ended = both_ended(start_two(launcher, tmp_path / "run", *flags))
    assert [code for code, _, _ in ended] == [1, 2], ended
    assert "process 1 failed, and says why" in ended[0][2]
    assert f"{TEST - 1:02d}.png" in ended[1][2]


def test_collectives_of_two_processes_meet_their_own_kind(launcher, tmp_path):
    """ResNet-20 whole: with XLA's default scheduler for CPU both processes ended at the first updates."""
    lengths = arguments(optim__warmup_steps=0, optim__warmup_epochs=0.0, train__steps=3)
    commands = start_two(launcher, tmp_path / "run", *lengths, devices=1, small=False)
    ended = both_ended(commands)
    assert [code for code, _, _ in ended] == [0, 0], ended


def test_pmap_is_for_one_process(launcher, tmp_path):
    ended = both_ended(start_two(launcher, tmp_path / "run", "--config.parallel.mode=pmap"))
    assert [code for code, _, _ in ended] == [2, 2], ended
    assert all("parallel.mode=pmap in 2 processes: expected jit" in err for _, _, err in ended)
    assert not (tmp_path / "run").exists()


def test_a_failure_of_one_process_is_told_and_ends_both(launcher, tmp_path):
    """Process 1 has no data: it fails where the other is about to agree on the room of both."""
    present, absent = tmp_path / "present.npz", tmp_path / "absent.npz"
    random = np.random.default_rng(0)
    np.savez(
        present,
        **{
            f"{split}_{name}": values
            for split in ("train", "test")
            for name, values in (
                ("images", random.integers(0, 256, (40, 8, 8, 3), np.uint8)),
                ("labels", np.arange(40) % 2),
            )
        },
    )
    every = arguments(data__examples_per_class=0)
    flags = [[f"--config.data.name=npz:{path}", *every] for path in (present, absent)]
    ended = both_ended(start_two(launcher, tmp_path / "run", each=flags))
    assert [code for code, _, _ in ended] == [1, 2], ended
    assert "process 1 failed, and says why" in ended[0][2]
    assert str(absent) in ended[1][2]
