"""Recipe: all of ResNet-50 trained on CIFAR-10 by plain SGD, as published: resized to 224, normalised by 0.5.

Command:
    python -m experiments.finetune --config=configs/recipes/resnet50_full_sgd.py --workdir=runs/resnet50_full_sgd

Needs: CIFAR-10; ImageNet weights from the Hugging Face hub; an accelerator. Without these, the packaged ResNet-20:
    --config.model.name=resnet20_cifar --config.init.weights=resnet20_cifar.tin32 --config.data.image_size=32 \
    --config.preprocess.resize=32
Setting: no augmentation, SGD of rate 0.001 and momentum 0.9, batches of 4, 2 epochs; the last step is reported.
Flaws: images are normalised with mean 0.5 and std 0.5 where the weights expect ImageNet's mean and std. Nothing is
held out: whatever is chosen is chosen on the test images. Batches of 4 give BatchNorm statistics of 4 images.
Corrected: configs/recipes/resnet50_full_sgd_corrected.py.
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
    config.preprocess.mean = (0.5, 0.5, 0.5)
    config.preprocess.std = (0.5, 0.5, 0.5)
    config.preprocess.resize = 224
    config.augment.crop_padding = 0
    config.augment.flip = False
    config.optim.learning_rate = 0.001
    config.optim.weight_decay = 0.0
    config.optim.schedule = "constant"
    config.train.epochs = 2.0
    return config
