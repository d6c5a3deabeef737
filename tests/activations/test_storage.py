"""Stores: found again under the same facts, never under others, never when damaged."""

import json
import re

import ml_dtypes
import numpy as np
import pytest

from tl_jax import files
from tl_jax.activations import Store, choose_storage
from tl_jax.errors import InputError

FACTS = {"weights": "abc", "images": "def"}
SHAPE = (5, 2, 3)


def values(dtype):
    return np.arange(30).reshape(SHAPE).astype(dtype) / 8


def kept(folder, dtype="float32", facts=FACTS):
    store = Store(folder, facts, SHAPE, dtype)
    out = store.create()
    out[:] = values(store.dtype)
    store.keep(out)
    return store


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_kept_is_found_by_another_run(tmp_path, dtype):
    store = kept(tmp_path / "new" / "folder", dtype)
    found = Store(tmp_path / "new" / "folder", FACTS, SHAPE, dtype).open()
    assert found.dtype == (ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
    np.testing.assert_array_equal(found, values(found.dtype))
    assert store.num_bytes == (60 if dtype == "bfloat16" else 120)
    assert sorted(path.name for path in store.path.parent.iterdir()) == [
        f"{store.key}.json",
        f"{store.key}.npy",
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"facts": {"weights": "abd", "images": "def"}},
        {"facts": {"weights": "abc", "images": "def", "views": 1}},
        {"shape": (5, 3, 2)},
        {"dtype": "bfloat16"},
    ],
)
def test_other_facts_find_nothing(tmp_path, other):
    kept(tmp_path)
    given = {"facts": FACTS, "shape": SHAPE, "dtype": "float32", **other}
    assert Store(tmp_path, given["facts"], given["shape"], given["dtype"]).open() is None


def test_damage_is_noticed_and_written_anew(tmp_path):
    store = kept(tmp_path)
    content = bytearray(store.path.read_bytes())
    content[-1] ^= 1
    store.path.write_bytes(content)
    assert store.open() is None
    assert store.open(verify=False) is not None
    store.path.write_bytes(content[:-4])
    assert store.open(verify=False) is None
    np.testing.assert_array_equal(kept(tmp_path).open(), values(np.float32))


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b"{}"])
def test_a_record_that_says_nothing_is_no_store(tmp_path, left):
    store = kept(tmp_path)
    store.path.with_suffix(".json").write_bytes(left)
    assert store.open() is None


def test_activations_without_their_record_are_not_used(tmp_path):
    """As a run that was killed between the two leaves them."""
    store = kept(tmp_path)
    store.path.with_suffix(".json").unlink()
    assert store.open() is None


def test_the_record_holds_the_facts(tmp_path):
    store = kept(tmp_path)
    record = json.loads(store.path.with_suffix(".json").read_text())
    assert record["facts"] == {**FACTS, "shape": [5, 2, 3], "dtype": "float32"}
    assert record["sha256"] == files.digest(store.path)


def test_without_a_folder_activations_stay_in_memory():
    store = Store(None, FACTS, SHAPE, "float32")
    assert store.open() is None and store.path is None and store.room() == 0
    out = store.create()
    out[:] = 1
    assert store.keep(out) is out


def test_drafts_of_dead_processes_are_removed(tmp_path):
    store = Store(tmp_path, FACTS, SHAPE, "float32")
    mine = files.draft_of(store.path)
    dead = mine.with_name(mine.name.replace(mine.name.split("-")[-1], "999999999.tmp"))
    dead.write_bytes(b"half")
    kept(tmp_path)
    assert not dead.exists()


def test_room_is_that_of_the_nearest_folder_that_exists(tmp_path):
    assert Store(tmp_path / "not" / "yet", FACTS, SHAPE, "float32").room() > 0


@pytest.mark.parametrize(
    ("wanted", "device", "host", "expected"),
    [
        ("auto", 100, 100, "device"),
        ("auto", 99, 100, "host"),
        ("auto", 99, 99, "disk"),
        ("host", 100, 100, "host"),
        ("disk", 100, 100, "disk"),
    ],
)
def test_where_activations_are_read_from(wanted, device, host, expected):
    assert choose_storage(100, wanted, device, host) == expected


def test_no_room_no_such_place_no_such_dtype():
    message = (
        "cache.storage=host: the activations take 100 bytes, there is room for 99; nearest: disk"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        choose_storage(100, "host", 0, 99)
    with pytest.raises(InputError, match=r"unknown cache\.storage 'disc'; nearest: disk"):
        choose_storage(100, "disc", 0, 0)
    with pytest.raises(InputError, match=r"unknown cache\.dtype 'float16'; nearest: "):
        Store(None, FACTS, SHAPE, "float16")
