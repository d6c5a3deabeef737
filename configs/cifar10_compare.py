"""Random initialisation, linear probe and full fine-tuning of the packaged ResNet-20 on CIFAR-10, equal epochs.

Command:
    python -m experiments.compare --config=configs/cifar10_compare.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_compare

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Setting: 200 images per class of train are used (2,000 in all), chosen by the seed, since the table is meant for
a CPU; 5,000 others are held out of train to choose a method by. All 10,000 test images are counted.
Result: see README.md. results/cifar10_compare.json was recorded with --config.data.validation_fraction=0.0:
nothing was held out, and its labelled images are others of train.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns full fine-tuning; `compare` holds what the other methods change."""
    config = tl_jax.default_config()
    config.model.name = "resnet20_cifar"
    config.init.weights = "resnet20_cifar.tin32"
    config.data.examples_per_class = 200
    config.data.validation_fraction = 0.1
    config.data.batch_size = 64
    config.augment.crop_padding = 2
    config.optim.learning_rate = 0.05
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.warmup_epochs = 1.0
    config.train.epochs = 8.0
    config.train.eval_every_epochs = 0.0  # only at the end: no step is chosen by validation

    config.compare.seeds = (0, 1, 2)
    config.compare.baseline = "random_init"
    config.compare.methods.random_init = ("init.weights=", "optim.learning_rate=0.1")
    config.compare.methods.linear_probe = ("freeze.strategy=backbone", "optim.learning_rate=0.1")
    config.compare.methods.full_finetune = ()
    return config
