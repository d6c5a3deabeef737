"""What a run is fitted to: the rule at chosen sizes, what the config gives and keeps, and the whole path."""

import pytest
from running import tiny_config

from tl_jax.config import default_config
from tl_jax.errors import InputError
from tl_jax.runs import training
from tl_jax.runs.fitted import FIELDS, facts, fitted
from tl_jax.training import loops

pytestmark = pytest.mark.usefixtures("small_networks")


def values(num_examples, **fields):
    config = default_config(train__fit_to_data=True, **fields)
    found = facts(fitted(config, num_examples))
    return tuple(found[name] for name in FIELDS)


@pytest.mark.parametrize(
    ("num_examples", "expected"),
    [
        # Batch size, updates, warm-up, interval of evaluation.
        (3, (3, 500, 25, 25)),
        (25, (8, 500, 25, 25)),
        (100, (8, 500, 25, 25)),
        (800, (64, 500, 25, 25)),  # 20 epochs are 240
        (5_000, (128, 780, 39, 39)),
        (50_000, (128, 7_820, 391, 391)),
        (1_000_000, (128, 20_000, 1_000, 7_812)),
    ],
)
def test_the_rule(num_examples, expected):
    assert values(num_examples) == expected


def test_what_the_config_gives_stays():
    assert values(100, train__steps=40) == (8, 40, 2, 12)
    # Two epochs of 100 images in batches of 8 are 25 updates.
    found = values(100, train__epochs=2.0, optim__warmup_steps=7, train__eval_every_steps=3)
    assert found == (8, 0, 7, 3)
    assert values(5_000, data__batch_size=32) == (32, 3_120, 156, 156)
    # Every so many epochs, or at the end only.
    assert values(100, train__steps=40, train__eval_every_epochs=0.0)[3] == 0


def test_a_run_fitted_to_its_data(tmp_path, capsys):
    config = tiny_config(
        "folder_finetune", train__steps=6, data__examples_per_class=10, optim__warmup_steps=0
    )
    result = training.run(config, tmp_path / "run")
    expected = dict(zip(FIELDS, (8, 6, 0, 12), strict=True))
    assert result["fitted"] == expected and result["steps"] == 6
    shown = ", ".join(f"{name}={value}" for name, value in expected.items())
    assert f"fitted to 100 training images: {shown}" in capsys.readouterr().out
    assert training.run(config, tmp_path / "run")["fitted"] == expected  # finished


def test_a_fitted_run_that_was_cut_short_goes_on(tmp_path):
    """Its length is not in its config: nothing there says that it is a longer run than before."""
    config = tiny_config(
        "folder_finetune",
        data__validation_fraction=0.1,
        data__examples_per_class=8,
        train__steps=0,
        optim__warmup_steps=0,
        train__updates_per_dispatch=1,
    )
    asked = iter([False] * 3 + [True])
    with pytest.raises(loops.Stopped):
        training.run(config, tmp_path / "run", stop_requested=lambda: next(asked))
    with pytest.raises(loops.Stopped) as stopped:
        training.run(config, tmp_path / "run", stop_requested=lambda: True)
    assert stopped.value.step == 5


def test_a_fitted_run_is_not_extended(tmp_path):
    """Its warm-up would have been another one."""
    config = tiny_config("folder_finetune", train__steps=2, optim__schedule="constant")
    training.run(config, tmp_path / "run")
    config.train.steps = 4
    with pytest.raises(InputError, match=r"cannot be extended: train\.fit_to_data chooses warm-up"):
        training.run(config, tmp_path / "run")


def test_phases_are_refused(tmp_path):
    config = tiny_config("folder_finetune", phases=(("train.steps=2",), ()))
    with pytest.raises(InputError, match=r"train\.fit_to_data=True in a run of several phases"):
        training.run(config, tmp_path / "run")


def test_a_phase_is_not_fitted_alone(tmp_path):
    config = tiny_config("folder_finetune", train__fit_to_data=False)
    config.phases = (("train.steps=2", "train.fit_to_data=True"), ())
    with pytest.raises(InputError, match=r"train\.fit_to_data is of the whole run"):
        training.run(config, tmp_path / "run")
