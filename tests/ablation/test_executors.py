"""Launchers that submitit starts: together they do what one process does, also where one of them is killed."""

import collections
import os
import pathlib
import re
import signal
import sys
import textwrap
import threading
import time

import pytest

from tl_jax import ablation
from tl_jax.ablation import executors
from tl_jax.errors import InputError

TESTS = pathlib.Path(__file__).parent.parent / "experiments"


@pytest.fixture
def path(tmp_path):
    """Returns the file of a spec of six runs of a small network."""
    path = tmp_path / "spec.py"
    path.write_text(
        textwrap.dedent(f"""
            import sys
            sys.path.insert(0, {str(TESTS)!r})
            from running import tiny_config
            from tl_jax.ablation import Spec

            def get_spec():
                base = tiny_config(
                    model__name="small_cnn", data__image_size=8, data__validation_fraction=0.2, train__steps=20
                )
                slow = ("optim.learning_rate=0.001",)
                return Spec(base, {{"slow": slow, "fast": ()}}, (0, 1, 2))
        """)
    )
    return path


def tables(workdir):
    return (workdir / "ablation.md").read_text().partition("## Time")[0]


def outputs(workdir):
    return {log.parent.name: log.read_text() for log in workdir.glob("jobs/*/*.err")}


def test_two_launchers_of_which_one_is_killed(path, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "_POLL_SECONDS", 0.1)
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
    ablation.ablate(path, workdir, executor="local", workers=2)
    killer.join(60)
    assert killed
    ablation.ablate(path, tmp_path / "here")
    assert tables(workdir) == tables(tmp_path / "here")
    # What the killed one has left was trained here.
    said = "\n".join(outputs(workdir).values())
    by_launchers = collections.Counter(
        re.findall(r"^\d/6  (\w+, seed \d): .* steps, [\d.]+ s$", said, re.M)
    )
    assert by_launchers and set(by_launchers.values()) == {1}
    assert len(outputs(workdir)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "slrum"}, "unknown executor 'slrum'; nearest: slurm"),
        ({"executor": "local", "workers": 0}, "workers=0: expected 1 or more"),
    ],
)
def test_what_does_not_fit_is_refused(path, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ablation.ablate(path, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_without_submitit_the_way_on_is_named(path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"need submitit: pip install 'tl_jax\[cluster\]'"):
        ablation.ablate(path, tmp_path / "run", executor="local")
