"""A benchmark writes from a clean tree, of one revision, what its figures depend on."""

import argparse
import json
import subprocess
import sys

import jax
import pytest

from benchmarks import all as stages
from benchmarks import record


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """Takes away the variables that make and users set and that are part of a recorded command."""
    for name in record._TIMED_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def repository(tmp_path):
    """Returns a checkout with one committed module, one result and one page."""
    folder = tmp_path / "checkout"
    (folder / "results").mkdir(parents=True)
    (folder / "code.py").write_text("A = 1\n")
    (folder / "README.md").write_text("page\n")
    (folder / "results" / "old.json").write_text("{}\n")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=change")
    return git(folder, "rev-parse", "HEAD")


def begin(folder, *arguments):
    parser = argparse.ArgumentParser(prog="flops.py")
    record.add_arguments(parser)
    return record.Recording(parser, parser.parse_args(arguments), folder)


def test_a_result_has_its_revision_versions_device_command_and_date(repository, tmp_path):
    out = tmp_path / "flops.json"
    begin(repository, f"--out={out}").write({"rows": [1]})
    found = json.loads(out.read_text())
    assert found["rows"] == [1]
    assert found["revision"] == git(repository, "rev-parse", "HEAD")
    assert found["versions"]["jax"] == jax.__version__
    assert {"python", "jaxlib", "flax", "numpy", "torch"} <= found["versions"].keys()
    assert found["device"]["platform"] == "cpu"
    assert found["command"].startswith("python -m benchmarks.flops")
    assert len(found["date"]) == len("2026-01-31")


@pytest.mark.parametrize("change", ["edited", "added"])
def test_a_dirty_tree_is_refused_before_anything_is_measured(repository, tmp_path, capsys, change):
    name = {"edited": "code.py", "added": "more.py"}[change]
    (repository / name).write_text("A = 2\n")
    with pytest.raises(SystemExit) as stopped:
        begin(repository, f"--out={tmp_path / 'flops.json'}")
    assert stopped.value.code == 2
    assert f"the tree is not clean ({name})" in capsys.readouterr().err


def test_a_dirty_tree_is_recorded_where_it_is_allowed(repository, tmp_path):
    (repository / "code.py").write_text("A = 2\n")
    out = tmp_path / "flops.json"
    begin(repository, f"--out={out}", "--allow_dirty").write({})
    assert json.loads(out.read_text())["revision"].endswith("+dirty")


def test_without_out_a_dirty_tree_may_be_measured(repository, capsys):
    (repository / "code.py").write_text("A = 2\n")
    begin(repository).write({"rows": []})
    assert json.loads(capsys.readouterr().out)["revision"].endswith("+dirty")


def test_results_and_pages_do_not_make_a_tree_dirty(repository, tmp_path):
    (repository / "results" / "old.json").write_text("{1}\n")
    (repository / "results" / "new.json").write_text("{}\n")
    (repository / "README.md").write_text("another page\n")
    out = tmp_path / "flops.json"
    begin(repository, f"--out={out}").write({})
    assert json.loads(out.read_text())["revision"] == git(repository, "rev-parse", "HEAD")


def test_code_that_changes_meanwhile_keeps_the_file_from_being_written(repository, tmp_path):
    out = tmp_path / "flops.json"
    recording = begin(repository, f"--out={out}")
    (repository / "code.py").write_text("A = 3\n")
    commit(repository)
    with pytest.raises(SystemExit, match="the code changed meanwhile"):
        recording.write({})
    assert not out.exists()


def test_a_file_goes_on_after_a_commit_of_results_only(repository, tmp_path):
    out = tmp_path / "rows.json"
    begin(repository, f"--out={out}").write({"rows": {"a": 1}})
    first = git(repository, "rev-parse", "HEAD")
    (repository / "results" / "old.json").write_text("{2}\n")
    assert commit(repository) != first
    recording = begin(repository, f"--out={out}")
    assert recording.resume()["rows"] == {"a": 1}
    recording.write({"rows": {"a": 1, "b": 2}})
    assert json.loads(out.read_text())["revision"] == first


def test_a_file_of_other_code_is_not_added_to(repository, tmp_path, capsys):
    out = tmp_path / "rows.json"
    begin(repository, f"--out={out}").write({"rows": {}})
    (repository / "code.py").write_text("A = 4\n")
    commit(repository)
    with pytest.raises(SystemExit):
        begin(repository, f"--out={out}").resume()
    assert "a file holds one revision" in capsys.readouterr().err


def test_a_file_of_other_versions_is_not_added_to(repository, tmp_path, capsys):
    out = tmp_path / "rows.json"
    begin(repository, f"--out={out}").write({"rows": {}})
    found = json.loads(out.read_text())
    found["versions"]["jax"] = "0.1.2"
    out.write_text(json.dumps(found))
    with pytest.raises(SystemExit):
        begin(repository, f"--out={out}").resume()
    assert f"jax 0.1.2, not {jax.__version__}" in capsys.readouterr().err


def test_a_dirty_file_is_not_added_to_from_a_clean_tree(repository, tmp_path):
    out = tmp_path / "rows.json"
    (repository / "code.py").write_text("A = 2\n")
    begin(repository, f"--out={out}", "--allow_dirty").write({"rows": {}})
    commit(repository)
    with pytest.raises(SystemExit):
        begin(repository, f"--out={out}").resume()


def test_folders_of_this_machine_are_not_recorded(monkeypatch):
    monkeypatch.setattr(
        sys,
        "argv",
        ["sweep.py", "--data_dir=/home/me/data", "--out=/home/me/sweep.json", "--runs=64"],
    )
    found = record.command_line("sweep.py")
    assert found == "python -m benchmarks.sweep --data_dir=DIR --out=sweep.json --runs=64"
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--data_dir", "/home/me/data", "--small"])
    found = record.command_line("python -m benchmarks.sweep")
    assert found == "python -m benchmarks.sweep --data_dir DIR --small"
    monkeypatch.setattr(sys, "argv", ["recipes.py", "--flowers=~/flowers.zip", "--workdir=/a/b"])
    found = record.command_line("recipes.py")
    assert found == "python -m benchmarks.recipes --flowers=DIR --workdir=DIR"
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--out", "/home/me/sweep.json", "--small"])
    assert record.command_line("sweep.py") == "python -m benchmarks.sweep --out sweep.json --small"


def test_what_changes_the_speed_from_outside_is_part_of_the_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sweep.py"])
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    found = record.command_line("sweep.py")
    assert found == "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.sweep"


def test_stages_say_whether_their_file_is_complete(tmp_path, monkeypatch):
    head = record._git(record.REPOSITORY, "rev-parse", "HEAD")
    if not head:
        pytest.skip("this is no git checkout")
    stage = stages.Stage("rows", 1, ("benchmarks.throughput",), rows=2)
    path = stages.place(stage, tmp_path / "cpu-jax0.10")
    assert path == tmp_path / "cpu-jax0.10" / "rows.json"
    assert stages.state(stage, path) == "missing"
    path.parent.mkdir()
    path.write_text(json.dumps({"revision": head, "rows": {"a": 1}}))
    assert stages.state(stage, path) == "1 of 2 rows"
    path.write_text(json.dumps({"revision": head, "rows": {"a": 1, "b": 2}}))
    assert stages.state(stage, path) == "complete"
    for revision in (f"{head}+dirty", "0" * 40, None):
        path.write_text(json.dumps({"revision": revision, "rows": {"a": 1, "b": 2}}))
        assert stages.state(stage, path) == "of another revision"


def test_an_unknown_stage_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["all", "--only=trhoughput"])
    with pytest.raises(SystemExit) as stopped:
        stages.main()
    assert stopped.value.code == 2
    assert "nearest: throughput" in capsys.readouterr().err


def test_stages_ask_for_a_clean_tree_before_the_first_of_them(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["all", "--only=flops"])
    monkeypatch.setattr(record, "changed_files", lambda: ["tl_jax/training/steps.py"])
    monkeypatch.setattr(stages, "variant", lambda: "cpu-jax0.10")
    monkeypatch.setattr(stages, "run", lambda *args: pytest.fail("a stage was begun"))
    with pytest.raises(SystemExit) as stopped:
        stages.main()
    assert stopped.value.code == 2
    assert "the tree is not clean (tl_jax/training/steps.py)" in capsys.readouterr().err


def test_every_stage_starts_a_benchmark_that_is_there():
    for stage in stages.STAGES:
        module = stage.arguments[0].removeprefix("benchmarks.")
        assert (record.REPOSITORY / "benchmarks" / f"{module}.py").is_file(), stage
