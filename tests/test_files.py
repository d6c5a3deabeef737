"""Checksums, whole files, JSON without NaN, and what is said of a full disk."""

import errno
import json
import pathlib

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
