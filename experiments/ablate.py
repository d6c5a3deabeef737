"""Runs an ablation: variants over seeds, chosen by validation, with test opened last.

python -m experiments.ablate --spec=configs/ablations/null.py --workdir=runs/null

--config.FIELD=VALUE changes the base of the spec. See tl_jax/ablation.
"""

from experiments import cli
from tl_jax import ablation

cli.define_spec_flags()
cli.define_ablation_flags()


def main() -> None:
    """Runs all cells that are not done, and writes the tables into the workdir."""
    cli.ablate(lambda: ablation.load_spec(cli.spec(), cli.changes()))


if __name__ == "__main__":
    cli.run(main)
