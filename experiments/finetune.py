"""Fine-tunes a network on a data set: the main job.

python -m experiments.finetune --config=configs/cifar10_resnet18_finetune.py --workdir=runs/cifar10
"""

from experiments import cli
from tl_jax.runs import training

cli.define_run_flags()
cli.define_strategy_flag()
cli.define_protocol_flag()


def main() -> None:
    """Trains, or resumes, as the config says."""
    training.run(cli.config(), cli.workdir(), cli.stop_requested)


if __name__ == "__main__":
    cli.run(main)
