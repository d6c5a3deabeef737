"""The profile of a shrunk config: what it leaves and what it refuses."""

import json

import pytest
from running import tiny_config

from tl_jax import profiling
from tl_jax.errors import InputError
from tl_jax.runs import profile


@pytest.fixture
def small_device(monkeypatch):
    monkeypatch.setattr(profiling, "_SIDES", {"cpu": 64})
    monkeypatch.setattr(profiling, "_ELEMENTS", {"cpu": 1024})


@pytest.mark.usefixtures("small_networks", "small_device")
@pytest.mark.parametrize("strategy", ["none", "backbone"])
def test_parts_rates_and_a_trace(tmp_path, capsys, strategy):
    config = tiny_config(freeze__strategy=strategy, cache__boundary="")
    result = profile.profile(config, tmp_path / "profile", seconds=0.0)
    assert json.loads((tmp_path / "profile/profile.json").read_text()) == result
    parts = {row["part"]: row for row in result["parts"]}
    assert list(parts) == ["preprocess", "forward", "backward", "update", "step"]
    whole = parts.pop("step")
    assert sum(part["milliseconds"] for part in parts.values()) == pytest.approx(
        whole["milliseconds"]
    )
    # The backward pass of a linear probe is that of its head.
    ratio = parts["backward"]["gflop"] / parts["forward"]["gflop"]
    assert ratio > 1 if strategy == "none" else ratio < 0.1
    assert list((tmp_path / "profile/trace").rglob("*.xplane.pb"))
    assert (result["dtype"], result["numerics"]["precision"]) == ("float32", "default")
    assert any(row["what"] == "activations and workspace" for row in result["memory"])
    assert "GFLOP/s in float32 matrix products" in capsys.readouterr().out


@pytest.mark.parametrize(
    "field",
    [{"cache__boundary": "pool"}, {"optim__accumulation": 2}, {"parallel__mode": "pmap"}],
    ids=str,
)
def test_a_step_of_several_parts_is_refused(tmp_path, field):
    config = tiny_config(**{"cache__boundary": "", **field})
    with pytest.raises(InputError, match=r"expected --config\.cache\.boundary= "):
        profile.profile(config, tmp_path)


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken is a file"):
        profile.profile(tiny_config(cache__boundary=""), tmp_path / "taken")
