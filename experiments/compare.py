"""Compares methods over seeds; every cell is an ordinary run, and a finished one is not run again.

python -m experiments.compare --config=configs/quickstart.py --workdir=runs/quickstart

`config.compare` names the methods, what each of them sets, and the seeds. See tl_jax/runs/compare.py.
"""

from experiments import cli
from tl_jax.runs import compare

cli.define_run_flags()


def main() -> None:
    """Runs all cells and writes the comparison into the workdir."""
    compare.run(cli.config(), cli.workdir(), cli.stop_requested)


if __name__ == "__main__":
    cli.run(main)
