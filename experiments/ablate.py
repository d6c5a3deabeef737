"""Runs an ablation: variants over seeds, chosen by validation, with test opened last.

python -m experiments.ablate --spec=configs/ablations/null.py --workdir=runs/null

--config.FIELD=VALUE changes the base of the spec. See tl_jax/ablation.
"""

from absl import flags

from experiments import cli
from tl_jax import ablation, reporting

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
flags.DEFINE_string("executor", "here", "Where cells are run: here, or by launchers: local, slurm.")
flags.DEFINE_integer("workers", 2, "Launchers, with --executor=local or slurm.")
cli.define_spec_flags()


def main() -> None:
    """Runs all cells that are not done, and writes the tables into the workdir."""
    spec = ablation.load_spec(cli.spec(), cli.changes())
    if flags.FLAGS.dry_run:
        workdir = cli.workdir() if flags.FLAGS.workdir else None
        reporting.print_table("Runs", ablation.plan(spec, workdir))
        reporting.print_table("Left to do", ablation.look_ahead(spec, workdir), level="normal")
    elif flags.FLAGS.peek is not None:
        ablation.run(spec, cli.workdir(), peek=True)
    else:
        ablation.ablate(
            spec,
            cli.workdir(),
            executor=flags.FLAGS.executor,
            workers=flags.FLAGS.workers,
            amend=flags.FLAGS.amend,
            stop_requested=cli.stop_requested,
        )


if __name__ == "__main__":
    cli.run(main)
