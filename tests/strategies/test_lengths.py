"""How the phases of a strategy divide the length of a run."""

import pytest

from tl_jax.config import default_config
from tl_jax.errors import InputError
from tl_jax.strategies import parts_of_run


def test_updates_add_up_to_those_of_the_run():
    assert parts_of_run(default_config(train__steps=10), (1 / 3,) * 3) == [
        ("train.steps=3",),
        ("train.steps=4",),
        ("train.steps=3",),
    ]


def test_epochs_warm_up_and_boundaries_of_the_schedule_are_divided():
    config = default_config(
        train__epochs=8.0, optim__warmup_epochs=2.0, optim__step_epochs=(2.0, 6.0)
    )
    assert parts_of_run(config, (0.25, 0.75)) == [
        ("train.epochs=2.0", "optim.warmup_epochs=0.5", "optim.step_epochs=(0.5, 1.5)"),
        ("train.epochs=6.0", "optim.warmup_epochs=1.5", "optim.step_epochs=(1.5, 4.5)"),
    ]
    config = default_config(train__steps=80, optim__warmup_steps=20, optim__step_steps=(40, 60))
    assert (
        parts_of_run(config, (0.5, 0.5))
        == [
            ("train.steps=40", "optim.warmup_steps=10", "optim.step_steps=(20, 30)"),
        ]
        * 2
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"^train\.steps=0, train\.epochs=0\.0: a strategy of several phases divides"),
        ({"train__steps": 1}, r"^train\.steps=1: too few for 2 phases; expected 2 or more$"),
        ({"train__fit_to_data": True}, r"^train\.fit_to_data=True: a strategy of several phases"),
        (
            {"train__steps": 4, "phases": (("train.steps=2",), ("train.steps=2",))},
            r"^the strategy has phases of its own, and so has the config",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        parts_of_run(default_config(**fields), (0.5, 0.5))
