"""Fine-tunes an ImageNet ResNet-18 on CIFAR-10 at 224 px.

Command:
    python -m experiments.finetune --config=configs/cifar10_resnet18_finetune.py --workdir=runs/cifar10_resnet18

Needs: CIFAR-10, the weights resnet18.tv_in1k (from the Hugging Face hub, or a local file in --config.init.weights),
and an accelerator; bfloat16 halves its memory.
Result: not yet measured.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns ten epochs of full fine-tuning."""
    config = tl_jax.default_config()
    config.model.name = "resnet18"
    config.model.dtype = "bfloat16"
    config.init.weights = "resnet18.tv_in1k"
    config.data.batch_size = 128
    config.data.image_size = 224
    config.data.validation_fraction = 0.05
    config.preprocess.resize = (
        224  # the whole of a small square image, rather than the centre of it
    )
    config.augment.crop_padding = 28  # an eighth of the side, as 4 of CIFAR's 32 pixels
    config.optim.learning_rate = 0.01
    config.optim.nesterov = True
    config.optim.warmup_epochs = 0.5
    config.train.epochs = 10.0
    return config
