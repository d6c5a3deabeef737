"""How much of the packaged ResNet-20 to train on CIFAR-10, by labelled images per class.

Command:
    python -m experiments.ablate --spec=configs/ablations/cifar10_depth.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_depth

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Setting: 4 depths x 3 numbers of labels x 5 seeds, the learning rate of each chosen on 5,000 images held out of train
from as many values for all. Activations of what is frozen are computed once.
Result: docs/ablations.md; with 20 labels and more whatever trains beyond the head is better than the head alone.
"""

import pathlib

import tl_jax
from tl_jax.ablation import Spec

_STORED = ("augment.crop_padding=0", "augment.flip=False", "cache.boundary=auto")


def get_spec() -> Spec:
    """Returns depths from the head alone to the whole network."""
    base = tl_jax.load_config(pathlib.Path(__file__).parent.parent / "cifar10_compare.py")
    base.train.epochs, base.train.steps = 0.0, 150
    base.optim.warmup_epochs, base.optim.warmup_steps = 0.0, 15
    base.data.batch_size = 50
    base.report.html = base.report.tensorboard = False
    return Spec(
        base,
        variants={
            "head": ("freeze.strategy=backbone", *_STORED),
            "last_stage": ("freeze.strategy=up_to:stage2", *_STORED),
            "last_two_stages": ("freeze.strategy=up_to:stage1", *_STORED),
            "all": ("augment.crop_padding=0", "augment.flip=False"),
        },
        seeds=(0, 1, 2, 3, 4),
        shots=(5, 20, 100),
        tune={"optim.learning_rate": (0.01, 0.05)},
        baseline="head",
    )
