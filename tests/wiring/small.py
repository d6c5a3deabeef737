"""The config that tests of wiring begin with."""

from typing import Any

import ml_collections

from tl_jax.config import default_config

# A run on digits of 8 px, smaller than any config.
SMALL = {
    "model.name": "resnet20_cifar",
    "data.name": "digits",
    "data.cache_dir": "",
    "data.examples_per_class": 3,
    "data.batch_size": 12,
    "data.image_size": 8,
    "train.steps": 12,
    "train.updates_per_dispatch": 1,
    "cache.dir": "",
    "parallel.devices": 1,
}
# Activations of a frozen backbone in place of images.
CACHED = {
    "freeze.strategy": "backbone",
    "augment.flip": False,
    "augment.crop_padding": 0,
    "cache.boundary": "auto",
}
VIEWS = CACHED | {"augment.crop_padding": 2, "cache.views": 3}
QUIET = {"report.html": False, "report.tensorboard": False}


def config_with(changes: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns the small config with some fields changed, by their dotted names."""
    config = default_config()
    config.update_from_flattened_dict(SMALL | changes)
    return config
