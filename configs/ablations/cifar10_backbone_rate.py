"""The learning rate of the backbone as a share of that of the head, on CIFAR-10, by labelled images per class.

Command:
    python -m experiments.ablate --spec=configs/ablations/cifar10_backbone_rate.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_backbone_rate

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Setting: all parameters of the packaged ResNet-20 are trained, BatchNorm updated; 2 numbers of labels x 5 seeds, the
learning rate of the head chosen by validation.
Result: docs/findings.md.
"""

import pathlib

import tl_jax
from tl_jax.ablation import Spec


def get_spec() -> Spec:
    """Returns shares from a hundredth to the whole."""
    base = tl_jax.load_config(pathlib.Path(__file__).parent.parent / "few_labels_cifar10.py")
    shares = (0.01, 0.03, 0.1, 0.3)
    return Spec(
        base,
        variants={
            "1": (),
            **{
                f"{share:g}": (f"optim.lr_multipliers=('head/.*=1', '.*={share:g}')",)
                for share in reversed(shares)
            },
        },
        seeds=(0, 1, 2, 3, 4),
        shots=(10, 100),
        tune={"optim.learning_rate": (0.02, 0.1)},
        baseline="1",
    )
