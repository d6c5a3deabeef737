"""Photos of your own, in one folder per class: the packaged ResNet-20 fine-tuned at 32 px.

Command:
    python -m experiments.finetune --config=configs/photos.py --config.data.name=folder:PATH --workdir=runs/photos

Needs: PATH/{class}/*, or PATH/{train,test}/{class}/*, at least some 20 photos. Weights are embedded: no network is
needed.
Setting: a fifth of the training photos is held out to choose the best epoch; test is read once, at the end. For a
larger network and larger images: --config.model.name=resnet18 --config.init.weights=resnet18.tv_in1k
--config.data.image_size=224.
Result: in runs/photos/report.html.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns full fine-tuning of 30 epochs, with random crops and flips."""
    config = tl_jax.default_config()
    config.model.name = "resnet20_cifar"
    config.init.weights = "resnet20_cifar.tin32"
    config.data.name = "folder:photos"
    config.data.image_size = 32
    config.data.validation_fraction = 0.2
    config.data.batch_size = 16
    config.augment.crop_padding = 2
    config.optim.learning_rate = 0.01
    config.optim.weight_decay = 5e-4
    config.optim.warmup_epochs = 1.0
    config.train.epochs = 30.0
    return config
