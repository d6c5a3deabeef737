"""Learning rate, weight decay and seed of a linear probe on handwritten digits: 36 members in one program.

Command:
    python -m experiments.sweep --config=configs/digits_sweep.py --workdir=runs/digits_sweep

Needs: nothing; weights and data are embedded.
Result: in runs/digits_sweep/sweep.html: the mean over seeds of the chosen combination, with its interval.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns the linear probe; `sweep` holds the values of what is swept."""
    config = tl_jax.default_config()
    config.model.name = "resnet20_cifar"
    config.init.weights = "resnet20_cifar.tin32"
    config.data.name = "digits"
    config.data.validation_fraction = 0.2
    config.data.batch_size = 64
    config.augment.crop_padding = 0
    config.augment.flip = False
    config.freeze.strategy = "backbone"
    config.cache.boundary = "auto"
    config.train.epochs = 40.0
    config.train.eval_every_epochs = 2.0

    config.sweep.learning_rate = (0.03, 0.1, 0.3, 1.0)
    config.sweep.weight_decay = (0.0, 1e-4, 1e-3)
    config.sweep.seed = (0, 1, 2)
    config.sweep.patience = 8  # evaluations without a new best; 0: none stops early
    return config
