"""The folder of an ablation: what may be written there, and what is found there that nobody wrote so."""

import os

import pytest

from tl_jax import ablation
from tl_jax.ablation import cells
from tl_jax.ablation.record import Record
from tl_jax.errors import InputError


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("spec.json", "", r"spec\.json is no JSON"),
        ("spec.json", "[]", r"spec\.json is no spec that an ablation has written"),
        ("spec.json", "{}", r"spec\.json is no spec that an ablation has written"),
        (
            "test_log.jsonl",
            '{"what": }\n',
            r"test_log\.jsonl has a line that no ablation has written",
        ),
        ("test_log.jsonl", "garbage\n", r"test_log\.jsonl has a line that no ablation has written"),
        (
            "test_log.jsonl",
            "{}\n",
            r"test_log\.jsonl has a line that no ablation has written: '{}'",
        ),
        ("test_log.jsonl", "[]\n", r"test_log\.jsonl has a line that no ablation has written"),
    ],
)
def test_what_is_broken_is_said_and_left(spec, tmp_path, name, content, message):
    made = spec()
    Record(tmp_path).begin(made, cells.expand(made))
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        ablation.run(spec({"other": ()}), tmp_path)
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize("half", ['{"what": "ope', '{"what": [', '{"a": {"b": 1}', '{"a": tr', "{"])
def test_half_a_line_is_one_that_was_not_written(tmp_path, half):
    """Also once there are lines after it."""
    whole = '{"what": "opened", "cell": "a"}'
    (tmp_path / "test_log.jsonl").write_text(f"{whole}\n{half}")
    (tmp_path / "times.jsonl").write_text(half)
    record = Record(tmp_path)
    assert [line["cell"] for line in record.log()] == ["a"]
    record.took("trained", [], 1.0)
    assert record.seconds("trained") == {}
    (tmp_path / "test_log.jsonl").write_text(f"{whole}\n{half}\n{whole}\n")
    assert [line["cell"] for line in record.log()] == ["a", "a"]


def test_a_folder_that_cannot_be_written_is_refused(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path or mode != os.W_OK)
    folder = tmp_path / "below" / "run"
    for refused in (ablation.run, ablation.look_ahead):
        with pytest.raises(
            InputError, match=f"cannot use {folder} as --workdir: {tmp_path} cannot"
        ):
            refused(spec(), folder)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(spec, tmp_path, monkeypatch):
    made = spec()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tl_jax.files.write", full)
    with pytest.raises(InputError, match=r"cannot use .* as --workdir: .*No space left"):
        Record(tmp_path / "run").begin(made, cells.expand(made))


def test_a_folder_below_a_file_is_refused(spec, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.txt is a file; give a new folder"):
        ablation.run(spec(), tmp_path / "thesis.txt" / "run")
