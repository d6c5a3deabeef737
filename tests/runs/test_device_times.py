"""What a run says of the time in which its devices had nothing to do."""

import pytest
from running import tiny_config

from tl_jax.runs import training, updates
from tl_jax.training.busy_time import BusyTime

pytestmark = pytest.mark.usefixtures("small_networks")


@pytest.mark.parametrize(
    ("fields", "dispatches"),
    [
        pytest.param({}, 6 + 2, id="updates and evaluations"),
        pytest.param({"train__eval_every_steps": 2}, 6 + 3, id="more evaluations"),
        pytest.param(
            {
                "freeze__strategy": "backbone",
                "cache__boundary": "auto",
                "augment__crop_padding": 0,
            },
            6 + 2,
            id="on activations, which are computed first",
        ),
        pytest.param(
            {"phases": (("train.steps=6",), ("train.steps=3",))}, 6 + 2 + 3 + 1, id="two phases"
        ),
    ],
)
def test_idle_is_what_is_left_of_the_whole_run(fields, dispatches, tmp_path, monkeypatch):
    watched = []

    class Busy(BusyTime):
        seconds = 0.01

        def watch(self, call, outputs=lambda result: result):
            def counted(*arguments):
                watched.append(call)
                return call(*arguments)

            return super().watch(counted, outputs)

    monkeypatch.setattr(updates, "BusyTime", Busy)
    config = tiny_config(
        **{
            "data__validation_fraction": 0.1,
            "train__steps": 6,
            "train__eval_every_steps": 3,
            "train__updates_per_dispatch": 1,
        }
        | fields
    )
    result = training.run(config, tmp_path / "run")
    # In batches of 64 on a CPU.
    banks = result["cache"]["banks"] if result.get("cache") else []
    assert len(watched) == dispatches + sum(-(-bank["images"] // 64) for bank in banks)
    assert result["device_idle_share"] == pytest.approx(1 - 0.01 / result["wall_seconds"])


def test_a_run_measures_it(tmp_path, capsys):
    config = tiny_config(data__validation_fraction=0.1, train__steps=6)
    result = training.run(config, tmp_path / "run")
    assert 0 < result["device_idle_share"] < 1
    assert "are assumed" not in capsys.readouterr().err


def test_a_run_says_what_memory_is_assumed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(updates.memory, "is_assumed", lambda device: True)
    training.run(tiny_config(), tmp_path / "run")
    assert "how much memory they have: 8.0 GiB each are assumed" in capsys.readouterr().err
