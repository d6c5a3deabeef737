"""The linear probe of the literature: logistic regression on the features of a frozen network.

python -m experiments.probe --config=configs/cifar10_linear_probe.py --workdir=runs/cifar10_probe

Of the config it is the model, weights and data that count; `config.probe` holds the grid of L2 strengths. See
tl_jax/runs/probe.py.
"""

from experiments import cli
from tl_jax.runs import probe

cli.define_run_flags()


def main() -> None:
    """Runs the probe and prints its result."""
    probe.run(cli.config(), cli.workdir(), cli.stop_requested)


if __name__ == "__main__":
    cli.run(main)
