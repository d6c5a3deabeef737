"""Epochs as updates: rounded to the nearest, at least one."""

import pytest
from small import config_with

from tl_jax.runs.lengths import total_steps


@pytest.mark.parametrize(
    ("epochs", "examples", "batch_size", "updates"),
    [
        (1.0, 30, 16, 2),  # 1.875
        (2.5, 30, 12, 6),  # 6.25
        (3.0, 45_000, 128, 1055),  # 1054.7
        (0.01, 30, 16, 1),  # 0.02
    ],
)
def test_epochs_are_rounded_to_the_nearest_update(epochs, examples, batch_size, updates):
    config = config_with({"train.steps": 0, "train.epochs": epochs, "data.batch_size": batch_size})
    assert total_steps(config, examples) == updates
