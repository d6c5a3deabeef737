"""What a run is fitted to: the rule at chosen sizes, what the config gives and keeps, and the whole path."""

import json

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


BIT = {"train__rule": "bit"}


@pytest.mark.parametrize(
    ("num_examples", "expected"),
    [
        # Batch size, updates, warm-up, interval, learning rate, schedule, when it is lowered, mixing.
        (100, (100, 500, 100, 25, 0.003 * 100 / 512, "step", (200, 300, 400), ())),
        (19_999, (512, 500, 100, 39, 0.003, "step", (200, 300, 400), ())),
        (
            20_000,
            (512, 10_000, 500, 500, 0.003, "step", (3_000, 6_000, 9_000), ("mixup=0.1",)),
        ),
        (
            499_999,
            (512, 10_000, 500, 977, 0.003, "step", (3_000, 6_000, 9_000), ("mixup=0.1",)),
        ),
        (
            500_000,
            (512, 20_000, 500, 1_000, 0.003, "step", (6_000, 12_000, 18_000), ("mixup=0.1",)),
        ),
    ],
)
def test_bit_hyperrule(num_examples, expected):
    config = default_config(train__fit_to_data=True, **BIT)
    assert tuple(facts(fitted(config, num_examples)).values()) == expected


def test_what_the_config_gives_bit_hyperrule_stays_and_a_length_stretches_it():
    config = default_config(
        train__fit_to_data=True,
        train__steps=50,
        data__batch_size=64,
        optim__learning_rate=0.02,
        augment__mixing=("cutmix=1.0",),
        **BIT,
    )
    found = facts(fitted(config, 30_000))
    assert tuple(found.values()) == (
        *(64, 50, 2, 469, 0.02, "step"),
        *((15, 30, 45), ("cutmix=1.0",)),
    )
    config = default_config(
        train__fit_to_data=True, optim__schedule="constant", optim__warmup_epochs=1.0, **BIT
    )
    found = facts(fitted(config, 1_000))
    assert (found["optim.schedule"], found["optim.step_steps"]) == ("constant", ())
    assert found["optim.warmup_steps"] == 0


def test_a_rule_that_nothing_asks_for_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"^train\.rule=bit without train\.fit_to_data has no effect"
    ):
        training.run(tiny_config("quickstart", **BIT), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_by_bit_hyperrule(tmp_path, capsys):
    config = tiny_config(
        "folder_finetune",
        train__steps=10,
        data__batch_size=128,
        data__examples_per_class=4,
        optim__warmup_steps=0,
        optim__schedule="cosine",
        **BIT,
    )
    config.optim.learning_rate = 0.1
    result = training.run(config, tmp_path / "run")
    assert result["fitted"]["optim.step_steps"] == [4, 6, 8] or result["fitted"][
        "optim.step_steps"
    ] == (4, 6, 8)
    assert result["fitted"]["data.batch_size"] == 40
    rates = [
        json.loads(line)["learning_rate"]
        for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        if '"split": "train"' in line
    ]
    peak = 0.003 * 40 / 512
    assert rates[-1] == pytest.approx(peak / 1000, rel=1e-5)


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
