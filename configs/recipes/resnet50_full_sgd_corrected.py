"""The recipe resnet50_full_sgd, corrected: normalised as the weights were trained, validation held out of train.

Command:
    python -m experiments.finetune --config=configs/recipes/resnet50_full_sgd_corrected.py \
        --workdir=runs/resnet50_full_sgd_corrected

Needs: as configs/recipes/resnet50_full_sgd.py, which says what stands in where there is no network.
Setting: that of the recipe but for the mean and std of the weights, and a tenth of train, which chooses the better
of the two epochs; test is read once, at the end. The batch of 4 stays.
Result: docs/recipes.md.
"""

import pathlib

import tl_jax
from tl_jax.config import load


def get_config() -> tl_jax.Config:
    """Returns the recipe with what its header names changed."""
    config = load(pathlib.Path(__file__).with_name("resnet50_full_sgd.py"))
    config.preprocess.mean = ()
    config.preprocess.std = ()
    config.data.validation_fraction = 0.1
    return config
