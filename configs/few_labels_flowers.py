"""The packaged ResNet-20 on photos of flowers with few labels, in seconds on two cores: what ablations change.

Command:
    python -m experiments.finetune --config=configs/few_labels_flowers.py --config.data.name=folder:flowers \
        --workdir=runs/few_labels_flowers

Needs: photos in class folders, or an archive of such; flowers128.zip in data.data_dir by default.
Setting: as configs/few_labels_cifar10.py, at 32 x 32 pixels; a fifth of the photos is the test split, a fifth of the
others is held out to choose hyper-parameters by.
Result: docs/findings.md.
"""

import pathlib

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns full fine-tuning of the packaged network."""
    config = tl_jax.load_config(pathlib.Path(__file__).with_name("few_labels_cifar10.py"))
    config.data.name = "folder:flowers128.zip"
    config.data.validation_fraction = 0.2
    config.data.image_size = 32
    return config
