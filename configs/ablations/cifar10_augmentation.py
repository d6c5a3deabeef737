"""Stronger and stronger augmentation of CIFAR-10, by labelled images per class.

Command:
    python -m experiments.ablate --spec=configs/ablations/cifar10_augmentation.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_augmentation

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Setting: all parameters of the packaged ResNet-20 are trained; 3 numbers of labels x 5 seeds.
RandAugment comes after crop and flip; its magnitudes are of 30.
Result: docs/findings.md.
"""

import pathlib

import tl_jax
from tl_jax.ablation import Spec


def get_spec() -> Spec:
    """Returns no augmentation, crop and flip, and RandAugment of three magnitudes."""
    base = tl_jax.load_config(pathlib.Path(__file__).parent.parent / "few_labels_cifar10.py")
    return Spec(
        base,
        variants={
            "none": ("augment.crop_padding=0", "augment.flip=False"),
            "crop_flip": (),
            "rand_augment_3": ("augment.operations=rand_augment=3",),
            "rand_augment_9": ("augment.operations=rand_augment=9",),
            "rand_augment_15": ("augment.operations=rand_augment=15",),
        },
        seeds=(0, 1, 2, 3, 4),
        shots=(10, 100, 1000),
        baseline="crop_flip",
    )
