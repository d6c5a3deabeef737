"""Advice before a run: does transfer pay on these images, how deep to freeze, what to try first, what it costs.

    python -m experiments.advise --config=configs/few_labels_cifar10.py --workdir=runs/advice

Of the config the model, weights, data and length count; `config.advise` says how many images are looked at.
Validation and test are not. See tl_jax/advice.
"""

from absl import flags

from experiments import cli
from tl_jax import advice

cli.define_run_flags()


def main() -> None:
    """Prints the advice, and writes it where --workdir says."""
    workdir = cli.workdir() if flags.FLAGS.workdir else None
    advice.advise(cli.config(), workdir, cli.stop_requested)


if __name__ == "__main__":
    cli.run(main)
