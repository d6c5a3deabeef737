"""The recipe vgg16_frozen_gap, corrected: the weights' own preprocessing, new augmentation every epoch, validation.

Command:
    python -m experiments.finetune --config=configs/recipes/vgg16_frozen_gap_corrected.py \
        --workdir=runs/vgg16_frozen_gap_corrected

Needs: as configs/recipes/vgg16_frozen_gap.py, which says what stands in where there is no network, here with
    --config.init.channel_order=
Setting: that of the recipe, but images are normalised as the weights were trained, flip and rotation are drawn anew
for every epoch, and a tenth of train chooses the best epoch; test is read once, at the end.
Result: docs/recipes.md.
"""

import pathlib

import tl_jax
from tl_jax.config import load


def get_config() -> tl_jax.Config:
    """Returns the recipe with what its header names changed."""
    config = load(pathlib.Path(__file__).with_name("vgg16_frozen_gap.py"))
    config.preprocess.mean = ()
    config.preprocess.std = ()
    config.init.channel_order = ""
    config.augment.once = False
    config.data.validation_fraction = 0.1
    return config
