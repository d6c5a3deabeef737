"""Trains many combinations of hyperparameters and seeds as one program, and chooses by validation.

python -m experiments.sweep --config=configs/digits_sweep.py --workdir=runs/digits_sweep

`config.sweep` holds the values of each swept field. See tl_jax/runs/sweep.py.
"""

from experiments import cli
from tl_jax.runs import sweep

cli.define_run_flags()


def main() -> None:
    """Runs the sweep and prints its result."""
    sweep.run(cli.config(), cli.workdir(), cli.stop_requested)


if __name__ == "__main__":
    cli.run(main)
