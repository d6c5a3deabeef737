"""Launchers that submitit starts: together they do what one process does, also where one of them is killed."""

import collections
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest
import submitit  # its import closes the stream of absl's log where that is not sys.stderr, as under capsys
from launching import outputs, stop_when_training, tables

from tl_jax import ablation
from tl_jax.ablation import executors, gpus, launchers
from tl_jax.errors import InputError


def test_two_launchers_of_which_one_is_killed(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launchers, "_POLL_SECONDS", 0.1)
    workdir, killed = tmp_path / "two", []

    def kill_one():
        while not killed:
            for job, text in outputs(workdir).items():
                if " steps, " in text:
                    os.kill(int(job), signal.SIGKILL)
                    killed.append(job)
                    return
            time.sleep(0.05)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    ablation.ablate(path, workdir, executor="local", workers=2, progress=True)
    killer.join(60)
    assert killed
    shown = capsys.readouterr()
    assert f"launcher {killed[0]} was killed, what it has left is done by others: see " in shown.out
    assert "trained: 6 of 6 cells" in shown.out
    # The command prints each cell when it ends: those of launchers and those that it trains itself.
    assert re.search(
        r"^\d/6  \w+, seed \d: validation top-1 .*, 20 steps, .*elsewhere$", shown.err, re.M
    )
    assert len(set(re.findall(r"^\d/6  (\w+, seed \d): .* 20 steps", shown.err, re.M))) == 6
    ablation.ablate(path, tmp_path / "here")
    assert tables(workdir) == tables(tmp_path / "here")
    # This process trained the cells of the launcher that was killed.
    said = "\n".join(outputs(workdir).values())
    by_launchers = collections.Counter(
        re.findall(r"^\d/6  (\w+, seed \d): .* steps, [\d.]+ s$", said, re.M)
    )
    assert by_launchers and set(by_launchers.values()) == {1}
    assert len(outputs(workdir)) == 2


def test_launchers_stop_with_checkpoints(path, tmp_path, monkeypatch):
    monkeypatch.setattr(launchers, "_POLL_SECONDS", 0.1)
    workdir = tmp_path / "run"
    stop_when_training(path, workdir, "local")
    ids = {int(name) for name in outputs(workdir)}
    assert len(ids) == 2 and not any(pathlib.Path(f"/proc/{one}").exists() for one in ids)
    assert "Traceback" not in "".join(outputs(workdir).values())


def test_a_launcher_ends_where_its_command_is_gone(path, tmp_path):
    """A command that is killed cannot send SIGTERM to its launchers."""
    made = ablation.load_spec(path)
    launcher = launchers.Launcher(made, tmp_path, "local", 1, None)
    assert not launcher._is_left()
    gone = subprocess.Popen(["true"])
    gone.wait()
    launcher._starter = gone.pid
    assert launcher._is_left()
    assert launchers.Launcher(made, tmp_path, "slurm", 1, None)._starter is None


@pytest.fixture
def starter(monkeypatch):
    """Returns the calls of submitit, which is replaced: no job starts, and the third one is refused."""
    seen = []

    class Starter:
        def __init__(self, folder, cluster):
            self.jobs = []
            seen.append((folder, cluster))

        def update_parameters(self, **given):
            seen.append(given)

        def submit(self, launcher):
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            self.jobs.append(launcher)
            seen.append((launcher._gpu, launcher._workers, ignored))
            if len(self.jobs) == 3:
                raise RuntimeError("no more")
            return launcher

    monkeypatch.setattr(submitit, "AutoExecutor", Starter)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    return seen


@pytest.mark.parametrize(
    ("executor", "resources", "devices"),
    [
        ("local", {}, ("3", "5", "3")),
        ("local", {"gpus_per_node": 2}, (None,) * 3),  # submitit assigns the GPUs
        ("slurm", {"slurm_setup": ["module load cuda"]}, (None,) * 3),
    ],
)
def test_gpu_signals_and_parameters_of_launchers(
    path, tmp_path, monkeypatch, starter, executor, resources, devices
):
    stopped, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(
        launchers, "_stop", lambda jobs, cluster: stopped.append((len(jobs), cluster))
    )
    with pytest.raises(InputError, match=f"--executor={executor}: no more"):
        ablation.ablate(path, tmp_path / "run", executor=executor, workers=3, resources=resources)
    assert signal.getsignal(signal.SIGINT) is before
    assert stopped == [(2, executor)]  # the two that started
    _, _, folder, parameters, *started = starter  # the first two are of `launchers.check`
    assert folder == (tmp_path / "run" / "jobs", executor)
    assert parameters == {"timeout_min": 24 * 60, "name": "ablate-run", **resources}
    # Ctrl-C reaches all processes of a terminal, and none elsewhere.
    assert started == [(device, 3, executor == "local") for device in devices]


# The launcher gets SIGTERM, and this process does not wait for it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_where_this_process_ends_otherwise_no_launcher_is_left(path, tmp_path, monkeypatch):
    monkeypatch.setattr(launchers, "_POLL_SECONDS", 0.1)
    path.write_text(path.read_text().replace("train__steps=20", "train__steps=3000"))
    workdir = tmp_path / "run"

    def interrupted():
        if not outputs(workdir):
            return False
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablation.ablate(path, workdir, executor="local", workers=1, stop_requested=interrupted)
    [one] = map(int, outputs(workdir))
    for _ in range(600):
        if not pathlib.Path(
            f"/proc/{one}/exe"
        ).exists():  # of one that has ended, nothing is left to read
            break
        time.sleep(0.1)
    else:
        pytest.fail("the launcher goes on")


@pytest.mark.parametrize(("executor", "expected"), [("local", "false"), ("slurm", None)])
def test_no_process_of_one_machine_takes_a_gpu_whole(
    path, tmp_path, monkeypatch, executor, expected
):
    seen = []
    monkeypatch.setenv(gpus._PREALLOCATE, "")  # so that it is removed again
    monkeypatch.delenv(gpus._PREALLOCATE)
    monkeypatch.setattr(
        executors, "begin", lambda *_: seen.append(os.environ.get(gpus._PREALLOCATE))
    )
    monkeypatch.setattr(launchers, "check", lambda *_: None)
    monkeypatch.setattr(launchers, "train", lambda *_: None)
    monkeypatch.setattr(executors, "run", lambda *_, **__: {})
    ablation.ablate(path, tmp_path / "run", executor=executor)
    assert seen == [expected]


def test_a_launcher_has_one_gpu_and_the_compiled_programs_of_the_command(
    path, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setenv(gpus._VISIBLE, "3,5")
    assert gpus.visible() == ["3", "5"]
    launcher = launchers.Launcher(ablation.load_spec(path), tmp_path, "slurm", 1, "5")
    monkeypatch.setattr(gpus, "_DEVICES", tmp_path)
    for name in ("nvidia1", "nvidia0", "nvidiactl"):
        (tmp_path / name).touch()
    monkeypatch.delenv(gpus._VISIBLE)
    assert gpus.visible() == ["0", "1"]
    monkeypatch.setenv(gpus._VISIBLE, "")  # as submitit sets it where none is asked for
    assert gpus.visible() == []
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(
        launchers,
        "run",
        lambda *_, **__: seen.append(
            (os.environ[gpus._VISIBLE], jax.config.jax_compilation_cache_dir)
        ),
    )
    launcher()
    assert seen == [("5", before)] and before
    assert launcher._settings.keys() == {
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
    }
    assert launcher.checkpoint().function is launcher  # what is started again where time is up


def test_a_launcher_trains_its_share(path, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(launchers, "run", lambda *given, **options: seen.update(options))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for workers, width in ((1, 6), (2, 3), (4, 1), (9, 1)):
        launchers.Launcher(ablation.load_spec(path), tmp_path, "slurm", workers, None)()
        assert seen == {"train_only": True, "width": width}
    # Of what is left: here one of six.
    monkeypatch.setattr(launchers.states, "is_trained", lambda cell, _: cell.seed > 0)
    launchers.Launcher(ablation.load_spec(path), tmp_path, "slurm", 2, None)()
    assert seen["width"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "slrum"}, "unknown executor 'slrum'; nearest: slurm"),
        ({"executor": "local", "workers": 0}, "workers=0: expected an integer, 1 or more"),
        ({"executor": "local", "resources": {"gpus": 1}}, "--executor=local: "),
        ({"executor": "local", "resources": {"timeout_min": 1.5}}, "--executor=local, resources"),
        ({"executor": "local", "resources": {"setup": ["true"]}}, "on one machine run them before"),
        ({"executor": "slurm", "resources": {"setup": "true"}}, "setup='true': expected a list of"),
        ({"executor": "slurm"}, "--executor=slurm: "),
    ],
)
def test_what_does_not_fit_is_refused(path, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ablation.ablate(path, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_without_submitit_the_way_on_is_named(path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"needs submitit: pip install 'tl_jax\[cluster\]'"):
        ablation.ablate(path, tmp_path / "run", executor="local")
