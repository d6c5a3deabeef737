"""Trains a new head on an ImageNet ResNet-50, its backbone frozen, on CIFAR-10 at 224 px: features computed once.

Command:
    python -m experiments.finetune --config=configs/cifar10_resnet50_linear_probe.py \
        --workdir=runs/cifar10_resnet50_linear_probe

Needs: CIFAR-10, the weights resnet50.tv_in1k (from the Hugging Face hub, or a local file in --config.init.weights),
and an accelerator.
Result: not yet measured here. Sources: 91.8 to 93.6% (Kumar et al. 2022, Table 1; Grill et al. 2020, Table 3).
"""

import pathlib

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns ten epochs of a linear probe on stored features."""
    config = tl_jax.load_config(pathlib.Path(__file__).with_name("cifar10_resnet50_finetune.py"))
    config.freeze.strategy = "backbone"
    config.cache.boundary = "auto"
    config.augment.crop_padding = 0
    config.augment.flip = False
    config.optim.learning_rate = 0.1
    config.optim.weight_decay = 0.0
    return config
