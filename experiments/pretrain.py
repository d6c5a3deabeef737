"""Trains from random weights: the loop of `finetune`, for weights that others will fine-tune.

python -m experiments.pretrain --config=configs/tinyimagenet32_resnet20_pretrain.py --workdir=runs/pretrain
"""

from experiments import cli, training
from tl_jax.errors import InputError

_CONFIG = cli.define_config()
_WORKDIR = cli.define_workdir()


def main() -> None:
    """Runs the config, which must name no pretrained weights."""
    config, workdir = cli.required(_CONFIG), cli.required_path(_WORKDIR)
    if config.init.weights:
        raise InputError(
            f"init.weights={config.init.weights!r}: pretrain starts from random weights; use experiments.finetune"
        )
    training.run(config, workdir)


if __name__ == "__main__":
    cli.run(main)
