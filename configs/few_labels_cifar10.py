"""The packaged ResNet-20 on CIFAR-10 with few labels, in seconds on two cores: what ablations change.

Command:
    python -m experiments.finetune --config=configs/few_labels_cifar10.py --config.data.data_dir=DIR \
        --workdir=runs/few_labels_cifar10

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Setting: 10 images per class of train are used, chosen by the seed; 1,000 others are held out of train to choose
hyper-parameters by. 100 updates of 32 images, shifted by up to 2 pixels and mirrored; all 10,000 test images are
counted.
Result: docs/findings.md.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns full fine-tuning of the packaged network."""
    config = tl_jax.default_config()
    config.model.name = "resnet20_cifar"
    config.init.weights = "resnet20_cifar.tin32"
    config.data.examples_per_class = 10
    config.data.validation_fraction = 0.02
    config.data.batch_size = 32
    config.augment.crop_padding = 2
    config.optim.learning_rate = 0.02
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.warmup_steps = 10
    config.train.steps = 100
    config.train.eval_every_epochs = 0.0  # only at the end: no step is chosen by validation
    config.report.html = config.report.tensorboard = False
    return config
