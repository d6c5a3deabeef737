"""Versions of JAX are compared round by round."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import steps


def turn(milliseconds):
    figures = {"cpu_milliseconds": 1.0, "system_milliseconds": 1.0, "page_faults": 3}
    return {"row": {"batch_size": 50, "milliseconds": milliseconds, **figures}}


def test_speed_is_that_of_the_same_round():
    """The machine is twice as slow in the second round: each case by the same factor."""
    turns = {"old": [turn(100.0), turn(200.0)], "new": [turn(50.0), turn(100.0)]}
    cases = steps.summary("row", turns)["cases"]
    assert cases["old"]["speed"] == pytest.approx(1.0)
    assert cases["new"]["speed"] == pytest.approx(2.0)
    assert cases["new"]["speed_interval"] == pytest.approx([2.0, 2.0])
    assert cases["old"]["images_per_second_median"] == pytest.approx(50 / 0.15)


def test_the_interval_is_of_the_logarithms():
    """Ratios 1 and 4: log 2 in the mean, standard deviation log 4 / sqrt 2, t 12.706."""
    turns = {"old": [turn(100.0), turn(400.0)], "new": [turn(100.0), turn(100.0)]}
    new = steps.summary("row", turns)["cases"]["new"]
    assert new["speed"] == pytest.approx(2.0)
    assert new["speed_interval"][1] == pytest.approx(2 * 2**12.706, rel=1e-3)


def test_each_version_of_jax_counts_once(monkeypatch):
    answers = {
        "a": "3.12.1 0.12.0.1",
        "b": "3.11.7 0.10.2",
        "c": "3.13.0 0.12.0.1",
        "d": "",
        "e": "3.9.2 0.12.0.1",
    }

    def run(command, **options):
        answer = answers[command[0]]
        return subprocess.CompletedProcess(command, 0 if answer else 1, answer)

    monkeypatch.setattr(steps.subprocess, "run", run)
    found = steps.versions(list(answers))
    assert [case.command for case in found] == ["b", "c"]
    assert [case.name for case in found] == ["jax0.10", "jax0.12"]


def test_huge_pages_are_asked_for_where_they_are_to_be(monkeypatch, tmp_path):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    seen = []

    def run(command, *, env, **options):
        seen.append(env.get("GLIBC_TUNABLES"))
        side = {f"{what}_median": 1.0 for what in steps._MEASURED}
        row = {"batch_size": 8, "sides": {"jax": side}}
        out = next(text.removeprefix("--out=") for text in command if text.startswith("--out="))
        with open(out, "w") as file:
            json.dump({"rows": {"resnet20/full": row}}, file)

    monkeypatch.setattr(steps.subprocess, "run", run)
    for huge in (False, True):
        case = steps.Case(sys.executable, "3.13.0", "0.12.0", huge)
        rows = steps.measure(case, ["resnet20/full"], 1.0, tmp_path)
        assert rows["resnet20/full"]["batch_size"] == 8
    assert seen == [None, "glibc.malloc.hugetlb=1"]
    assert os.environ["GLIBC_TUNABLES"]
