"""Recipe: Keras' VGG-16, frozen, with global average pooling and a dense layer, on CIFAR-10 at 32 px, as published.

Command:
    python -m experiments.finetune --config=configs/recipes/vgg16_frozen_gap.py --workdir=runs/vgg16_frozen_gap

Needs: CIFAR-10; the Keras extra; VGG-16's weights without top from Keras' publisher, downloaded or placed by hand.
Without these, the packaged ResNet-20:
    --config.model.name=resnet20_cifar --config.model.classifier= --config.init.weights=resnet20_cifar.tin32
    --config.init.channel_order=bgr
Setting: Adam of rate 0.001, batches of 32, 10 epochs; the last step is reported. Keras adds epsilon to the square
root before the correction of bias, this project (as PyTorch) after it.
Flaws: images are passed in as they are, in [0, 255] and RGB, where the weights expect BGR less a mean. Flip and
rotation by up to a tenth of a turn are applied once to the whole training set before training, so that every epoch
sees the same pixels: ten epochs of one view. The validation images are the test images.
Corrected: configs/recipes/vgg16_frozen_gap_corrected.py.
Result: docs/recipes.md.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns the recipe as published."""
    config = tl_jax.default_config()
    config.model.name = "vgg16"
    config.model.classifier = "pooled"
    config.init.weights = "vgg16.keras_in1k_notop"
    config.init.channel_order = "rgb"  # red where the weights expect blue, as published
    config.data.image_size = 32
    config.data.validation_fraction = 0.0
    config.data.batch_size = 32
    # The pixels themselves: (image / 255 - 0) / (1 / 255).
    config.preprocess.mean = (0.0, 0.0, 0.0)
    config.preprocess.std = (1 / 255, 1 / 255, 1 / 255)
    config.preprocess.resize = 32
    config.augment.crop_padding = 0
    config.augment.operations = ("rotation=36",)
    config.augment.fill = "reflect"  # as keras.layers.RandomRotation(0.1)
    config.augment.once = True
    config.freeze.strategy = "backbone"
    config.optim.name = "adamw"
    config.optim.learning_rate = 0.001
    config.optim.eps = 1e-7
    config.optim.weight_decay = 0.0
    config.optim.schedule = "constant"
    config.train.epochs = 10.0
    return config
