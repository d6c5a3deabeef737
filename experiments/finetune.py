"""Fine-tunes a network on a data set: the main job.

    python -m experiments.finetune --config=configs/cifar10_resnet18_finetune.py --workdir=runs/cifar10
"""

from experiments import cli, training

_values = cli.define_config()


def main() -> None:
    """Trains, or resumes, as the config says."""
    training.run(*_values())


if __name__ == "__main__":
    cli.run(main)
