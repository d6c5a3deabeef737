"""What BatchNorm does while the packaged ResNet-20 is adapted to CIFAR-10, by labelled images per class.

Command:
    python -m experiments.ablate --spec=configs/ablations/cifar10_batch_norm.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_batch_norm

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Setting: the head alone is trained with three policies of the frozen BatchNorm, all parameters with BatchNorm as it is
and with BatchNorm frozen; 2 numbers of labels x 5 seeds, the learning rate of each chosen by validation.
Result: docs/findings.md.
"""

import pathlib

import tl_jax
from tl_jax.ablation import Spec

_HEAD = "freeze.strategy=backbone"


def get_spec() -> Spec:
    """Returns policies of BatchNorm under a frozen and under a trained backbone."""
    base = tl_jax.load_config(pathlib.Path(__file__).parent.parent / "few_labels_cifar10.py")
    return Spec(
        base,
        variants={
            "head_frozen": (_HEAD, "freeze.batch_norm=frozen"),
            "head_batch_statistics": (_HEAD, "freeze.batch_norm=batch_stats_no_update"),
            "head_updated": (_HEAD, "freeze.batch_norm=update"),
            "all_updated": (),
            "all_frozen": (r"freeze.patterns=.*/bn\d?/.*",),
        },
        seeds=(0, 1, 2, 3, 4),
        shots=(10, 100),
        tune={"optim.learning_rate": (0.02, 0.1)},
        baseline="head_frozen",
    )
