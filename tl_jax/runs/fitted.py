"""Batch size, length, schedule and interval of evaluation of a run that is fitted to the data it finds.

Our rule, for N training images:

- batches of the largest power of two up to N / 8, at least 8 and at most `data.batch_size`;
- 20 epochs, but at least 500 updates and at most 20,000;
- a warm-up over the first twentieth of the updates;
- an evaluation every epoch, but at most 20 of them, evenly spaced.

A small set of photos thus makes enough updates to learn a new head, a large one does not run for days.

Source: the least and the most updates are those of BiT-HyperRule for its smallest and largest data sets (Kolesnikov
et al. 2020, arXiv:1912.11370, section 3.3); the rest is ours.

BiT-HyperRule (`train.rule=bit`), for fewer than 20,000 images, fewer than 500,000, and more:

- batches of 512, at most N;
- 500, 10,000 and 20,000 updates, with a warm-up over 100, 500 and 500;
- a learning rate of 0.003 for batches of 512, in proportion to others, divided by 10 after 200, 300 and 400 updates;
  3,000, 6,000 and 9,000; 6,000, 12,000 and 18,000;
- mixup of 0.1 from 20,000 images on.

The rule also has a resolution, which `data.image_size` and `preprocess.resize` give here: 128 of 160 pixels for
images of less than 96 x 96 pixels, 384 of 448 for others (its code: 480 of 512).

Source: Kolesnikov et al. 2020, section 3.3; `bit_hyperrule.py` of google-research/big_transfer, which lowers the rate
one update later.
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
_BIT_BATCH, _BIT_RATE, _BIT_MIXING = 512, 0.003, "mixup=0.1"
_BIT_MIXED_FROM = 20_000
# Fewer images than the first number: updates, warm-up, and when the rate is divided by 10.
_BIT_SCHEDULES = (
    (20_000, 500, 100, (200, 300, 400)),
    (500_000, 10_000, 500, (3_000, 6_000, 9_000)),
    (None, 20_000, 500, (6_000, 12_000, 18_000)),
)
_BIT_FIELDS = (
    *FIELDS,
    "optim.learning_rate",
    "optim.schedule",
    "optim.step_steps",
    "augment.mixing",
)


def check_rule(config: ml_collections.ConfigDict) -> None:
    """Raises InputError where a rule is named that nothing asks for."""
    updates = not config.solver.name
    if updates and config.train.rule and not config.train.fit_to_data:
        raise InputError(
            f"train.rule={config.train.rule} without train.fit_to_data has no effect; expected "
            "train.fit_to_data=True, or no rule"
        )


def fitted(config: ml_collections.ConfigDict, num_examples: int) -> ml_collections.ConfigDict:
    """Returns the config as the data ask for, where `train.fit_to_data` is set.

    What the config gives stays: a length, a warm-up, an interval and, for BiT-HyperRule, what is not at its default.

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
    if config.train.rule == "bit":
        _fit_by_bit(config, num_examples)
    else:
        _fit(config, num_examples)
    train = config.train
    epoch = max(1, round(num_examples / config.data.batch_size))
    if not train.eval_every_steps and _is_default(config, "train.eval_every_epochs"):
        updates = total_steps(config, num_examples)
        train.eval_every_steps = max(epoch, -(-updates // _EVALUATIONS))
    return config


def _fit(config: ml_collections.ConfigDict, num_examples: int) -> None:
    """Sets batch size, length and warm-up by our rule."""
    train, optim = config.train, config.optim
    size = 1 << max(1, num_examples // _BATCHES_AN_EPOCH).bit_length() - 1
    size = min(max(size, _SMALLEST_BATCH), config.data.batch_size, num_examples)
    config.data.batch_size = size
    epoch = max(1, round(num_examples / size))
    if not (train.steps or train.epochs):
        train.steps = min(max(_EPOCHS * epoch, _LEAST_UPDATES), _MOST_UPDATES)
    if not (optim.warmup_steps or optim.warmup_epochs):
        optim.warmup_steps = total_steps(config, num_examples) // _WARMUP


def _fit_by_bit(config: ml_collections.ConfigDict, num_examples: int) -> None:
    """Sets batch size, length, schedule, learning rate and mixing by BiT-HyperRule; a given length stretches it."""
    train, optim = config.train, config.optim
    _, length, warmup, boundaries = next(
        row for row in _BIT_SCHEDULES if row[0] is None or num_examples < row[0]
    )
    if _is_default(config, "data.batch_size"):
        config.data.batch_size = _BIT_BATCH
    config.data.batch_size = min(config.data.batch_size, num_examples)
    if not (train.steps or train.epochs):
        train.steps = length
    stretch = total_steps(config, num_examples) / length
    if not (optim.warmup_steps or optim.warmup_epochs):
        optim.warmup_steps = round(stretch * warmup)
    if _is_default(config, "optim.schedule"):
        optim.schedule = "step"
        if not (optim.step_steps or optim.step_epochs):
            optim.step_steps = tuple(round(stretch * step) for step in boundaries)
    if _is_default(config, "optim.learning_rate"):
        optim.learning_rate = _BIT_RATE * config.data.batch_size / _BIT_BATCH
    if not config.augment.mixing and num_examples >= _BIT_MIXED_FROM:
        config.augment.mixing = (_BIT_MIXING,)


def _is_default(config: ml_collections.ConfigDict, name: str) -> bool:
    section, _, field = name.partition(".")
    return bool(config[section][field] == ALL[name].default)


def facts(config: ml_collections.ConfigDict) -> dict[str, Any] | None:
    """Returns {field: value} of what was fitted, for `result.json`; None where nothing was.

    Args:
        config: as `fitted` returned it.
    """
    if not config.train.fit_to_data:
        return None
    names = _BIT_FIELDS if config.train.rule == "bit" else FIELDS
    return {name: config[name.partition(".")[0]][name.partition(".")[2]] for name in names}
