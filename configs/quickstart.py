"""Transfer on a bare machine: the packaged ResNet-20 meets handwritten digits, two labelled ones per class.

Commands:
    make quickstart      all methods over all seeds, a table and a report (experiments.compare)
    python -m experiments.finetune --config=configs/quickstart.py --workdir=runs/digits      one full fine-tuning

Needs: nothing; weights and data are embedded.
Result: see the first table of README.md.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns full fine-tuning; `compare` holds what the other methods change."""
    config = base.get_config()
    config.model.name = "resnet20_cifar"
    config.init.weights = "resnet20_cifar.tin32"
    config.data.name = "digits"
    # 648 digits to take labelled and validation images from; the other 1,149 are all test.
    config.data.train_split = "train[:50%]"
    config.data.test_split = "test+train[50%:]"
    config.data.validation_fraction = 0.5
    config.data.examples_per_class = 2
    config.data.batch_size = 20
    config.augment.crop_padding = 0  # random crops cost random initialisation more than fine-tuning
    config.augment.flip = False
    config.optim.learning_rate = 0.05
    config.optim.weight_decay = 5e-4
    config.optim.warmup_steps = 10
    config.train.steps = 80
    config.train.eval_every_epochs = (
        0.0  # the last step is reported: no step is chosen by validation
    )
    config.train.log_every_steps = 10

    config.compare = ml_collections.ConfigDict()
    config.compare.seeds = (0, 1, 2, 3, 4)
    config.compare.baseline = "random_init"
    config.compare.methods = ml_collections.ConfigDict()
    config.compare.methods.random_init = ("init.weights=",)
    config.compare.methods.linear_probe = ("freeze.strategy=backbone", "optim.learning_rate=0.1")
    config.compare.methods.full_finetune = ()
    return config
