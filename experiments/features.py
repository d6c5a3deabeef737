"""Saves the features of a network for train, validation and test, as .npz or TFDS files.

python -m experiments.features --config=configs/cifar10_linear_probe.py --workdir=runs/cifar10_features

Of the config it is the model, weights and data that count; `config.features` says at which boundary and in which
format. See tl_jax/runs/features.py.
"""

from experiments import cli
from tl_jax.runs import features

cli.define_run_flags()


def main() -> None:
    """Computes the features and writes the files."""
    features.run(cli.config(), cli.workdir(), cli.stop_requested)


if __name__ == "__main__":
    cli.run(main)
