"""Pretrains the packaged ResNet-20 on Tiny ImageNet at 32 px (200 classes, 100,000 images).

Command:
    python -m experiments.pretrain --config=configs/tinyimagenet32_resnet20_pretrain.py \
        --config.data.name=npz:tinyimagenet32.npz --workdir=runs/tinyimagenet32

Needs: Tiny ImageNet box-filtered to 32x32 as an .npz of `train_images` uint8 [N, 32, 32, 3], `train_labels`,
`val_images`, `val_labels` and `names` (or as `folder:PATH` with PATH/{train,val}/{class}/*).
Result: see MODEL_CARD.md beside the packaged weights.
"""

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns the recipe of the packaged weights."""
    config = tl_jax.default_config()
    config.model.name = "resnet20_cifar"
    config.data.name = "npz:tinyimagenet32.npz"
    config.data.test_split = "val"
    config.data.validation_fraction = 0.02
    config.data.batch_size = 128
    config.preprocess.mean = (0.4802, 0.4481, 0.3975)
    config.preprocess.std = (0.2302, 0.2265, 0.2262)
    config.augment.crop_padding = 2
    config.optim.learning_rate = 0.2
    config.optim.nesterov = True
    config.optim.weight_decay = 2e-4
    config.optim.warmup_epochs = 0.5
    config.train.epochs = 8.0
    config.train.checkpoint_every_steps = 300
    return config
