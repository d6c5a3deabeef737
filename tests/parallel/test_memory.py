"""What is counted, and what there is, from made-up machines and one compiled program."""

import types

import jax
import jax.numpy as jnp
import pytest

from tl_jax.parallel import memory

PARAMS = {"stem": {"kernel": jnp.zeros((2, 3))}, "head": {"bias": jnp.zeros(5)}}
FROZEN = {"stem": {"kernel": True}, "head": {"bias": False}}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Returns a function that sets what /proc/meminfo and the control group say."""
    meminfo, limit, usage = (tmp_path / name for name in ("meminfo", "limit", "usage"))
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", ((limit, usage),))

    def describe(available_kib, group=None):
        meminfo.write_text(f"MemTotal: 9999 kB\nMemAvailable: {available_kib} kB\n")
        for path, text in zip((limit, usage), group or (), strict=False):
            path.write_text(f"{text}\n")

    return describe


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (None, 1000 * 1024),
        (("max", "50"), 1000 * 1024),
        (("300000", "100000"), 200_000),
        (("9000000", "0"), 1000 * 1024),
        (("300", "400"), 0),
    ],
    ids=["no group", "no limit", "limited", "limit above the machine", "over the limit"],
)
def test_host_memory_is_what_machine_and_container_leave(machine, group, expected):
    machine(1000, group)
    assert memory.host_available() == expected


@pytest.mark.parametrize(
    ("fields", "cached"),
    [
        pytest.param("anon 60000\ninactive_file 30000\nactive_file 7", 30_000, id="version 2"),
        pytest.param("inactive_file 5\ntotal_inactive_file 40000", 40_000, id="version 1"),
        pytest.param("anon 60000", 0, id="not said"),
    ],
)
def test_cached_files_of_a_container_are_not_in_use(machine, tmp_path, fields, cached):
    machine(1000, ("300000", "100000"))
    (tmp_path / "memory.stat").write_text(f"{fields}\n")
    assert memory.host_available() == 200_000 + cached


def test_host_memory_without_meminfo_is_that_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", ())
    assert memory.host_available() > 2**20


def test_an_accelerator_has_its_limit_less_what_is_in_use():
    stats = {"bytes_limit": 1000, "bytes_in_use": 300}
    assert (
        memory.available(types.SimpleNamespace(platform="gpu", memory_stats=lambda: stats)) == 700
    )


@pytest.mark.parametrize("stats", [None, {}, {"bytes_in_use": 300}])
def test_an_accelerator_that_does_not_say_has_what_is_assumed(stats):
    device = types.SimpleNamespace(platform="tpu", memory_stats=lambda: stats)
    assert memory.is_assumed(device)
    assert memory.available(device) == memory.ASSUMED_BYTES - (stats or {}).get("bytes_in_use", 0)
    assert not memory.is_assumed(jax.devices("cpu")[0])


def test_simulated_devices_share_the_host(machine):
    machine(8000)
    device = jax.devices("cpu")[0]
    assert memory.available(device) == 8000 * 1024 // len(jax.local_devices(backend="cpu"))


def test_bytes_of_arrays_and_shapes():
    tree = ({"a": jax.ShapeDtypeStruct((3, 4), jnp.bfloat16)}, [jnp.zeros(2, jnp.uint8)], None)
    assert memory.tree_bytes(tree) == 26


def test_rows_of_a_state():
    items = memory.state_items(PARAMS, {}, {"trace": jnp.zeros(5)}, FROZEN)
    assert {item.what: item.bytes for item in items} == {
        "trainable parameters": 20,
        "frozen parameters": 24,
        "BatchNorm statistics": 0,
        "optimizer state": 20,
    }
    assert {item.where for item in items} == {"device"}


def _compiled(**sizes):
    names = ("temp", "output", "alias")
    analysis = types.SimpleNamespace(
        **{f"{name}_size_in_bytes": sizes.get(name, 0) for name in names}
    )
    return types.SimpleNamespace(memory_analysis=lambda: analysis)


def test_rows_of_a_step_split_the_temporary_buffer():
    items = memory.step_items(_compiled(temp=100, output=50, alias=44), PARAMS, FROZEN)
    assert [(item.what, item.bytes) for item in items] == [
        ("gradients", 20),
        ("activations and workspace", 80),
        ("outputs not donated", 6),
    ]


def test_gradients_never_exceed_the_temporary_buffer():
    items = memory.step_items(_compiled(temp=8), PARAMS, FROZEN)
    assert [item.bytes for item in items] == [8, 0, 0]


def test_a_step_that_the_compiler_did_not_analyse():
    unknown = types.SimpleNamespace(memory_analysis=lambda: None)
    assert [item.bytes for item in memory.step_items(unknown, PARAMS, FROZEN)] == [0, 0, 0]


def test_a_compiled_program_has_its_temporary_bytes():
    def program(x):
        return jnp.linalg.norm(jnp.sort(x @ x, axis=0) @ x)

    compiled = jax.jit(program).lower(jnp.zeros((64, 64))).compile()
    assert memory.temporary_bytes(compiled) >= 64 * 64 * 4


def test_the_plan_sums_each_place():
    items = [
        memory.Item("parameters", 1024),
        memory.Item("nothing", 0),
        memory.Item("data", 512),
        memory.Item("cache", 2**31, "disk"),
    ]
    rows = memory.plan(items, {"device": 4096, "host": 5})
    assert [(row["what"], row["where"], row["bytes"]) for row in rows] == [
        ("parameters", "device", 1024),
        ("data", "device", 512),
        ("cache", "disk", 2**31),
        ("total", "device", 1536),
        ("total", "disk", 2**31),
    ]
    assert rows[3]["size"] == "1.5 KiB"
    assert rows[3]["available"] == "4.0 KiB"
    assert "available" not in rows[4]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**30, "3.0 GiB"), (2**41, "2.0 TiB")],
)
def test_bytes_as_text(count, text):
    assert memory.format_bytes(count) == text


def test_what_follows_one_another_is_not_added_up():
    items = [
        memory.Item("state", 100),
        memory.Item("activations", 30, phase="training"),
        memory.Item("batches", 5, phase="training"),
        memory.Item("pass", 20, phase="evaluation"),
        memory.Item("images", 7, "host"),
        memory.Item("decoding", 9, "host", "decoding"),
    ]
    assert memory.by_phase(items, "device") == {
        "": 100, "training": 135, "evaluation": 120, "decoding": 100,
    }  # fmt: skip
    assert memory.peak(items, "device") == 135
    assert memory.peak(items, "host") == 16
    rows = memory.plan(items, {"host": 64})
    assert [row.get("during") for row in rows[:4]] == [None, "training", "training", "evaluation"]
    assert [(row["what"], row["bytes"]) for row in rows[-2:]] == [
        ("most at once", 135),
        ("most at once", 16),
    ]


def test_a_process_knows_what_it_holds(monkeypatch, tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmRSS:\t   2048 kB\n")
    monkeypatch.setattr(memory, "_STATUS", status)
    assert memory.host_in_use() == 2 * 2**20
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "absent")
    assert memory.host_in_use() == 0
