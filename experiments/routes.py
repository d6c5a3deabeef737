"""Fits classic classifiers to features of a network: LDA, logistic regression, SVMs and k-NN.

python -m experiments.routes --config=configs/cifar10_linear_probe.py --workdir=runs/cifar10_routes

Each stands behind PCA or none. Of the config it is the model, weights and data that count; `config.features` says
which features, `config.routes` which classifiers and what is tried. See tl_jax/runs/routes.py.
"""

from experiments import cli
from tl_jax.runs import routes

cli.define_run_flags()


def main() -> None:
    """Searches, fits and measures each route, and writes the table."""
    routes.run(cli.config(), cli.workdir(), cli.stop_requested)


if __name__ == "__main__":
    cli.run(main)
