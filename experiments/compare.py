"""Compares methods over seeds, as an ablation; or finished runs side by side, training nothing.

python -m experiments.compare --config=configs/quickstart.py --workdir=runs/quickstart
python -m experiments.compare runs/probe runs/tuned runs/other --out=runs/comparison

With --config, `config.compare` names the methods, what each of them sets, and the seeds: the variants of an ablation,
see docs/ablations.md, and --dry_run, --peek, --amend, --executor, --workers and --resources are as of
`experiments.ablate`. With run folders, the first is the one that the others are compared with.
"""

from absl import flags

from experiments import cli
from tl_jax import ablation
from tl_jax.errors import InputError
from tl_jax.runs import compare_runs

cli.define_run_flags()
cli.define_ablation_flags()
cli.define_out_flag()


def main(*runs: str) -> None:
    """Runs the ablation of a config and writes its tables into the workdir, or compares runs."""
    if runs:
        _check_alone(runs)
        compare_runs.run(runs, cli.out())
        return
    if cli.out() is not None:
        raise InputError("--out is of run folders: experiments.compare RUN RUN --out=DIR")
    if not flags.FLAGS.config:
        raise InputError(
            "--config=FILE must be given, or the folders of two finished runs or more; --help says how"
        )
    cli.ablate(lambda: ablation.spec_of(cli.config()))


def _check_alone(runs: tuple[str, ...]) -> None:
    for name in ("config", "workdir", *cli.ABLATION_FLAGS):
        if flags.FLAGS[name].present:
            instead = "; --out=DIR is where the comparison is written" if name == "workdir" else ""
            raise InputError(
                f"{runs[0]} and --{name}: expected --config to run methods over seeds, or the folders of finished "
                f"runs{instead}"
            )


if __name__ == "__main__":
    cli.run(main)
