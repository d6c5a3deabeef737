"""What is counted and how parts are told apart; no time is judged."""

import jax
import jax.numpy as jnp
import pytest

from tl_jax import profiling
from tl_jax.profiling import Measured


def test_flops_of_a_product_are_counted():
    measured = profiling.measure(jnp.matmul, jnp.ones((8, 16)), jnp.ones((16, 4)), seconds=0.0)
    assert measured.flops == pytest.approx(2 * 8 * 16 * 4, rel=0.1)
    assert measured.bytes == pytest.approx(4 * (8 * 16 + 16 * 4 + 8 * 4), rel=0.1)
    assert measured.seconds > 0


def test_flops_are_those_of_one_device():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    arguments = jax.device_put((jnp.ones((8, 16)), jnp.ones((16, 4))), (rows, whole))
    measured = profiling.measure(jnp.matmul, *arguments, seconds=0.0)
    assert measured.flops == 2 * 4 * 16 * 4


def test_a_call_is_made_three_times_and_once_before():
    calls = []
    profiling.time_call(lambda: calls.append(None), seconds=0.0)
    assert len(calls) == 4


def test_parts_are_differences_of_programs_that_contain_each_other():
    programs = {
        "preprocess": Measured(1.0, 0.0, 8.0),
        "forward": Measured(3.0, 10.0, 20.0),
        "backward": Measured(8.0, 40.0, 40.0),
    }
    rows = profiling.table(programs, flop_rate=20.0, byte_rate=8.0)
    assert [row["part"] for row in rows] == ["preprocess", "forward", "backward", "step"]
    assert [row["milliseconds"] for row in rows] == [1000.0, 2000.0, 5000.0, 8000.0]
    assert [row["share"] for row in rows] == [0.125, 0.25, 0.625, 1.0]
    assert [row["of_matrix_rate"] for row in rows] == [0.0, 0.25, 0.3, 0.25]
    assert [row["of_copy_rate"] for row in rows] == [1.0, 0.75, 0.5, 0.625]


def test_a_part_that_costs_nothing_has_no_rate():
    programs = {"forward": Measured(2.0, 6.0, 4.0), "update": Measured(1.9, 6.0, 4.0)}
    update = profiling.table(programs, 1.0, 1.0)[1]
    assert update["milliseconds"] == pytest.approx(-100)
    assert update["of_matrix_rate"] is None


def test_rates_of_the_device_are_positive(monkeypatch):
    monkeypatch.setattr(profiling, "_SIDES", {"cpu": 64})
    monkeypatch.setattr(profiling, "_ELEMENTS", {"cpu": 1024})
    assert profiling.matrix_rate(jnp.bfloat16, seconds=0.0) > 0
    assert profiling.copy_rate(seconds=0.0) > 0
