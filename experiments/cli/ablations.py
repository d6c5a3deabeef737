"""The flags of ablations, alike for every command that runs one, and what they ask for."""

import functools
from collections.abc import Callable

from absl import flags

from experiments.cli import arguments, runtime
from tl_jax import ablation, reporting
from tl_jax.errors import InputError

ABLATION_FLAGS = ("dry_run", "peek", "amend", "executor", "workers", "resources")


@functools.cache
def define_ablation_flags() -> None:
    """Defines `ABLATION_FLAGS`, and --protocol."""
    arguments.define_protocol_flag()
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Print what is left to do and about how long it takes, with --verbose every run; train nothing.",
    )
    flags.DEFINE_enum(
        "peek", None, ["validation"], "Show validation as far as it is known, and train nothing."
    )
    flags.DEFINE_string(
        "amend", "", "Why the spec is changed after test was opened; it is logged and shown."
    )
    flags.DEFINE_string(
        "executor", "here", "Where cells are run: here, or by launchers: local, slurm."
    )
    flags.DEFINE_integer("workers", 2, "Launchers, with --executor=local or slurm.")
    flags.DEFINE_list(
        "resources",
        [],
        "Of each launcher, by submitit's names, such as gpus_per_node=1,slurm_partition=gpu.",
    )


def ablate(load: Callable[[], ablation.Spec]) -> None:
    """Does with a spec what the flags ask for.

    Args:
        load: returns the spec; called once --workdir is known to be given.
    """
    given = flags.FLAGS
    if given.dry_run and given.peek:
        raise InputError("--dry_run and --peek: give one")
    resources = dict(map(_resource, given.resources))
    if given.executor == "here" and (resources or given["workers"].present):
        raise InputError(
            "--workers and --resources are of launchers: add --executor=local or slurm"
        )
    ablation.check_launchers(given.executor, given.workers, resources)
    if given.dry_run:
        folder = arguments.workdir() if given.workdir else None
        outlook = ablation.look_ahead(load(), folder, given.amend)
        reporting.print_table("Runs", outlook.cells)
        reporting.print_table("Left to do", outlook.left, level="normal")
        return
    workdir = arguments.workdir()
    spec = load()
    if given.peek is not None:
        ablation.run(spec, workdir, peek=True)
    else:
        ablation.ablate(
            spec,
            workdir,
            executor=given.executor,
            workers=given.workers,
            resources=resources,
            amend=given.amend,
            stop_requested=runtime.stop_requested,
            progress=True,
        )


def _resource(text: str) -> tuple[str, int | str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--resources: {text!r}: expected NAME=VALUE, such as gpus_per_node=1")
    return name, int(value) if value.isdigit() else value
