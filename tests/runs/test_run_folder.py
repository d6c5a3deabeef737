"""The run folder: its state, its lock, its config, and what it refuses to touch."""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import tl_jax
from tl_jax import files
from tl_jax.errors import InputError
from tl_jax.runs import run_folder
from tl_jax.runs.run_folder import RunFolder, environment_facts, git_revision

_REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
_CONFIG = {
    "seed": 0,
    "optim": {"learning_rate": 0.1, "boundaries": [1, 2]},
    "data": {"name": "digits"},
}


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns {name: content} of all files below a folder but the lock."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_run_is_new_then_interrupted_then_finished(tmp_path):
    path = tmp_path / "runs" / "one"
    with RunFolder.open(path, _CONFIG) as folder:
        assert folder.state == "new"
        assert folder.path == path
        assert folder.checkpoints == path / "checkpoints"
        assert folder.read_json("config.json") == _CONFIG
    with RunFolder.open(str(path), _CONFIG) as folder:
        assert folder.state == "interrupted"
        folder.finish({"status": "finished"})
    with RunFolder.open(path, _CONFIG) as folder:
        assert folder.state == "finished"
        assert folder.read_json("result.json") == {"status": "finished"}


def test_an_empty_folder_and_a_start_that_was_killed_are_new(tmp_path):
    (tmp_path / ".lock").write_text('{"pid": 1, "ho')
    (tmp_path / ".config.json.tmp").write_text('{"se')
    with RunFolder.open(tmp_path, _CONFIG) as folder:
        assert folder.state == "new"
    assert contents(tmp_path).keys() == {"config.json"}


def test_another_config_lists_the_differing_fields(tmp_path):
    RunFolder.open(tmp_path, _CONFIG).close()
    before = contents(tmp_path)
    other = {
        "seed": 0,
        "optim": {"learning_rate": 0.25, "boundaries": (1, 2), "name": "sgd"},
        "data": {},
    }
    with pytest.raises(InputError) as raised:
        RunFolder.open(tmp_path, other)
    first, *lines = str(raised.value).splitlines()
    assert str(tmp_path) in first
    assert "use another --workdir" in first
    assert lines == [
        "data: absent in the folder, {} given",
        'data.name: "digits" in the folder, absent given',
        "optim.learning_rate: 0.1 in the folder, 0.25 given",
        'optim.name: absent in the folder, "sgd" given',
    ]
    assert contents(tmp_path) == before
    RunFolder.open(tmp_path, _CONFIG).close()


def test_a_finished_run_of_another_config_is_refused_too(tmp_path):
    with RunFolder.open(tmp_path, _CONFIG) as folder:
        folder.finish({})
    with pytest.raises(InputError, match="seed: 0 in the folder, 1 given"):
        RunFolder.open(tmp_path, {**_CONFIG, "seed": 1})


@pytest.mark.parametrize(
    ("value", "same", "another"),
    [
        (float("nan"), float("nan"), 0.0),
        (1, 1, 1.0),
        (True, True, 1),
        ((1, 2), [1, 2], [2, 1]),
        (None, None, ""),
        ({}, {}, {"inner": None}),
        (np.float64(0.5), 0.5, 0.25),
        (pathlib.PurePosixPath("a/b"), "a/b", "a/c"),
    ],
    ids=["nan", "int_or_float", "bool_or_int", "tuple", "none", "empty", "numpy", "path"],
)
def test_comparison_is_exact_and_survives_the_file(tmp_path, value, same, another):
    RunFolder.open(tmp_path, {"field": value}).close()
    RunFolder.open(tmp_path, {"field": same}).close()
    with pytest.raises(InputError, match=r"differ:\nfield.* given"):
        RunFolder.open(tmp_path, {"field": another})


IDENTITY = run_folder.Identity(
    defaults={
        "data": {"workers": 0, "name": "digits"},
        "train": {"steps": 0},
        "optim": {"eps": 1e-8},
    },
    without_effect=("data.workers", "report.*"),
    extendable=("train.steps", "train.epochs"),
)
LENGTH = {"steps": 4, "epochs": 0.0}


def test_a_folder_that_wrote_an_empty_tuple_as_one_empty_text_goes_on(tmp_path):
    """As the command line of an older version read `--config.freeze.patterns=`."""
    RunFolder.open(tmp_path, {"freeze": {"patterns": ("",)}, "seed": 0}).close()
    config = {"freeze": {"patterns": ()}, "seed": 0}
    with RunFolder.open(tmp_path, config) as folder:
        assert folder.state == "interrupted"
    assert folder.read_json("config.json") == {"freeze": {"patterns": []}, "seed": 0}


def test_fields_that_change_no_number_make_no_other_run(tmp_path):
    """The folder then holds the config that was given last."""
    config = {**_CONFIG, "report": {"html": True, "mistakes": 5}}
    RunFolder.open(tmp_path, config).close()
    other = {**_CONFIG, "data": {"name": "digits", "workers": 4}, "report": {"html": False}}
    assert RunFolder.look(tmp_path, other, IDENTITY) == "interrupted"
    assert json.loads((tmp_path / "config.json").read_text()) == config
    with RunFolder.open(tmp_path, other, identity=IDENTITY) as folder:
        assert folder.state == "interrupted"
    assert json.loads((tmp_path / "config.json").read_text()) == other
    with pytest.raises(InputError, match=r"differ:\nseed: 0 in the folder, 1 given$"):
        RunFolder.look(tmp_path, {**config, "seed": 1}, IDENTITY)


def test_a_field_that_the_folder_lacks_counts_as_its_default(tmp_path):
    RunFolder.open(tmp_path, _CONFIG).close()
    newer = {**_CONFIG, "optim": {**_CONFIG["optim"], "eps": 1e-8}}
    assert RunFolder.look(tmp_path, newer, IDENTITY) == "interrupted"
    newer["optim"]["eps"] = 1e-7
    with pytest.raises(InputError, match=r"optim\.eps: 1e-08 in the folder, 1e-07 given"):
        RunFolder.look(tmp_path, newer, IDENTITY)
    newer["optim"] = {**_CONFIG["optim"], "unheard_of": 1}
    with pytest.raises(InputError, match=r"optim\.unheard_of: absent in the folder, 1 given"):
        RunFolder.look(tmp_path, newer, IDENTITY)


def test_a_finished_run_is_extended(tmp_path):
    """Its result is kept under another name: a folder with a result is one whose config is done."""
    config = {**_CONFIG, "train": LENGTH}
    with RunFolder.open(tmp_path, config, identity=IDENTITY) as folder:
        folder.finish({"steps": 4})
    longer = {**_CONFIG, "train": {**LENGTH, "steps": 9}}
    assert RunFolder.look(tmp_path, longer, IDENTITY) == "extended"
    assert (tmp_path / "result.json").exists()
    with RunFolder.open(tmp_path, longer, identity=IDENTITY) as folder:
        assert folder.state == "extended"
    assert json.loads((tmp_path / "config.json").read_text()) == longer
    assert json.loads((tmp_path / "result_at_step_4.json").read_text()) == {"steps": 4}
    assert RunFolder.look(tmp_path, longer, IDENTITY) == "interrupted"
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    "changes",
    [{"steps": 3}, {"steps": 0, "epochs": 9.0}, {"steps": 9, "epochs": 1.0}],
    ids=["shorter", "other unit", "both"],
)
def test_other_lengths_are_other_runs(tmp_path, changes):
    RunFolder.open(tmp_path, {**_CONFIG, "train": LENGTH}).close()
    with pytest.raises(InputError, match="holds a run of another config"):
        RunFolder.look(tmp_path, {**_CONFIG, "train": {**LENGTH, **changes}}, IDENTITY)


def test_a_run_that_cannot_be_extended_says_why(tmp_path):
    identity = dataclasses.replace(IDENTITY, not_extendable_because="the schedule depends on it")
    with RunFolder.open(tmp_path, {**_CONFIG, "train": LENGTH}) as folder:
        folder.finish({"steps": 4})
    before = contents(tmp_path)
    with pytest.raises(InputError) as raised:
        RunFolder.open(tmp_path, {**_CONFIG, "train": {**LENGTH, "steps": 9}}, identity=identity)
    assert str(raised.value) == (
        f"--workdir {tmp_path} holds a run of train.steps=4, 9 is given, and it cannot be extended: the "
        "schedule depends on it. To train on from its weights, give a new --workdir and "
        f"--config.init.weights={tmp_path} --config.init.head=keep"
    )
    assert contents(tmp_path) == before


def test_a_second_open_names_the_process_that_holds_the_lock(tmp_path):
    with RunFolder.open(tmp_path, _CONFIG):
        with pytest.raises(InputError) as raised:
            RunFolder.open(tmp_path, _CONFIG)
        assert f"in use by process {os.getpid()} on {socket.gethostname()}" in str(raised.value)
        assert str(tmp_path) in str(raised.value)
    RunFolder.open(tmp_path, _CONFIG).close()


def _hold_lock(path: pathlib.Path) -> subprocess.Popen:
    code = (
        "import sys\nfrom tl_jax.runs.run_folder import RunFolder\n"
        f"folder = RunFolder.open(sys.argv[1], {_CONFIG!r})\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_ends_with_its_process_even_when_killed(tmp_path):
    with _hold_lock(tmp_path) as process:
        with pytest.raises(InputError, match=f"in use by process {process.pid} on"):
            RunFolder.open(tmp_path, _CONFIG)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == process.pid
    with RunFolder.open(tmp_path, _CONFIG) as folder:
        assert folder.state == "interrupted"
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_refused_open_does_not_keep_the_lock(tmp_path):
    RunFolder.open(tmp_path, _CONFIG).close()
    with pytest.raises(InputError):
        RunFolder.open(tmp_path, {"seed": 1})
    RunFolder.open(tmp_path, _CONFIG).close()


def test_two_processes_end_together_when_one_cannot_open(tmp_path):
    code = (
        "import sys, jax\n"
        "from tl_jax.parallel import sharding\n"
        "from tl_jax.runs.run_folder import RunFolder\n"
        "folder, address, place = sys.argv[1], sys.argv[2], int(sys.argv[3])\n"
        "jax.distributed.initialize(address, num_processes=2, process_id=place)\n"
        "try:\n"
        "    with sharding.together():\n"
        f"        RunFolder.open(folder, {_CONFIG!r}, is_primary=place == 0)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(_REPOSITORY),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
    }
    with RunFolder.open(tmp_path, _CONFIG):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(tmp_path), address, str(place)],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for place in range(2)
        ]
        try:
            outputs = [process.communicate(timeout=120)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    assert f"InputError --workdir {tmp_path} is in use by process {os.getpid()}" in outputs[0]
    assert "OSError process 0 failed" in outputs[1]


def test_a_file_is_no_run_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("kept")
    with pytest.raises(InputError, match="file is a file"):
        RunFolder.open(path, _CONFIG)
    with pytest.raises(InputError, match=r"cannot use .*inside as --workdir"):
        RunFolder.open(path / "inside", _CONFIG)
    assert path.read_text() == "kept"


def test_a_name_that_no_disk_takes(tmp_path):
    with pytest.raises(InputError, match=r"cannot use .* as --workdir: .*name too long"):
        RunFolder.open(tmp_path / ("long" * 100), _CONFIG)


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    for name in ("thesis.tex", "a", "b", "c", "d", "e"):
        (tmp_path / name).write_text(name)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="it holds a, b, c, d, e and 1 more; give a new folder"):
        RunFolder.open(tmp_path, _CONFIG)
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", ['{"seed": 0', "", "[1]", '{"model_type": "resnet"}'])
def test_a_config_that_is_not_ours_is_refused_and_kept(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="config"):
        RunFolder.open(tmp_path, _CONFIG)
    assert contents(tmp_path) == {"config.json": content.encode()}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot use .* as --workdir"):
        RunFolder.open(tmp_path / "run", _CONFIG)


def test_other_processes_neither_lock_nor_write(tmp_path):
    path = tmp_path / "run"
    with RunFolder.open(path, _CONFIG, is_primary=False) as other:
        assert other.state == "new"
        other.write_json("result.json", {})
    assert not path.exists()
    with RunFolder.open(path, _CONFIG):
        before = contents(path)
        with RunFolder.open(path, _CONFIG, is_primary=False) as other:
            assert other.state == "interrupted"
            other.finish({})
        assert contents(path) == before
        with pytest.raises(InputError, match="seed: 0 in the folder, 3 given"):
            RunFolder.open(path, {**_CONFIG, "seed": 3}, is_primary=False)


def test_write_json_takes_arrays_and_replaces_whole_files(tmp_path):
    with RunFolder.open(tmp_path, _CONFIG) as folder:
        folder.write_json("facts.json", {"old": list(range(1000))})
        folder.write_json(
            "facts.json",
            {"accuracy": np.float32(0.5), "rows": np.eye(2, dtype=int), "step": jax.numpy.int32(3)},
        )
        expected = {"accuracy": 0.5, "rows": [[1, 0], [0, 1]], "step": 3}
        assert folder.read_json("facts.json") == expected
        with pytest.raises(TypeError, match="of type object cannot be written"):
            folder.write_json("facts.json", {"bad": object()})
        assert folder.read_json("facts.json") == expected
        with pytest.raises(InputError, match=r"absent\.json is missing"):
            folder.read_json("absent.json")
    assert contents(tmp_path).keys() == {"config.json", "facts.json"}


def test_results_that_are_not_finite_are_valid_json(tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    with RunFolder.open(tmp_path, _CONFIG) as folder:
        folder.finish({"test": {"loss": float("nan"), "worst": np.float32(np.inf)}})
    text = (tmp_path / "result.json").read_text()
    found = json.loads(text, parse_constant=refuse)
    assert found == {"test": {"loss": "nan", "worst": "inf"}}


def test_write_json_on_a_full_disk_keeps_the_earlier_file(tmp_path, monkeypatch):
    with RunFolder.open(tmp_path, _CONFIG) as folder:
        folder.write_json("result.json", {"kept": True})

        def fail(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", fail)
        with pytest.raises(OSError, match=f"result.json .* {tmp_path}: it needs about 18 bytes"):
            folder.write_json("result.json", {"new": True})
        assert contents(tmp_path).keys() == {"config.json", "result.json"}
        assert folder.read_json("result.json") == {"kept": True}


def test_environment_facts():
    facts = environment_facts()
    assert facts["device"] == {
        "platform": jax.devices()[0].platform,
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
    }
    assert set(facts["versions"]) == {
        "python",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "tensorflow-datasets",
        "grain",
        "ml-collections",
        "numpy",
        "tl_jax",
    }
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["versions"]["tl_jax"] == tl_jax.__version__
    assert json.loads(json.dumps(facts)) == facts


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(run_folder, "_PACKAGES", ("jax", "surely-not-installed"))
    assert environment_facts()["versions"]["surely-not-installed"] is None


@pytest.fixture
def checkout(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("needs git")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("one = 1\n")
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    return tmp_path


def test_git_revision_of_a_checkout(checkout):
    revision = git_revision(checkout / "package")
    assert len(revision) == 40
    (checkout / "runs").mkdir()
    (checkout / "runs" / "config.json").write_text("{}")
    assert git_revision(checkout / "package") == revision
    (checkout / "package" / "module.py").write_text("one = 2\n")
    assert git_revision(checkout / "package") == revision + "+dirty"


def test_git_revision_of_what_no_checkout_tracks(checkout, tmp_path_factory):
    installed = checkout / "venv" / "site-packages" / "package"
    installed.mkdir(parents=True)
    (installed / "module.py").write_text("one = 1\n")
    assert git_revision(installed) is None
    assert git_revision(tmp_path_factory.mktemp("elsewhere")) is None
    assert git_revision(checkout / "absent") is None
