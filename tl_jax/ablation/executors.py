"""Where the cells of an ablation are run: in this process, or by several launchers that submitit starts.

Launchers share the folder of the ablation and claim cells one by one, so that one that is killed loses no more than
the updates since the last checkpoint of its cell.
"""

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax

from tl_jax import console
from tl_jax.ablation import planner
from tl_jax.ablation.cells import expand
from tl_jax.ablation.engine import begin, run
from tl_jax.ablation.spec import Spec, load_spec
from tl_jax.errors import InputError, unknown

# This process, or what submitit calls the others.
EXECUTORS = ("here", "local", "slurm")
_POLL_SECONDS = 1.0
_HOURS = 24


def ablate(
    spec: Spec | str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    executor: str = "here",
    workers: int = 2,
    amend: str = "",
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Runs an ablation: variants over seeds, chosen by validation, with test read last.

    With "local" or "slurm", launchers train the cells, and this process does what they leave: cells of launchers that
    were killed, the choice, the reading of test, the tables.

    Args:
        spec: what is compared, or the file of it.
        workdir: of the ablation, a folder that all launchers see; the same call goes on with what is there.
        executor: one of `EXECUTORS`.
        workers: launchers, where there are any; each local one has one of this machine's GPUs, in turn.
        amend: why the spec is changed after test was read; see `Record.begin`.
        stop_requested: whether to stop; asked between updates.

    Returns:
        What `ablation.json` holds.

    Raises:
        InputError: before anything is trained, if the spec or the folder does not fit, or submitit is not installed.
        loops.Stopped: when asked to stop; the same call goes on.
    """
    if executor not in EXECUTORS:
        raise unknown("executor", executor, EXECUTORS)
    if workers < 1:
        raise InputError(f"workers={workers}: expected 1 or more")
    if executor != "here" and jax.process_count() > 1:
        raise InputError(
            f"executor={executor} in {jax.process_count()} processes that share their runs: launchers run cells "
            "alone; expected here"
        )
    made = spec if isinstance(spec, Spec) else load_spec(spec)
    folder = pathlib.Path(workdir)
    if executor != "here":
        begin(made, folder, amend)  # what does not fit is said here, once
        _launch(made, folder, executor, workers, stop_requested)
    return run(made, folder, stop_requested, amend=amend)


def train_cells(spec: Spec, workdir: pathlib.Path, workers: int, gpu: int | None) -> None:
    """Trains what no other launcher has claimed; the work of one of `workers` that submitit starts."""
    if gpu is not None:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(gpu))
    # So that none takes all cells that one program could train.
    share = max(1, len(expand(spec)) // workers)
    run(spec, workdir, train_only=True, width=min(planner.WIDTH, share))


def _launch(
    spec: Spec,
    workdir: pathlib.Path,
    cluster: str,
    workers: int,
    stop_requested: Callable[[], bool],
) -> None:
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise InputError(
            "--executor=local and slurm need submitit: pip install 'tl_jax[cluster]'; or --executor=here"
        ) from error
    starter = submitit.AutoExecutor(folder=workdir / "jobs" / "%j", cluster=cluster)
    starter.update_parameters(timeout_min=60 * _HOURS, name=f"ablate-{workdir.name}")
    count = len(list(pathlib.Path("/dev").glob("nvidia[0-9]*"))) if cluster == "local" else 0
    jobs = [
        starter.submit(
            train_cells,
            spec,
            workdir.absolute(),
            workers,
            number % count if count else None,
        )
        for number in range(workers)
    ]
    console.say(f"{workers} launchers ({cluster}); what each says: {workdir / 'jobs'}")
    left = list(jobs)
    while left:
        if stop_requested():
            for job in left:
                job.cancel()
            break
        left = [job for job in left if not job.done()]
        time.sleep(_POLL_SECONDS if left else 0.0)
    for job in jobs:
        if job.done() and job.state not in ("FINISHED", "COMPLETED"):
            console.note(f"launcher {job.job_id} ended as {job.state}: see {workdir / 'jobs'}")
