"""All stages of `benchmarks.accelerator` at their tiny size on the CPU: real values in every file."""

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import record
from benchmarks.accelerator import jax_checks, jax_side, prepared, stages, synthetic

TORCH = all(importlib.util.find_spec(name) is not None for name in ("torch", "torchvision"))


def call(out, compiled_programs, *arguments):
    """Returns {stage: content of its file} after a call."""
    command = [sys.executable, "-m", "benchmarks.accelerator", "--stage=all", "--size=tiny"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(record.REPOSITORY),
        "JAX_COMPILATION_CACHE_DIR": str(compiled_programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    done = subprocess.run(
        [*command, f"--out={out}", "--budget=500", "--allow_dirty", *arguments],
        cwd=record.REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {name: json.loads((out / f"{name}.json").read_text()) for name in stages.NAMES}


@pytest.fixture(scope="module")
def measured(compiled_programs, tmp_path_factory):
    """Returns the folder of the files, and what they hold after a call for JAX alone."""
    out = tmp_path_factory.mktemp("accelerator")
    return out, call(out, compiled_programs, "--only=jax")


def test_every_row_is_measured(measured):
    for name, file in measured[1].items():
        problems = {
            row: json.dumps(found)[:2000]
            for row, found in file["rows"].items()
            if found["status"] != "measured" and "option" not in row
        }
        assert not problems, (name, problems)
        assert set(file["not_run"]) <= {"compiler_options"}, name
        assert file["sides"] == ["jax"] and file["without_torch"] == "--only=jax"
        assert file["device"]["platform"] == "cpu" and file["versions"]["jax"]
        assert {row["code"] for row in file["rows"].values()} == {file["code"]}


def test_checks(measured):
    rows = measured[1]["checks"]["rows"]
    errors = rows["reference/resnet20_cifar"]["answers"]["highest"]
    assert set(errors["errors"]) == {"stem", "stage1", "stage2", "stage3", "pool", "head", "logits"}
    assert 0 < errors["largest"] < 1e-5
    scanned = rows["scan_equals_step/resnet20"]["answers"]["run"]
    assert scanned["all"]["same_bits"] and scanned["fewer"]["same_bits"]
    resumed = rows["resumed_bits"]["answers"]["run"]
    assert 0 < resumed["resumed_at_step"] < resumed["steps"]
    assert resumed["resumed"]["same_bits"] and resumed["repeated"]["same_bits"]
    rates = rows["rates"]["answers"]["rates"]
    assert rates["float32_flop"] > 1e8 and rates["copied_bytes"] > 1e7


@pytest.mark.parametrize(
    ("stage", "row"),
    [
        ("resnet50", "full/float32/4"),
        ("resnet50", "forward/bfloat16/4"),
        ("networks", "resnet20/frozen_late/bfloat16"),
    ],
)
def test_steps(measured, stage, row):
    found = measured[1][stage]["rows"][row]["sides"]["jax"]
    low, high = found["images_per_second_interval"]
    assert low <= found["images_per_second"] <= high
    assert len(found["milliseconds_of_rounds"]) == 2
    assert found["compile_seconds"] > 0 and found["program_bytes"]["temp"] > 0
    assert found["flop_per_second"] == pytest.approx(
        found["flops_per_step"] * found["images_per_second"] / 4
    )
    assert found["share_of_peak"] is None  # No CPU is in the table.


def test_several_updates_in_a_dispatch(measured):
    found = measured[1]["networks"]["rows"]["several_updates/resnet20"]
    one, two = (found["sides"][name] for name in ("jax", "jax_several"))
    assert (one["images_per_step"], two["images_per_step"]) == (4, 8)
    assert two["flops_per_step"] == 2 * one["flops_per_step"]
    # Losses of the same first updates.
    assert found["agreement"]["jax_several"]["agrees"]
    assert found["speed_of_first"]["jax_several"]["mean"] > 0


def test_sweep_of_convolutions(measured):
    answers = measured[1]["networks"]["rows"]["sweep_of_convolutions"]["answers"]
    for name, width in (("one_after_the_other", 1), ("together", 2)):
        assert (answers[name]["width"], answers[name]["members"]) == (width, 2)
        assert answers[name]["seconds"]["first"] > 0 and answers[name]["seconds"]["again"] > 0


def test_stem_channels(measured):
    answers = measured[1]["networks"]["rows"]["stem_channels"]["answers"]
    assert set(answers) == {"imagenet/bfloat16", "imagenet/float32"}
    for parts in answers.values():
        assert set(parts) == {"forward_milliseconds", "kernel_gradient_milliseconds"}
        for times in parts.values():
            assert set(times) == {"3", "4", "8"} and min(times.values()) > 0


def test_linear_probe_cold_and_warm(measured):
    answers = measured[1]["linear_probe"]["rows"]["jax"]["answers"]
    cold, warm = answers["cold"], answers["warm"]
    assert cold["test_top1"] == warm["test_top1"] > 0.15
    assert [bank["state"] for bank in cold["cache"]["banks"]] == ["to be computed"] * len(
        cold["cache"]["banks"]
    )
    assert {bank["state"] for bank in warm["cache"]["banks"]} == {"there"}
    for run in (cold, warm):
        assert run["process_seconds"] > run["seconds"] > run["wall_seconds"] > 0
        assert run["epochs"] == 5 and run["data"] == "synthetic"
        assert 0 <= run["waiting_share"] <= 1
        assert 0 <= run["device_idle_share"] <= 1


def test_time_to_accuracy(measured):
    file = measured[1]["time_to_accuracy"]
    curve = file["rows"]["jax/fine_tuned"]["answers"]["run"]["curve"]
    # Updates are whole, epochs of 230 images in batches of 64 are not.
    assert [point["epoch"] for point in curve] == pytest.approx([1.0, 2.0], abs=0.2)
    for point in curve:
        assert point["seconds_from_start"] > point["seconds_of_training"] > 0
    best = max(point["accuracy"] for point in curve)
    assert file["summary"]["accuracy"] == best
    assert file["summary"]["reached"]["jax/fine_tuned"]["accuracy"] == best


@pytest.mark.skipif(not TORCH, reason="PyTorch or torchvision is not installed")
def test_a_later_call_adds_pytorch_and_repeats_nothing(measured, compiled_programs):
    out, before = measured
    after = call(out, compiled_programs)
    for stage, row in (
        ("checks", "resumed_bits"),
        ("checks", "scan_equals_step/resnet20"),
        ("linear_probe", "jax"),
        ("time_to_accuracy", "jax/fine_tuned"),
        ("networks", "several_updates/resnet20"),
    ):
        assert after[stage]["rows"][row] == before[stage]["rows"][row], row
    for name, file in after.items():
        assert file["sides"] == ["jax", "torch_eager"] and file["without_torch"] == ""
        problems = {
            row: json.dumps(found)[:2000]
            for row, found in file["rows"].items()
            if found["status"] != "measured" and "option" not in row
        }
        assert not problems, (name, problems)
    for stage, row in (
        ("checks", "live/resnet20/full"),
        ("resnet50", "full/float32/4"),
        ("resnet50", "forward/bfloat16/4"),
        ("networks", "resnet20/frozen_late/bfloat16"),
    ):
        found = after[stage]["rows"][row]
        assert found["agreement"]["torch_eager"]["agrees"], found
        if found["rounds"]:
            assert found["speed_of_first"]["torch_eager"]["mean"] > 0
            assert found["sides"]["torch_eager"]["flop_per_second"] > 0
    assert after["checks"]["rows"]["live/resnet20/full"]["agreement"]["torch_eager"]["error"] < 1e-4
    probe = after["linear_probe"]["rows"]["torch/features_once"]["answers"]["run"]
    ours = after["linear_probe"]["rows"]["jax"]["answers"]["cold"]
    assert probe["test_top1"] == pytest.approx(ours["test_top1"], abs=0.25)
    curve = after["time_to_accuracy"]["rows"]["torch/airbench_from_scratch"]["answers"]["run"][
        "curve"
    ]
    assert [point["epoch"] for point in curve] == [1, 2]
    reached = after["time_to_accuracy"]["summary"]["reached"]
    assert set(reached) == {"jax/fine_tuned", "torch/airbench_from_scratch"} and all(
        reached.values()
    )


def test_differences_of_trees():
    one = {"a": {"kernel": np.array([1.0, -4.0], np.float32)}, "b": np.array([2.0], np.float32)}
    same = jax_checks.difference(one, one)
    assert same == {"same_bits": True, "largest_difference": 0.0, "leaf": None}
    other = {"a": {"kernel": np.array([1.0, -5.0], np.float32)}, "b": np.array([2.1], np.float32)}
    found = jax_checks.difference(one, other)
    assert not found["same_bits"] and found["leaf"] == "a/kernel"
    assert found["largest_difference"] == pytest.approx(0.2)
    broken = {**one, "b": np.array([np.nan], np.float32)}
    found = jax_checks.difference(one, broken)
    assert found["leaf"] == "b" and math.isnan(found["largest_difference"])


def test_sets_of_compiler_options_are_those_of_the_library(monkeypatch):
    known = {"cpu": {"fast": {"xla_cpu_enable_fast_min_max": True, "xla_no_such_option": 1}}}
    monkeypatch.setattr(jax_side.compiler_options, "SETS", known)
    found = jax_side.options()
    assert found["sets"] == known["cpu"] and found["chosen"] == {}
    assert found["accepted"] == {"fast": ["xla_cpu_enable_fast_min_max"]}
    assert "xla_no_such_option" in found["refused"]["fast"]["xla_no_such_option"]
    monkeypatch.setattr(jax_side.compiler_options, "SETS", {"gpu": {}})
    assert jax_side.options() == {"not_run": "no option sets for cpu"}


@pytest.mark.parametrize("option", ["xla_cpu_enable_fast_min_max", "xla_no_such_option"])
def test_compiler_options_reach_the_compiler(option, tmp_path):
    kept = prepared.Prepared()
    given = {"network": dataclasses.asdict(stages._TINY), "mode": "forward", "batch_size": 2}

    def prepare():
        return jax_side.prepare(kept, tmp_path, "jax", **given, compiler_options={option: True})

    if option == "xla_no_such_option":
        with pytest.raises(Exception, match=option):
            prepare()
        return
    found = prepare()
    assert len(found["outputs"]) == 2 * 10 and np.isfinite(found["outputs"]).all()
    assert kept.turn("jax", 1)["seconds"] > 0
    kept.drop("jax")
    with pytest.raises(KeyError):
        kept.turn("jax", 1)


def test_synthetic_images_are_the_same_every_time():
    one, two = (synthetic.open_synthetic("40,8").split("train") for _ in range(2))
    assert one.images.shape == (40, 8, 8, 3) and one.images.dtype == np.uint8
    np.testing.assert_array_equal(one.images, two.images)
    assert np.bincount(one.labels).tolist() == [4] * 10
    assert len(synthetic.open_synthetic("40,8").split("test")) == 10
