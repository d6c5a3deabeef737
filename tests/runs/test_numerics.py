"""Every program of a run has its precision and its options; what is not deterministic is refused."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.experimental.compilation_cache import compilation_cache
from running import REPOSITORY, assert_same_bits, tiny_config, tree_of

import tl_jax
from tl_jax import compiler_options
from tl_jax.errors import InputError
from tl_jax.models.pooling import max_pool
from tl_jax.runs import (
    dispatch,
    evaluate,
    image_features,
    numerics,
    probe,
    profile,
    sweep,
    training,
)
from tl_jax.runs.setup import prepare

pytestmark = pytest.mark.usefixtures("small_networks")

HELD_OUT = {"data__validation_fraction": 0.2}
STORED = {
    "freeze__strategy": "backbone",
    "augment__flip": False,
    "augment__crop_padding": 0,
    "cache__boundary": "auto",
}
AVERAGED = {"freeze__strategy": "none", "cache__boundary": "", "average__name": "swa"}
SHORT = {**HELD_OUT, **AVERAGED, "train__steps": 2}
SPLIT = {"parallel__devices": 2}
PRODUCT = re.compile(r"= \w+\[.* (?:convolution|dot)\(")


def config_with(**fields):
    """Returns a small config of precision "high", images as they are: resizing has a precision of its own."""
    size = {"data__image_size": 32, "preprocess__resize": 32}
    return tiny_config(**{"train__steps": 2, "model__precision": "high", **size, **fields})


@pytest.fixture
def dumped(monkeypatch, tmp_path):
    """Has XLA write down every program that is given our options; returns what reads and forgets them.

    That is {name of a program: the precisions of its products}, of those that have any.
    """
    kept, folder = jax.config.jax_compilation_cache_dir, tmp_path / "dumped"
    monkeypatch.setitem(compiler_options.SETS["cpu"], "dumped", {"xla_dump_to": str(folder)})
    monkeypatch.setitem(compiler_options._IN_USE, "cpu", ("dumped",))
    # A program that was compiled before would not be compiled.
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()

    def programs():
        found = {}
        for path in folder.glob("*.before_optimizations.txt"):
            lines = [line for line in path.read_text().splitlines() if PRODUCT.search(line)]
            precisions = {
                match[1] if (match := re.search(r"operand_precision={(.*?)}", line)) else ""
                for line in lines
            }
            name = re.fullmatch(r"module_\d+\.\w+?_(.*)\.before_optimizations\.txt", path.name)[1]
            if precisions:
                found[name] = found.get(name, set()) | precisions
        for path in folder.glob("*"):
            path.unlink()
        return found

    yield programs
    jax.config.update("jax_compilation_cache_dir", kept)
    compilation_cache.reset_cache()


HIGH = {"high,high"}


@pytest.fixture(scope="module")
def plain(small_networks, tmp_path_factory):
    """Returns the folder of a run with the defaults."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    result = training.run(tiny_config(**SHORT), folder)
    assert result["numerics"]["precision"] == "default"
    return folder


def test_training_evaluation_and_predictions(dumped, tmp_path):
    config = config_with(**HELD_OUT, **AVERAGED)
    result = training.run(config, tmp_path / "run")
    programs = dumped()
    assert set(programs) == {"updates", "eval_step", "step"}  # the last one: statistics
    assert set(map(frozenset, programs.values())) == {frozenset(HIGH)}
    assert result["numerics"]["precision"] == "high"
    assert result["numerics"]["compiler_options"].keys() == {"xla_dump_to"}

    again = evaluate.evaluate_run(tmp_path / "run", None, tmp_path / "again")
    assert dumped() == {"eval_step": HIGH}
    assert again["numerics"] == result["numerics"]

    tl_jax.load_run(tmp_path / "run").predict(np.zeros((3, 32, 32, 3), np.uint8))
    assert dumped() == {"eval_step": HIGH}


def test_stored_activations(dumped, tmp_path):
    training.run(config_with(**STORED, cache__verify=1), tmp_path / "run")
    # Trained twice for the comparison, and then in earnest.
    assert dumped() == dict.fromkeys(("prefix", "eval_pass", "train_step", "updates"), HIGH)


def test_batches_from_the_host_and_features_for_plots(dumped):
    setup = prepare(config_with(data__placement="host", cache__boundary=""))
    dispatch.make(setup)
    variables = setup.initial.variables
    image_features.of_split(
        setup, variables["params"], variables["batch_stats"], setup.splits["test"]
    )
    # Features end before the head, and all of them are made of convolutions.
    assert dumped() == dict.fromkeys(("train_step", "eval_step", "prefix"), HIGH)


def test_pmap(dumped):
    config = config_with(parallel__mode="pmap", cache__boundary="", **SPLIT)
    dispatch.make(prepare(config))
    programs = dumped()
    # JAX gives what `pmap` makes a name of its own.
    assert len(programs) == 2 and set(map(frozenset, programs.values())) == {frozenset(HIGH)}


def test_sweep(dumped, tmp_path):
    config = config_with(**HELD_OUT, **STORED)
    config.sweep.learning_rate = (0.1, 0.2)
    result = sweep.run(config, tmp_path / "run")
    programs = dumped()
    assert {"prefix", "update_often", "evaluate", "eval_step"} <= set(programs)
    assert set(map(frozenset, programs.values())) == {frozenset(HIGH)}
    assert result["numerics"]["precision"] == "high"


def test_probe(dumped, tmp_path):
    config = config_with(**HELD_OUT, **STORED)
    config.probe.update({"least": 0.1, "most": 1.0, "count": 2, "max_evaluations": 5})
    probe.run(config, tmp_path / "run")
    programs = dumped()
    assert programs["prefix"] == programs["eval_step"] == HIGH
    # A line search needs float32.
    assert programs["_minimise"] == {"highest,highest"}


def test_profile(monkeypatch, tmp_path):
    class Enough(Exception):
        pass

    def matrix_rate(dtype, seconds):
        raise Enough

    given = []
    monkeypatch.setattr(profile.profiling, "measure", lambda *_, **named: given.append(named))
    monkeypatch.setattr(profile.profiling, "matrix_rate", matrix_rate)
    with pytest.raises(Enough):
        profile.profile(config_with(cache__boundary=""), tmp_path / "profile")
    assert [named["compilation"].precision for named in given] == ["high"] * 4


def test_a_probe_is_deterministic_where_it_is_asked_to_be():
    config = tiny_config(**HELD_OUT, **STORED, train__deterministic=True)
    assert prepare(probe._run_config(config)).compilation.deterministic


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model__precision": "high"},
        {"model__precision": "highest", "train__deterministic": True},
    ],
    ids=["again", "high", "highest"],
)
def test_again_and_at_every_precision_the_same_bits(plain, tmp_path, fields):
    """A CPU knows float32 alone, and is deterministic."""
    training.run(tiny_config(**SHORT, **fields), tmp_path / "run")
    assert_same_bits(tmp_path / "run", plain)


def test_an_option_that_is_refused_ends_no_run(monkeypatch, tmp_path):
    options = {"xla_no_such_option": True, "xla_gpu_autotune_level": 4}
    monkeypatch.setitem(compiler_options.SETS["cpu"], "tried", options)
    monkeypatch.setitem(compiler_options._IN_USE, "cpu", ("tried",))
    training.run(config_with(train__deterministic=True), tmp_path / "run")
    written = json.loads((tmp_path / "run" / "result.json").read_text())["numerics"]
    assert written.pop("refused_options").keys() == {"xla_no_such_option"}
    assert written == {
        "precision": "high",
        "jax_default_matmul_precision": None,
        "deterministic": True,
        "compiler_options": {"xla_gpu_autotune_level": 4},
    }


@pytest.mark.parametrize(
    "field", [{"model__precision": "highest"}, {"train__deterministic": True}], ids=str
)
def test_another_setting_is_another_run(plain, field):
    (name,) = field
    pattern = rf"{name.replace('__', '.')}: .* in the folder, .* given"
    with pytest.raises(InputError, match=pattern):
        training.run(tiny_config(**SHORT, **field), plain)


def test_a_folder_without_the_settings_was_made_with_the_defaults(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    del config["model"]["precision"], config["train"]["deterministic"]
    (folder / "config.json").write_text(json.dumps(config))
    before = tree_of(folder)
    training.run(tiny_config(**SHORT), folder)
    assert tree_of(folder) == before


def test_the_tests_that_the_promises_name_are_there():
    text = (REPOSITORY / "docs" / "performance.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 10
    for file, name in named:
        assert f"def {name}(" in (REPOSITORY / file).read_text(), name


class Pooled(nn.Module):
    """A convolution, and a max-pool of Flax's or of ours."""

    num_classes: int
    ours: bool = False

    boundaries = ("low", "pool", "head")

    @nn.compact
    def __call__(self, x, train=False, start=None, stop=None):
        first, last = tl_jax.models.segment(self, start, stop)
        for part in self.boundaries[first:last]:
            if part == "low":
                x = nn.Conv(4, (3, 3), name="low")(x)
            elif part == "pool":
                x = max_pool(x) if self.ours else nn.max_pool(x, (2, 2), (2, 2))
                x = x.mean((1, 2))
            else:
                x = nn.Dense(self.num_classes, name="head")(x)
        return x


@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize(
    ("platform", "deterministic", "ours", "refused"),
    [
        ("gpu", True, False, True),
        ("gpu", True, True, False),
        ("gpu", False, False, False),
        ("cpu", True, False, False),
    ],
)
def test_the_gradient_of_a_max_pool(monkeypatch, placement, platform, deterministic, ours, refused):
    monkeypatch.setattr(numerics, "platform_of", lambda mesh: platform)
    monkeypatch.setattr(dispatch, "platform_of", lambda mesh: platform)
    config = config_with(
        model__name="own:Pooled",
        cache__boundary="",
        freeze__strategy="none",
        data__placement=placement,
        train__deterministic=deterministic,
    )
    parts = tl_jax.runs.parts.Parts(model=lambda classes: Pooled(classes, ours))
    setup = prepare(config, parts)
    assert setup.compilation.options == compiler_options.chosen(platform, deterministic)
    if not refused:
        dispatch.make(setup)
        return
    with pytest.raises(InputError, match=r"train\.deterministic=True: .* select_and_scatter"):
        dispatch.make(setup)


def test_determinism_that_is_not_to_be_had(monkeypatch):
    monkeypatch.setattr(numerics, "platform_of", lambda mesh: "gpu")
    options = {"deterministic": {"xla_no_such_option": True}}
    monkeypatch.setitem(compiler_options.SETS, "gpu", options)
    with pytest.raises(InputError, match=r"train\.deterministic is True: the compiler for gpu"):
        prepare(config_with(train__deterministic=True))
