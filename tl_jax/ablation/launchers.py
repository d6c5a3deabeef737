"""Launchers that submitit starts: each trains what no other has claimed; this process shows how far they are.

They share the folder of the ablation, so that one that is killed loses no more than the updates since the last
checkpoint of its cells.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from tl_jax import console
from tl_jax.ablation import gpus, planner, report, states
from tl_jax.ablation.cells import expand
from tl_jax.ablation.engine import run
from tl_jax.ablation.live_table import LiveTable
from tl_jax.ablation.outlook import TRAINED
from tl_jax.ablation.record import Record
from tl_jax.ablation.spec import Spec
from tl_jax.ablation.work import Pace
from tl_jax.errors import InputError
from tl_jax.training.loops import Stopped

CLUSTERS = ("local", "slurm")
JOBS = "jobs"  # below the folder of the ablation: what launchers say
_POLL_SECONDS = 1.0
# Between questions to the cluster; those that end as they should are seen before by what they leave.
_LOOK_SECONDS = 30.0
_MINUTES = 24 * 60
# Of JAX, what launchers are to have as this process has it.
_SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


class Launcher:
    """The work of one of several launchers: trains cells, and stops with a checkpoint on SIGTERM."""

    def __init__(
        self, spec: Spec, workdir: pathlib.Path, cluster: str, workers: int, gpu: str | None
    ):
        """Does nothing yet.

        Args:
            spec: of the ablation.
            workdir: of the ablation.
            cluster: one of `CLUSTERS`.
            workers: launchers there are.
            gpu: that it has; None: what submitit gives it.
        """
        self._spec, self._workdir, self._workers, self._gpu = spec, workdir, workers, gpu
        # Of one machine: they end, with checkpoints, where the command that started them is gone.
        self._starter = os.getpid() if cluster == "local" else None
        self._settings = {name: getattr(jax.config, name) for name in _SETTINGS}

    def __call__(self) -> None:
        """Trains what no other launcher has claimed."""
        if self._gpu is not None:
            gpus.take(self._gpu)
        for name, value in self._settings.items():
            jax.config.update(name, value)
        asked = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: asked.set())
        # So that none takes all cells that one program could train.
        record = Record(self._workdir)
        left = sum(not states.is_trained(cell, record.cell(cell)) for cell in expand(self._spec))
        share = max(1, left // self._workers)
        with contextlib.suppress(Stopped):
            run(
                self._spec,
                self._workdir,
                lambda: asked.is_set() or self._is_left(),
                train_only=True,
                width=min(planner.WIDTH, share),
            )

    def _is_left(self) -> bool:
        """Returns whether the command that started it, on this machine, is gone."""
        if self._starter is None:
            return False
        try:
            os.kill(self._starter, 0)
        except ProcessLookupError:
            return True
        return False

    def checkpoint(self) -> Any:
        """Returns what submitit starts again where the time of a job is up: the same, which goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def check(cluster: str, resources: Mapping[str, Any]) -> None:
    """Looks whether submitit could start launchers here.

    Args:
        cluster: one of `CLUSTERS`.
        resources: see `train`.

    Raises:
        InputError: if it is not installed, finds no such cluster, or does not know a resource.
    """
    try:
        import submitit  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"--executor={cluster} needs submitit: pip install 'tl_jax[cluster]'; or --executor=here"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        _starter(pathlib.Path(folder), cluster, resources)


def train(
    spec: Spec,
    workdir: pathlib.Path,
    cluster: str,
    workers: int,
    resources: Mapping[str, Any],
    stop_requested: Callable[[], bool],
) -> None:
    """Starts launchers, and shows how far they are until the last one has ended.

    Args:
        spec: of the ablation, whose folder was begun.
        workdir: of the ablation.
        cluster: one of `CLUSTERS`.
        workers: launchers.
        resources: what each has, by submitit's names, such as `gpus_per_node` or `slurm_partition`.
        stop_requested: whether to stop; launchers are then asked to.

    Raises:
        InputError: as `check`.
        Stopped: when asked to stop, once all launchers have.
    """
    folder = workdir.absolute()
    jobs: list[Any] = []
    try:
        _start(jobs, spec, folder, cluster, workers, resources)
        console.say(f"{workers} launchers ({cluster}); what each says: {workdir / JOBS}")
        asked = _watch(jobs, spec, folder, cluster, stop_requested)
    finally:
        _stop(jobs, cluster)  # None is left where this process ends otherwise.
    if asked:
        raise Stopped(0)


def _watch(
    jobs: list[Any],
    spec: Spec,
    folder: pathlib.Path,
    cluster: str,
    stop_requested: Callable[[], bool],
) -> bool:
    """Shows how far jobs are, and takes those off the list that have ended; returns whether they were to stop."""
    cells, record = expand(spec), Record(folder)
    asked, looked = False, time.monotonic()
    with LiveTable(report.title(spec), cells) as shown:
        pace = Pace(TRAINED, len(cells), shown.there(record), shown.pace)
        while jobs:
            looks = time.monotonic() - looked >= _LOOK_SECONDS
            looked = time.monotonic() if looks else looked
            stops = stop_requested()
            if stops and not asked:
                shown.say("stopping: launchers save checkpoints")
            # Again and again: a launcher that is about to begin does not listen yet.
            if stops and (not asked or looks or cluster == "local"):
                _stop(jobs, cluster)
            asked = asked or stops
            for job in [job for job in jobs if job.done(force_check=looks)]:
                jobs.remove(job)
                problem = _problem(job, cluster)
                if problem and not asked:
                    shown.say(f"launcher {job.job_id} {problem}: see {job.paths.stderr}")
            pace.say(shown.look(record))
            time.sleep(_POLL_SECONDS if jobs else 0.0)
    return asked


def _start(
    jobs: list[Any],
    spec: Spec,
    folder: pathlib.Path,
    cluster: str,
    workers: int,
    resources: Mapping[str, Any],
) -> None:
    """Starts jobs of submitit, and puts each on the list."""
    own: list[str | None] = [None]
    if cluster == "local" and not any("gpu" in name for name in resources):
        own = [*gpus.visible()] or own
    starter = _starter(folder, cluster, resources)
    # On a cluster, Ctrl-C does not reach them.
    with _deaf_to_interrupts() if cluster == "local" else contextlib.nullcontext():
        for number in range(workers):
            launcher = Launcher(spec, folder, cluster, workers, own[number % len(own)])
            try:
                jobs.append(starter.submit(launcher))
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                raise InputError(f"--executor={cluster}: {error}") from error


def _starter(folder: pathlib.Path, cluster: str, resources: Mapping[str, Any]) -> Any:
    """Returns what starts jobs.

    Raises:
        InputError: as `check`.
    """
    import submitit

    for name, value in resources.items():
        if name.endswith("setup") and (cluster == "local" or isinstance(value, str)):
            raise InputError(
                f"resources: {name}={value!r}: expected a list of commands, on a cluster; on one machine run them "
                "before this one"
            )
    given = {"timeout_min": _MINUTES, "name": f"ablate-{folder.name}", **resources}
    try:
        starter = submitit.AutoExecutor(folder=folder / JOBS, cluster=cluster)
        starter.update_parameters(**given)
    except AssertionError as error:  # of a value of another type
        raise InputError(f"--executor={cluster}, resources {dict(resources)}: {error}") from error
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise InputError(f"--executor={cluster}: {error}") from error
    return starter


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started inside ignore Ctrl-C, which a terminal sends to all: they are asked to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(jobs: Sequence[Any], cluster: str) -> None:
    """Asks launchers to stop with SIGTERM, which submitit passes on; on SLURM it ends those that still wait."""
    for job in jobs:
        if cluster == "local":
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)
        else:
            job.cancel(check=False)


def _problem(job: Any, cluster: str) -> str:
    """Returns how a job ended that did not do its work; "" of others."""
    # On one machine there is no waiting for a file that another has written.
    if cluster == "local" and not job.paths.result_pickle.is_file():
        return "was killed, what it has left is done by others"
    return "failed" if job.exception() is not None else ""
