"""Batch size, length, warm-up and interval of evaluation of a run that is fitted to the data it finds.

The rule, for N training images:

- batches of the largest power of two up to N / 8, at least 8 and at most `data.batch_size`;
- 20 epochs, but at least 500 updates and at most 20,000;
- a warm-up over the first twentieth of the updates;
- an evaluation every epoch, but at most 20 of them, evenly spaced.

A small set of photos thus makes enough updates to learn a new head, a large one does not run for days.

Source: the least and the most updates are those of BiT-HyperRule for its smallest and largest data sets (Kolesnikov
et al. 2020, arXiv:1912.11370, section 3.3); the rest is ours.
"""

import copy
from typing import Any

import ml_collections

from tl_jax.config import FIELDS as ALL
from tl_jax.errors import InputError
from tl_jax.runs.lengths import total_steps

_BATCHES_AN_EPOCH = 8
_SMALLEST_BATCH = 8
_EPOCHS, _LEAST_UPDATES, _MOST_UPDATES = 20, 500, 20_000
_WARMUP = 20  # one part of so many
_EVALUATIONS = 20

FIELDS = (
    "data.batch_size",
    "train.steps",
    "optim.warmup_steps",
    "train.eval_every_steps",
)


def fitted(config: ml_collections.ConfigDict, num_examples: int) -> ml_collections.ConfigDict:
    """Returns the config with the fields of `FIELDS` as the data ask for, where `train.fit_to_data` is set.

    A length, warm-up or interval that the config gives stays.

    Args:
        config: of the run.
        num_examples: N.

    Raises:
        InputError: if the run has phases, whose lengths are fixed.
    """
    if not config.train.fit_to_data:
        return config
    if config.phases:
        raise InputError(
            "train.fit_to_data=True in a run of several phases, each of which has a fixed length; expected False"
        )
    config = copy.deepcopy(config)
    train, optim = config.train, config.optim
    size = 1 << max(1, num_examples // _BATCHES_AN_EPOCH).bit_length() - 1
    size = min(max(size, _SMALLEST_BATCH), config.data.batch_size, num_examples)
    config.data.batch_size = size
    epoch = max(1, round(num_examples / config.data.batch_size))
    if not (train.steps or train.epochs):
        train.steps = min(max(_EPOCHS * epoch, _LEAST_UPDATES), _MOST_UPDATES)
    updates = total_steps(config, num_examples)
    if not (optim.warmup_steps or optim.warmup_epochs):
        optim.warmup_steps = updates // _WARMUP
    if (
        not train.eval_every_steps
        and train.eval_every_epochs == ALL["train.eval_every_epochs"].default
    ):
        train.eval_every_steps = max(epoch, -(-updates // _EVALUATIONS))
    return config


def facts(config: ml_collections.ConfigDict) -> dict[str, Any] | None:
    """Returns {field: value} of what was fitted, for `result.json`; None where nothing was.

    Args:
        config: as `fitted` returned it.
    """
    if not config.train.fit_to_data:
        return None
    return {name: config[name.partition(".")[0]][name.partition(".")[2]] for name in FIELDS}
