"""Options are known to the compiler that is installed, or reported as refused."""

import jax
import pytest

from tl_jax import compiler_options

UNKNOWN = "xla_no_such_option"


@pytest.mark.parametrize(
    ("platform", "deterministic", "options"),
    [
        ("cpu", False, {}),
        ("cpu", True, {}),
        ("tpu", False, {}),
        ("tpu", True, {}),
        ("gpu", False, {}),
        (
            "gpu",
            True,
            {"xla_gpu_deterministic_ops": True, "xla_gpu_exclude_nondeterministic_ops": True},
        ),
        ("unheard of", True, {}),
    ],
)
def test_chosen(platform, deterministic, options):
    assert compiler_options.chosen(platform, deterministic) == options


def test_sets_in_use_come_before_determinism(monkeypatch):
    sets = {"fast": {"a": 1, "b": 1}, "other": {"c": 1}, "deterministic": {"b": 2}}
    monkeypatch.setitem(compiler_options.SETS, "gpu", sets)
    monkeypatch.setitem(compiler_options._IN_USE, "gpu", ("fast",))
    assert compiler_options.chosen("gpu") == {"a": 1, "b": 1}
    assert compiler_options.chosen("gpu", True) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("platform", "name"),
    [(platform, name) for platform, sets in compiler_options.SETS.items() for name in sets],
)
def test_the_installed_compiler_knows_every_option_and_its_values(platform, name):
    """That of CPUs reads the options of all platforms; whether one has an effect shows on a card alone."""
    assert compiler_options.refused(compiler_options.SETS[platform][name]) == {}


def test_what_is_refused_is_told():
    options = {UNKNOWN: True, "xla_gpu_deterministic_ops": "perhaps", "xla_gpu_autotune_level": 4}
    found = compiler_options.refused(options)
    assert list(found) == [UNKNOWN, "xla_gpu_deterministic_ops"]
    assert UNKNOWN in found[UNKNOWN]
    assert all(message and "\n" not in message for message in found.values())


def test_each_option_is_tried_once(monkeypatch):
    compiler_options.refused({UNKNOWN: 1})
    monkeypatch.setattr(jax.stages.Lowered, "compile", None)
    assert list(compiler_options.refused({UNKNOWN: 1})) == [UNKNOWN]


def test_autotuning_is_kept_in_a_folder(tmp_path):
    folder = tmp_path / "new" / "autotuning"
    options = compiler_options.persisted_autotuning(folder)
    assert folder.is_dir() and str(folder) in options.values()
    assert compiler_options.refused(options) == {}
