"""Launchers on SLURM, played by scripts that start and stop processes here as its commands do on a cluster."""

import collections
import os
import pathlib
import re
import time

import pytest
from launching import outputs, stop_when_training, tables

from tl_jax import ablation
from tl_jax.ablation import launchers

COMMANDS = {
    "sbatch": """
        number=$(( $(ls | grep -c "[.]job$") + 1 ))
        cp "$1" $number.job
        SLURM_JOB_ID=$number setsid bash $number.job > /dev/null 2>&1 &
        echo $! > $number.pid
        echo "Submitted batch job $number"
    """,
    # What it is given: --unbuffered --output FILE --error FILE COMMAND...
    "srun": """
        out=${3//%j/$SLURM_JOB_ID} err=${5//%j/$SLURM_JOB_ID}
        shift 5
        export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1 SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1
        export SLURM_JOB_NODELIST=here
        echo $$ > $SLURM_JOB_ID.step
        exec "$@" > ${out//%t/0} 2> ${err//%t/0}
    """,
    "sacct": """
        echo "JobID|State|NodeList"
        for job in *.pid; do
            state=COMPLETED
            [ -d /proc/$(cat $job) ] && state=RUNNING
            echo "${job%.pid}|$state|here"
        done
    """,
    "scancel": "kill -TERM $(cat $1.step)",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Returns the folder of what the cluster knows of its jobs."""
    commands, known = tmp_path / "bin", tmp_path / "cluster"
    commands.mkdir()
    known.mkdir()
    for name, script in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/bash\ncd {known}\n{script}")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setattr(launchers, "_POLL_SECONDS", 0.1)
    return known


def test_launchers_are_jobs_with_what_was_asked_for(path, cluster, tmp_path):
    workdir = tmp_path / "run"
    ablation.ablate(
        path,
        workdir,
        executor="slurm",
        workers=2,
        resources={"gpus_per_node": 1, "slurm_partition": "small"},
    )
    jobs = sorted(cluster.glob("*.job"))
    assert len(jobs) == len(outputs(workdir)) == 2
    for job in jobs:
        asked = job.read_text()
        assert "#SBATCH --gpus-per-node=1" in asked and "#SBATCH --partition=small" in asked
        assert "#SBATCH --job-name=ablate-run" in asked
    made = collections.Counter(
        re.findall(
            r"^\d/6  (\w+, seed \d): .* steps, [\d.]+ s$", "".join(outputs(workdir).values()), re.M
        )
    )
    assert len(made) == 6 and set(made.values()) == {1}
    ablation.ablate(path, tmp_path / "here")
    assert tables(workdir) == tables(tmp_path / "here")


def test_jobs_are_cancelled_with_checkpoints(path, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(launchers, "_LOOK_SECONDS", 0.0)
    workdir = tmp_path / "run"
    stop_when_training(path, workdir, "slurm")
    left = [pathlib.Path("/proc", name.read_text().strip()) for name in cluster.glob("*.pid")]
    for _ in range(100):  # processes that have written their results end within seconds
        left = [process for process in left if process.exists()]
        time.sleep(0.1 if left else 0.0)
    assert not left
