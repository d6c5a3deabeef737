"""Stores: found again under the same facts, never under others, never when damaged."""

import json
import pathlib
import shutil
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest

from tl_jax import files
from tl_jax.errors import InputError
from tl_jax.features import Store

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
        "activations.npy",
        "facts.json",
    ]
    assert [path.name for path in store.path.parent.parent.iterdir()] == [store.key]


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


def test_an_entry_of_the_right_size_but_damaged_is_not_kept(tmp_path):
    """A run that computes the same replaces it, and reads its own."""
    store = Store(tmp_path, FACTS, SHAPE, "float32")
    own = store.create()
    own[:] = values(np.float32)
    damaged = kept(tmp_path).path
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    np.testing.assert_array_equal(store.keep(own), values(np.float32))
    np.testing.assert_array_equal(store.open(), values(np.float32))


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b"{}"])
def test_a_record_that_says_nothing_is_no_store(tmp_path, left):
    store = kept(tmp_path)
    (store.path.parent / "facts.json").write_bytes(left)
    assert store.open() is None


def test_activations_without_their_record_are_not_used(tmp_path):
    """As a run that was killed between the two leaves them."""
    store = kept(tmp_path)
    (store.path.parent / "facts.json").unlink()
    assert store.open() is None


def test_the_record_holds_the_facts(tmp_path):
    store = kept(tmp_path)
    record = json.loads((store.path.parent / "facts.json").read_text())
    assert record["facts"] == {**FACTS, "shape": [5, 2, 3], "dtype": "float32"}
    assert record["sha256"] == files.digest(store.path)


def test_without_a_folder_activations_stay_in_memory():
    store = Store(None, FACTS, SHAPE, "float32")
    assert store.open() is None and store.path is None and store.room() == 0
    out = store.create()
    out[:] = 1
    assert store.keep(out) is out


@pytest.mark.parametrize("deleted", [False, True])
def test_two_that_compute_the_same_do_no_harm(tmp_path, deleted):
    stores = [Store(tmp_path, FACTS, SHAPE, "float32") for _ in range(2)]
    drafts = [store.create() for store in stores]
    for number, draft in enumerate(drafts):
        draft[:] = values(np.float32) + number
    first = stores[0].keep(drafts[0])
    if deleted:
        shutil.rmtree(tmp_path / stores[0].key)
    second = stores[1].keep(drafts[1])
    np.testing.assert_array_equal(first, values(np.float32))
    # The first entry stays, and is what the second one reads.
    np.testing.assert_array_equal(second, values(np.float32) + deleted)
    np.testing.assert_array_equal(stores[0].open(), second)
    assert [path.name for path in tmp_path.iterdir()] == [stores[0].key]


def test_an_entry_that_vanishes_at_once_is_still_returned(tmp_path, monkeypatch):
    """As when a user empties the folder between the rename and the first read."""
    publish = files.Draft.publish

    def published_and_deleted(draft, name, is_whole):
        result = publish(draft, name, is_whole)
        shutil.rmtree(tmp_path / name)
        return result

    monkeypatch.setattr(files.Draft, "publish", published_and_deleted)
    for _ in range(2):
        store = Store(tmp_path, FACTS, SHAPE, "float32")
        draft = store.create()
        draft[:] = values(np.float32)
        np.testing.assert_array_equal(store.keep(draft), values(np.float32))


def test_arrays_stay_readable_when_their_entry_is_damaged_and_replaced(tmp_path):
    store = kept(tmp_path)
    array = store.open()
    (store.path.parent / "facts.json").unlink()
    np.testing.assert_array_equal(kept(tmp_path).open(), values(np.float32))
    shutil.rmtree(tmp_path)
    np.testing.assert_array_equal(array, values(np.float32))


@pytest.mark.parametrize("place", ["an empty folder", "a file", "a folder of another kind"])
def test_whatever_has_the_name_of_an_entry_is_replaced(tmp_path, place):
    entry = tmp_path / Store(tmp_path, FACTS, SHAPE, "float32").key
    if place == "a file":
        entry.write_text("")
    else:
        entry.mkdir()
    if place == "a folder of another kind":
        (entry / "notes.txt").write_text("")
    np.testing.assert_array_equal(kept(tmp_path).open(), values(np.float32))
    assert [path.name for path in tmp_path.iterdir()] == [entry.name]


@pytest.mark.parametrize("checksum", [None, 3, ""])
def test_a_record_without_a_checksum_verifies_nothing(tmp_path, checksum):
    store = kept(tmp_path)
    (store.path.parent / "facts.json").write_text(json.dumps({"sha256": checksum}))
    assert store.open() is None


PROCESSES, ROUNDS = 2, 200


def test_processes_and_threads_on_one_folder(tmp_path):
    """All compute the same entry in every round; in some rounds a damaged one is in the way."""
    script = pathlib.Path(__file__).with_name("store_worker.py")
    workers = [
        subprocess.Popen(
            [sys.executable, script, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=pathlib.Path(__file__).parents[2],
            text=True,
        )
        for _ in range(PROCESSES)
    ]

    def kill():
        for worker in workers:
            worker.kill()

    limit = threading.Timer(120, kill)
    limit.start()

    def ask(line):
        """Sends a line to all workers; returns their answers."""
        for worker in workers:
            worker.stdin.write(f"{line}\n")
            worker.stdin.flush()
        return [worker.stdout.readline().strip() for worker in workers]

    try:
        assert ask("ready?") == ["ready"] * PROCESSES
        for number in range(ROUNDS):
            if number % 2:
                damaged = kept(tmp_path, facts={"round": number}).path
                damaged.write_bytes(damaged.read_bytes()[: -1 - number % 8])
            assert ask(number) == ["done"] * PROCESSES, number
    finally:
        limit.cancel()
        kill()
        for worker in workers:
            print(worker.communicate()[0])
    entries = sorted(path.name for path in tmp_path.iterdir())
    stores = [Store(tmp_path, {"round": number}, SHAPE, "float32") for number in range(ROUNDS)]
    assert entries == sorted(store.key for store in stores)
    for store in stores:
        np.testing.assert_array_equal(store.open(), values(np.float32))


def test_what_was_given_up_leaves_nothing(tmp_path):
    store = Store(tmp_path, FACTS, SHAPE, "float32")
    store.create()
    store.discard()
    assert list(tmp_path.iterdir()) == []


def test_room_is_that_of_the_nearest_folder_that_exists(tmp_path):
    assert Store(tmp_path / "not" / "yet", FACTS, SHAPE, "float32").room() > 0


def test_no_such_dtype():
    with pytest.raises(InputError, match=r"unknown cache\.dtype 'float16'; nearest: "):
        Store(None, FACTS, SHAPE, "float16")
