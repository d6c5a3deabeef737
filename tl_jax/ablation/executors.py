"""Where the cells of an ablation are run: in this process, or by several launchers."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections

from tl_jax import console
from tl_jax.ablation import gpus, launchers
from tl_jax.ablation.engine import begin, run
from tl_jax.ablation.methods import spec_of
from tl_jax.ablation.spec import Spec, load_spec
from tl_jax.errors import InputError, unknown
from tl_jax.runs.stopping import StopRequest

# This process, or what submitit calls the others.
EXECUTORS = ("here", *launchers.CLUSTERS)


def ablate(
    spec: Spec | ml_collections.ConfigDict | str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    executor: str = "here",
    workers: int = 2,
    resources: Mapping[str, Any] | None = None,
    amend: str = "",
    stop_requested: Callable[[], bool] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Runs an ablation: variants over seeds, chosen by validation, with test read last.

    With "local" or "slurm", launchers train the cells, and this process does what they leave: cells of launchers that
    were killed, the choice, the reading of test, the tables.

    Args:
        spec: what is compared, the file of it, or a config with methods in `config.compare`.
        workdir: of the ablation, a folder that all launchers see; the same call goes on with what is there.
        executor: one of `EXECUTORS`.
        workers: launchers, where there are any; each local one has one of this machine's GPUs, in turn.
        resources: of each launcher, by submitit's names: {"gpus_per_node": 1, "slurm_partition": "gpu"}.
        amend: why the spec is changed after test was read; see `Record.begin`.
        stop_requested: whether to stop; asked between updates. None: once there was an interrupt, such as Ctrl-C or
            the stop button of a notebook.
        progress: whether what a command prints is printed.

    Returns:
        What `ablation.json` holds.

    Raises:
        InputError: before anything is trained, if the spec or the folder does not fit, or submitit is not installed.
        loops.Stopped: when asked to stop; the same call goes on.
    """
    check_launchers(executor, workers, resources or {})
    amend = amend.strip()
    made = as_spec(spec)
    if not isinstance(workdir, str | os.PathLike):
        raise InputError(f"workdir={workdir!r}: expected the path of a folder")
    folder = pathlib.Path(workdir).expanduser()
    with contextlib.ExitStack() as held:
        if not progress:
            held.enter_context(console.verbosity("silent"))
        stop = stop_requested or held.enter_context(StopRequest())
        if executor != "here":
            _train_elsewhere(made, folder, executor, workers, resources or {}, amend, stop)
        return run(made, folder, stop, amend=amend)


def _train_elsewhere(
    spec: Spec,
    folder: pathlib.Path,
    executor: str,
    workers: int,
    resources: Mapping[str, Any],
    amend: str,
    stop_requested: Callable[[], bool],
) -> None:
    if executor == "local":  # This process and launchers may share a GPU.
        gpus.share()
    begin(spec, folder, amend)  # what does not fit is said here, once
    launchers.train(spec, folder, executor, workers, resources, stop_requested)


def check_launchers(executor: str, workers: int, resources: Mapping[str, Any]) -> None:
    """Looks whether cells could be run so; see `ablate`.

    Raises:
        InputError: if not.
    """
    if executor not in EXECUTORS:
        raise unknown("executor", executor, EXECUTORS)
    if not isinstance(workers, int) or workers < 1:
        raise InputError(f"workers={workers!r}: expected an integer, 1 or more")
    if not isinstance(resources, Mapping):
        raise InputError(f"resources={resources!r}: expected {{name: value}}, by submitit's names")
    if executor == "here":
        if resources:
            raise InputError("resources are of launchers: expected executor local or slurm")
        return
    if jax.distributed.is_initialized():
        raise InputError(
            f"executor={executor} in {jax.process_count()} processes that share their runs: launchers run cells "
            "alone; expected here"
        )
    launchers.check(executor, resources)


def as_spec(given: Spec | ml_collections.ConfigDict | str | os.PathLike[str]) -> Spec:
    """Returns a spec: itself, of its file, or of a config with methods.

    Raises:
        InputError: if it is none of these, or does not fit.
    """
    if isinstance(given, Spec):
        return given
    if isinstance(given, ml_collections.ConfigDict):
        return spec_of(given)
    if isinstance(given, str | os.PathLike):
        return load_spec(given)
    raise InputError(
        f"spec is a {type(given).__name__}: expected an ablation.Spec, the path of its file, or a config with "
        "compare.methods"
    )
