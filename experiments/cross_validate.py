"""Cross-validates a training run: a run for each fold of train, which reports on that fold.

python -m experiments.cross_validate --config=configs/folder_finetune.py --workdir=runs/photos_folds \
    --config.cross_validate.folds=5

The test split is not read. A finished run is not made again. See tl_jax/runs/cross_validate.py.
"""

from experiments import cli
from tl_jax.runs import cross_validate

cli.define_run_flags()
cli.define_strategy_flag()


def main() -> None:
    """Makes all runs and writes the table into the workdir."""
    cross_validate.run(cli.config(), cli.workdir(), cli.stop_requested)


if __name__ == "__main__":
    cli.run(main)
