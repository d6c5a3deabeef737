"""What only updates look at: the fields of a config that say nothing of a run whose head is solved."""

import copy
from fnmatch import fnmatch

import ml_collections

from tl_jax.config.access import default_config, flat

# "augment.*" stands for a section. A run that makes no updates is the same run whatever they are.
ONLY_OF_UPDATES = (
    "augment.*",
    "average.*",
    "cache.boundary",
    "cache.draw",
    "cache.verify",
    "cache.view_seed",
    "cache.views",
    "data.batch_size",
    "data.order",
    "model.batch_norm_rows",
    "model.dropout",
    "model.stoch_norm",
    "optim.*",
    "parallel.mode",
    "train.checkpoint_every_seconds",
    "train.checkpoint_every_steps",
    "train.epochs",
    "train.eval_every_epochs",
    "train.eval_every_steps",
    "train.fit_to_data",
    "train.log_every_steps",
    "train.patience",
    "train.rule",
    "train.steps",
    "train.updates_per_dispatch",
)
# Of these, what is not at its default where no image is changed and nothing is updated.
_PLAIN = {"augment.crop_padding": 0, "augment.flip": False, "train.steps": 1}


def without_updates(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a copy in which what only updates look at says nothing: images as they are, the shortest run there is.

    Example:
        >>> config = default_config(train__epochs=30.0, optim__name="adamw", seed=3)
        >>> plain = without_updates(config)
        >>> plain.train.epochs, plain.train.steps, plain.optim.name, plain.augment.flip, plain.seed
        (0.0, 1, 'sgd', False, 3)
    """
    plain = copy.deepcopy(config)
    fields = {
        name: value
        for name, value in flat(default_config()).items()
        if any(fnmatch(name, known) for known in ONLY_OF_UPDATES)
    }
    plain.update_from_flattened_dict(fields | _PLAIN)
    return plain
