"""Fine-tunes a network on a data set: the main job.

python -m experiments.finetune --config=configs/cifar10_resnet18_finetune.py --workdir=runs/cifar10
"""

from experiments import cli, training

_CONFIG = cli.define_config()
_WORKDIR = cli.define_workdir()


def main() -> None:
    """Trains, or resumes, as the config says."""
    training.run(cli.required(_CONFIG), cli.required_path(_WORKDIR))


if __name__ == "__main__":
    cli.run(main)
