"""Trains a new head on the packaged ResNet-20, its backbone frozen, on all of CIFAR-10: features computed once.

Command:
    python -m experiments.finetune --config=configs/cifar10_linear_probe.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_linear_probe

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Result: see docs/benchmarks.md. A second run, and any other learning rate, schedule, seed or number of epochs, finds
the features in `cache.dir`; --config.cache.boundary= trains on images instead, to the same parameters.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns ten epochs of a linear probe on stored features."""
    config = tl_jax.default_config()
    config.model.name = "resnet20_cifar"
    config.init.weights = "resnet20_cifar.tin32"
    config.freeze.strategy = "backbone"
    config.cache.boundary = "auto"
    config.augment.crop_padding = 0
    config.augment.flip = False
    config.optim.learning_rate = 0.1
    config.optim.nesterov = True
    config.optim.weight_decay = 0.0
    config.train.epochs = 10.0
    return config
