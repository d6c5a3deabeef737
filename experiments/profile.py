"""Measures one training step of a config, part by part, and writes a trace of it.

python -m experiments.profile --config=configs/cifar10_resnet18_finetune.py --workdir=profiles/resnet18

Leaves `profile.json` and `trace/` (for TensorBoard's profile plugin or xprof). Nothing is trained.
"""

from experiments import cli
from tl_jax.runs import profile

cli.define_run_flags()


def main() -> None:
    """Profiles what the flags say."""
    profile.profile(cli.config(), cli.workdir())


if __name__ == "__main__":
    cli.run(main)
