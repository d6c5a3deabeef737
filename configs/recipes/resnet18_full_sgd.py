"""Recipe: all of ResNet-18 trained on CIFAR-10 one example at a time, in stored order, as published.

Command:
    python -m experiments.finetune --config=configs/recipes/resnet18_full_sgd.py --workdir=runs/resnet18_full_sgd

Needs: CIFAR-10; ImageNet weights from the Hugging Face hub. Without these, the packaged ResNet-20:
    --config.model.name=resnet20_cifar --config.init.weights=resnet20_cifar.tin32 --config.model.stem=
    --config.init.reset=
Setting: images of 32 px as they are, in [0, 1]; SGD of rate 0.001 and momentum 0.9, batches of 1, 10 epochs over
the examples in stored order; the network is left in training mode for the test. One thing is not as published: the
stem for images of 32 px, with a kernel that starts anew. ImageNet's leaves a map of one pixel in the last stage, and
BatchNorm of one value is refused in training, by PyTorch too.
Flaws: BatchNorm sees one image: it normalises every image by itself, in training and in the test. Images are not
normalised as the weights expect, examples are never shuffled, nothing is held out.
Corrected: configs/recipes/resnet18_full_sgd_corrected.py.
Result: docs/recipes.md.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns the recipe as published."""
    config = tl_jax.default_config()
    config.model.name = "resnet18"
    config.model.stem = "cifar"
    config.init.weights = "resnet18.tv_in1k"
    config.init.reset = ("stem/conv/kernel",)  # 7 x 7 there, 3 x 3 here
    config.data.image_size = 32
    config.data.validation_fraction = 0.0
    config.data.batch_size = 1
    config.data.order = "stored"
    config.preprocess.mean = (0.0, 0.0, 0.0)
    config.preprocess.std = (1.0, 1.0, 1.0)
    config.preprocess.resize = 32
    config.augment.crop_padding = 0
    config.augment.flip = False
    config.optim.learning_rate = 0.001
    config.optim.weight_decay = 0.0
    config.optim.schedule = "constant"
    config.train.epochs = 10.0
    config.train.eval_statistics = "image"
    return config
