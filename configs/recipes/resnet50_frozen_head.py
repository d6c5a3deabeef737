"""Recipe: a new head on a frozen ResNet-50, as published: batches of 4, resized to 256, centre crop of 224.

Command:
    python -m experiments.finetune --config=configs/recipes/resnet50_frozen_head.py \
        --workdir=runs/resnet50_frozen_head

Needs: CIFAR-10; ImageNet weights from the Hugging Face hub; an accelerator. Without these, the packaged ResNet-20:
    --config.model.name=resnet20_cifar --config.init.weights=resnet20_cifar.tin32 --config.data.image_size=32
    --config.preprocess.resize=32 --config.preprocess.mean= --config.preprocess.std=
Setting: ImageNet's mean and std, no augmentation, SGD of rate 0.001 and momentum 0.9 on the head, 2 epochs; the last
step is reported.
Flaws: parameters are frozen, BatchNorm is not: in training mode the frozen backbone normalises by the statistics of
4 images, and its running statistics drift towards the new data while nothing else may follow. Nothing is held out.
Corrected: configs/recipes/resnet50_frozen_head_corrected.py.
Result: docs/recipes.md.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns the recipe as published."""
    config = tl_jax.default_config()
    config.model.name = "resnet50"
    config.init.weights = "resnet50.tv_in1k"
    config.data.image_size = 224
    config.data.validation_fraction = 0.0
    config.data.batch_size = 4
    config.preprocess.mean = (0.485, 0.456, 0.406)
    config.preprocess.std = (0.229, 0.224, 0.225)
    config.preprocess.resize = 256
    config.augment.crop_padding = 0
    config.augment.flip = False
    config.freeze.strategy = "backbone"
    config.freeze.batch_norm = "update"
    config.optim.learning_rate = 0.001
    config.optim.weight_decay = 0.0
    config.optim.schedule = "constant"
    config.train.epochs = 2.0
    return config
