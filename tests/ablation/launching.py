"""What launchers leave in the folder of an ablation."""

import pytest

from tl_jax import ablation
from tl_jax.reporting import read_metrics
from tl_jax.training.loops import Stopped

CELLS = "cells/*/*/*/*/"


def tables(workdir):
    return (workdir / "ablation.md").read_text().partition("## Time")[0]


def outputs(workdir):
    return {log.name.partition("_")[0]: log.read_text() for log in workdir.glob("jobs/*.err")}


def stop_when_training(path, workdir, executor):
    """Stops launchers once one of them has logged an update of a long run; each has to save a checkpoint."""
    path.write_text(path.read_text().replace("train__steps=20", "train__steps=3000"))

    def trains():
        return any(read_metrics(folder.parent) for folder in workdir.glob(CELLS + "config.json"))

    with pytest.raises(Stopped):
        ablation.ablate(path, workdir, executor=executor, stop_requested=trains)
    assert [step for step in workdir.glob(CELLS + "checkpoints/*") if step.name.isdigit()]
    assert not list(workdir.glob(CELLS + "sealed.json")) + list(workdir.glob("ablation.*"))
