"""Trains from random weights: the loop of `finetune`, for weights that others will fine-tune.

python -m experiments.pretrain --config=configs/tinyimagenet32_resnet20_pretrain.py --workdir=runs/pretrain
"""

from experiments import cli
from tl_jax.runs import training

cli.define_run_flags()
cli.define_protocol_flag()


def main() -> None:
    """Runs the config, which must name no pretrained weights."""
    training.pretrain(cli.config(), cli.workdir(), cli.stop_requested)


if __name__ == "__main__":
    cli.run(main)
