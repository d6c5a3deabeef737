"""Checksums, whole files, JSON without NaN, and what is said of a full disk."""

import errno
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import files


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Of RFC 1321 and of FIPS 180-2, for "abc".
@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("md5", "900150983cd24fb0d6963f7d28e17f72"),
        ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ],
)
def test_digest(tmp_path, algorithm, expected):
    (tmp_path / "file").write_bytes(b"abc")
    assert files.digest(tmp_path / "file", algorithm) == expected
    assert files.digest(tmp_path / "file") == files.digest(str(tmp_path / "file"), "sha256")
    with open(tmp_path / "file", "rb") as file:
        file.read()
        assert files.digest(file, algorithm) == expected


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mapped_array_outlives_its_file(tmp_path, order):
    values = np.asarray(np.arange(6, dtype=np.uint16).reshape(2, 3), order=order)
    np.save(tmp_path / "a.npy", values)
    mapped = files.map_array(tmp_path / "a.npy", files.digest(tmp_path / "a.npy"))
    (tmp_path / "a.npy").unlink()
    assert mapped.dtype == values.dtype and not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, values)


@pytest.mark.parametrize(
    "damage", ["absent", "empty", "cut short", "longer", "of another kind", "one bit"]
)
def test_a_damaged_array_is_none(tmp_path, damage):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6))
    checksum, content = files.digest(path), path.read_bytes()
    damaged = {
        "empty": b"",
        "cut short": content[:-1],
        "longer": content + b"0",
        "of another kind": b"text" * 50,
        "one bit": content[:-1] + b"1",
    }
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    assert files.map_array(path, checksum) is None
    # Without a checksum, whatever has the right form is taken.
    assert (files.map_array(path) is None) == (damage != "one bit")


def draft_of(cache: pathlib.Path, content: str) -> files.Draft:
    draft = files.Draft(cache)
    (draft.path / "content").write_text(content)
    return draft


def is_whole(entry: pathlib.Path) -> bool:
    return (entry / "content").read_text() != "damaged"


def test_the_first_whole_entry_stays(tmp_path):
    first, second = draft_of(tmp_path, "first"), draft_of(tmp_path, "second")
    assert first.publish("entry", is_whole) and not second.publish("entry", is_whole)
    assert names(tmp_path) == ["entry"]
    assert (tmp_path / "entry" / "content").read_text() == "first"
    first.discard()  # it is an entry by now
    assert is_whole(tmp_path / "entry")


def test_other_users_can_read_an_entry(tmp_path):
    before = os.umask(0o022)
    try:
        draft_of(tmp_path, "whole").publish("entry", is_whole)
    finally:
        os.umask(before)
    assert (tmp_path / "entry").stat().st_mode & 0o777 == 0o755


def test_a_damaged_entry_is_replaced(tmp_path):
    draft_of(tmp_path, "damaged").publish("entry", is_whole)
    assert draft_of(tmp_path, "whole").publish("entry", is_whole)
    assert names(tmp_path) == ["entry"] and is_whole(tmp_path / "entry")


@pytest.mark.parametrize("meanwhile", ["replaced", "removed"])
def test_an_entry_that_changes_while_it_is_judged(tmp_path, meanwhile):
    """What another process puts in place of the damaged one is not removed with it."""
    draft_of(tmp_path, "damaged").publish("entry", is_whole)
    judged = []

    def judge(entry):
        judged.append(is_whole(entry))
        if len(judged) == 1:
            shutil.rmtree(entry)
            if meanwhile == "replaced":
                draft_of(tmp_path, "of another process").publish("entry", is_whole)
        return judged[-1]

    published = draft_of(tmp_path, "own").publish("entry", judge)
    expected = "of another process" if meanwhile == "replaced" else "own"
    assert published == (expected == "own")
    assert (tmp_path / "entry" / "content").read_text() == expected
    assert names(tmp_path) == ["entry"]


@pytest.mark.parametrize("moment", ["before it is locked", "while it is moved"])
def test_a_whole_entry_that_takes_the_place_of_a_damaged_one(tmp_path, monkeypatch, moment):
    """It is not even moved; where nobody can lock it, it is put back."""
    draft_of(tmp_path, "damaged").publish("entry", is_whole)
    rename, lock, moved = pathlib.Path.rename, files._wait_for_lock, []

    def replace(source):
        monkeypatch.undo()
        shutil.rmtree(source)
        assert draft_of(tmp_path, "of another process").publish("entry", is_whole)
        monkeypatch.setattr(pathlib.Path, "rename", renamed)

    def locked(descriptor):
        replace(tmp_path / "entry")
        lock(descriptor)

    def renamed(source, target):
        if source.name == "entry":
            if moment == "while it is moved" and not moved:
                replace(source)
            moved.append((source / "content").read_text())
        return rename(source, target)

    own = draft_of(tmp_path, "own")
    monkeypatch.setattr(pathlib.Path, "rename", renamed)
    if moment == "before it is locked":
        monkeypatch.setattr(files, "_wait_for_lock", locked)
    assert not own.publish("entry", is_whole)
    assert moved == ([] if moment == "before it is locked" else ["of another process"])
    assert (tmp_path / "entry" / "content").read_text() == "of another process"
    assert names(tmp_path) == ["entry"]


@pytest.mark.parametrize("target", ["nothing", "entry"], ids=["to nothing", "to itself"])
def test_a_broken_link_is_replaced(tmp_path, monkeypatch, target):
    (tmp_path / "entry").symlink_to(target)
    renamed, tries = files._renamed, []

    def limited(draft, entry):
        tries.append(entry)
        assert len(tries) < 5, "without end"
        return renamed(draft, entry)

    monkeypatch.setattr(files, "_renamed", limited)
    assert draft_of(tmp_path, "whole").publish("entry", is_whole)
    assert names(tmp_path) == ["entry"] and is_whole(tmp_path / "entry")


def test_a_draft_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.Draft(tmp_path / "cache") as draft:
        (draft.path / "content").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path / "cache") == []


def made_before(path: pathlib.Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_drafts_of_living_processes_stay_and_of_killed_ones_go(tmp_path):
    held = files.Draft(tmp_path)
    script = (
        "import sys, time; from tl_jax import files; d = files.Draft(files.Path(sys.argv[1])); "
    )
    script += "print(d.path, flush=True); time.sleep(600)"
    root = pathlib.Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        try:
            other = pathlib.Path(process.stdout.readline().strip())
            for draft in (held.path, other):
                made_before(draft, 2 * 24 * 3600)
            files.Draft(tmp_path).discard()
            assert held.path.exists() and other.exists()
        finally:
            process.kill()
    files.Draft(tmp_path).discard()
    assert held.path.exists() and not other.exists()
    held.discard()
    assert names(tmp_path) == []


def test_folders_of_the_user_with_a_similar_name_stay(tmp_path):
    own, old = tmp_path / ".draft-pictures", tmp_path / f".draft-{7:032x}"
    for folder in (own, old):
        folder.mkdir()
        (folder / "photo.png").write_text("content")
        made_before(folder, 2 * 24 * 3600)
    files.Draft(tmp_path).discard()
    assert names(own) == ["photo.png"] and not old.exists()


def is_locked(folder: pathlib.Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_draft_is_locked_though_another_process_looks_at_it_meanwhile(tmp_path, monkeypatch):
    """The other one holds the lock from before the draft's own process asks for it."""
    flock, timers = fcntl.flock, []

    def held_by_another(descriptor, operation):
        (draft,) = tmp_path.iterdir()
        other = os.open(draft, os.O_RDONLY)
        flock(other, fcntl.LOCK_EX)
        timers.append(threading.Timer(0.1, os.close, [other]))
        timers[-1].start()
        flock(descriptor, operation)

    with monkeypatch.context() as patched:
        patched.setattr(files.fcntl, "flock", held_by_another)
        draft = files.Draft(tmp_path)
    (timer,) = timers
    timer.join()
    assert is_locked(draft.path)
    draft.discard()


def test_an_error_that_does_not_mean_no_locks_is_raised(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"):
        files.Draft(tmp_path)
    assert names(tmp_path) == []


def test_without_locks_drafts_go_after_a_day(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", unsupported)
    hour, days = files.Draft(tmp_path), files.Draft(tmp_path)
    made_before(hour.path, 3600)
    made_before(days.path, 2 * 24 * 3600)
    files.Draft(tmp_path).discard()
    assert hour.path.exists() and not days.path.exists()
    hour.discard()


@pytest.mark.parametrize(
    ("content", "expected"), [("é\n", b"\xc3\xa9\n"), (b"\x00\xff", b"\x00\xff"), ("", b"")]
)
def test_write_makes_folders_and_replaces(tmp_path, content, expected):
    path = tmp_path / "plots" / "loss.png"
    files.write(path, b"an earlier, longer one")
    (tmp_path / "plots" / ".loss.png.tmp").write_text("left by a kill")
    files.write(str(path), content)
    assert path.read_bytes() == expected
    assert names(tmp_path / "plots") == ["loss.png"]


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch, place):
    path = tmp_path / "file"
    files.write(path, "kept")

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(*((files.os, place) if place == "fsync" else (pathlib.Path, place)), fail)
        with pytest.raises(KeyboardInterrupt):
            files.write(path, "new")
    assert path.read_text() == "kept"
    assert names(tmp_path) == ["file"]


def test_json_has_no_word_for_what_is_not_finite():
    value = {"nan": np.float32("nan"), "all": (1.5, float("inf"), [-np.inf]), 3: None}
    text = files.to_json(value, indent=None)
    assert text == '{"nan": "nan", "all": [1.5, "inf", ["-inf"]], "3": null}\n'
    assert np.isnan(float(json.loads(text)["nan"]))
    assert files.to_json({"a": 1}) == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (jnp.float32(0.5), 0.5),
        (np.array([1.0, np.nan]), [1.0, "nan"]),
        (np.bool_(True), True),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        ((), []),
        ("nan", "nan"),
    ],
    ids=["array", "jax", "nan_in_array", "bool", "path", "empty", "text"],
)
def test_plain(value, expected):
    found = files.plain(value)
    assert found == expected and type(found) is type(expected)
    assert json.loads(files.to_json(value)) == expected


@pytest.mark.parametrize("value", [object(), {"a": [{1, 2}]}, b"bytes"])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(TypeError, match=r"of type (object|set|bytes) cannot be written as JSON"):
        files.to_json(value)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EFBIG, "x"), True),
        (ValueError('Error writing "a/0": No space left on device [os_error_code=28]'), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("x"), False),
    ],
)
def test_which_errors_mean_a_full_disk(tmp_path, error, full):
    assert files.is_disk_full(error) == full
    with pytest.raises((OSError, ValueError)) as raised, files.explain_full_disk("it", tmp_path, 1):
        raise error
    assert (raised.value is error) == (not full)


def test_the_message_of_a_full_disk(tmp_path):
    expected = (
        rf"the model could not be written to {tmp_path}: it needs about 1,234,567 bytes and "
        r"[\d,]+ are free \(or a quota or file-size limit is reached\); call the admin"
    )
    with (
        pytest.raises(OSError, match=expected) as raised,
        files.explain_full_disk("the model", tmp_path, 1234567, "call the admin"),
    ):
        raise ValueError("No space left on device")
    assert raised.value.errno == errno.ENOSPC
