"""The recipe resnet50_frozen_head, corrected: BatchNorm frozen too, features computed once, validation held out.

Command:
    python -m experiments.finetune --config=configs/recipes/resnet50_frozen_head_corrected.py \
        --workdir=runs/resnet50_frozen_head_corrected

Needs: as configs/recipes/resnet50_frozen_head.py, which says what stands in where there is no network.
Setting: that of the recipe, but frozen BatchNorm layers use their running statistics and leave them alone; then every
image has the same features in every epoch, and they are stored. A tenth of train chooses the better of the two
epochs; test is read once, at the end.
Result: docs/recipes.md.
"""

import pathlib

import tl_jax
from tl_jax.config import load


def get_config() -> tl_jax.Config:
    """Returns the recipe with what its header names changed."""
    config = load(pathlib.Path(__file__).with_name("resnet50_frozen_head.py"))
    config.freeze.batch_norm = "frozen"
    config.cache.boundary = "auto"
    config.data.validation_fraction = 0.1
    return config
