"""Waste that must not come back, read off a run's step as it is lowered for GPUs and TPUs; none is needed."""

import math
import re

import jax
import jax.numpy as jnp
import pytest
from parts import nothing_compiled
from small import CACHED, config_with

from tl_jax import compilation, models
from tl_jax.compilation import Compilation
from tl_jax.models import cpu
from tl_jax.parallel import sharding
from tl_jax.runs import activation_banks, activation_cache
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.setup import Setup, prepare_phases

pytestmark = pytest.mark.usefixtures("small_networks")

FIELDS = {
    "model.name": "resnet50",
    "model.stem": "imagenet",
    "model.dtype": "bfloat16",
    "data.image_size": 32,
    "preprocess.resize": 32,
}
# [B, H, W, C]
ACTIVATIONS = r"tensor<\d+x\d+x\d+x\d+x{}>"
CONVERSION = rf"stablehlo\.convert .*\({ACTIVATIONS}\) -> .*xf32>"


@pytest.fixture(autouse=True)
def written_for_accelerators(monkeypatch):
    monkeypatch.setattr(cpu, "in_use", lambda: False)


def lowered(platform: str, **fields) -> tuple[str, Setup]:
    """Returns the text of the training step of a run with these fields, its state donated."""
    with nothing_compiled():
        (setup,) = prepare_phases(config_with(FIELDS | fields))
        size, split = setup.order.batch_size, setup.inputs["train"]
        batch = {
            "image": jax.ShapeDtypeStruct((size, *split.image_shape), split.dtype),
            **{
                name: jax.ShapeDtypeStruct((size,), jnp.int32)
                for name in ("label", "position", "index")
            },
        }
        step = jax.jit(make_pure_step(setup)(axis_name=None), donate_argnums=0)
        traced = step.trace(setup.state_shapes, batch)
        return traced.lower(lowering_platforms=(platform,)).as_text(), setup


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("strategy", ["none", "up_to:stage1", "backbone"])
def test_training_step(platform, strategy):
    text, setup = lowered(platform, **{"freeze.strategy": strategy})
    trained = len(set(models.norm_names(setup.model)) - set(setup.optimisation.frozen_norms))
    assert trained == {"none": 9, "up_to:stage1": 4, "backbone": 0}[strategy]

    # Not deterministic on every GPU.
    assert "stablehlo.scatter" not in text and "select_and_scatter" not in text
    # Forward the two moments, backward the gradients of scale and bias.
    sums = re.findall(
        rf"stablehlo\.reduce.*dimensions = \[0, 1, 2\] : \({ACTIVATIONS.format('f32')}", text
    )
    assert len(sums) == 4 * trained
    # Nothing frozen is computed in float32: of activations there, only what is averaged at the end.
    if strategy == "backbone":
        assert len(re.findall(CONVERSION.format("bf16"), text)) == 1
    assert len(re.findall(CONVERSION.format("ui8"), text)) == 1
    # Crop and flip together.
    assert text.count('"stablehlo.gather"') == 1
    assert not re.search(rf"stablehlo\.convolution.*{ACTIVATIONS.format('f32')}", text)
    # Every leaf of the state is replaced where it lies.
    assert text.count("tf.aliasing_output") == len(jax.tree.leaves(setup.state_shapes))


COLLECTIVE = re.compile(r" (all-\w+|reduce-scatter|collective-\w+?)(?:-start)?\(")


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("strategy", ["none", "up_to:stage1", "backbone"])
def test_collectives_of_a_training_step(strategy, rows):
    """Over four devices: the sums of each BatchNorm forward and backward, and all gradients and metrics at once.

    Those of BatchNorm are gone where each device's three rows are a group. Compiled for CPUs, with the convolutions
    of accelerators.
    """
    with nothing_compiled():
        fields = {"freeze.strategy": strategy, "parallel.devices": 4, "model.batch_norm_rows": rows}
        (setup,) = prepare_phases(config_with(fields))
    size, split = setup.order.batch_size, setup.inputs["train"]
    batch = {
        "image": jax.ShapeDtypeStruct((size, *split.image_shape), split.dtype),
        **{
            name: jax.ShapeDtypeStruct((size,), jnp.int32)
            for name in ("label", "position", "index")
        },
    }
    step = sharding.StreamedStep(make_pure_step(setup), setup.mesh)
    compiled = step.lower(setup.state_shapes, batch).compile().as_text()
    trained = len(set(models.norm_names(setup.model)) - set(setup.optimisation.frozen_norms))
    assert COLLECTIVE.findall(compiled) == ["all-reduce"] * (1 if rows else 2 * trained + 1)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_training_step_with_groups(platform):
    """As many passes over the activations, of which each leaves a sum for every row."""
    text, setup = lowered(platform, **{"model.batch_norm_rows": 4})
    norms = len(models.norm_names(setup.model))
    reduced = r"stablehlo\.reduce.*dimensions = {} : \({}"
    of_rows = re.findall(reduced.format(r"\[1, 2\]", ACTIVATIONS.format("f32")), text)
    assert len(of_rows) == 4 * norms + 1  # and the mean of each map at the end
    assert not re.findall(reduced.format(r"\[0, 1, 2\]", ACTIVATIONS.format("f32")), text)
    # The small sums after them, of the rows of a group.
    of_groups = re.findall(reduced.format(r"\[1\]", r"tensor<3x4x\d+xf32>"), text)
    assert len(of_groups) == 4 * norms


PRECISIONS = re.compile(r"precision\w* = \[(?:#stablehlo<precision )?(\w+)>?, .*?(\w+)>?\]")
PRODUCTS = re.compile(r"stablehlo\.(?:convolution|dot_general)")


def programs(monkeypatch, platform, **fields) -> dict[str, str]:
    """Returns the texts of a run's programs: of training, of evaluation on images, of stored activations."""
    jit, made = Compilation.jit, {}

    def recorded(self, function, **arguments):
        program = jit(self, function, **arguments)
        # The first evaluation is that on images.
        return made.setdefault(function.__name__, program) and program

    monkeypatch.setattr(Compilation, "jit", recorded)
    with nothing_compiled() as seen:
        (setup,) = prepare_phases(config_with(FIELDS | fields))
        setup = activation_cache.use(setup)
        seen.dispatched(setup)
    shape, rows = jax.ShapeDtypeStruct, 20
    state, split = setup.state_shapes, setup.inputs["train"]
    images = shape((rows, *setup.splits["train"].image_shape), jnp.uint8)
    inputs = shape((rows, math.prod(split.image_shape)), split.dtype)  # flat, as they are stored
    numbers, mask = shape((rows,), jnp.int32), shape((rows,), bool)
    updates = shape((1, rows), jnp.int32), shape((), jnp.int32)
    variables = setup.initial.variables["params"], setup.initial.variables["batch_stats"]
    arguments = {
        "updates": (state, *updates, inputs, numbers),
        "eval_step": (*variables, {"image": images, "label": numbers, "mask": mask}),
    }
    if setup.cache is not None:
        batch = {"image": images, "row": numbers}
        arguments["prefix"] = (*activation_banks.prefix_variables(setup), batch)
    return {
        name: made[name].trace(*given).lower(lowering_platforms=(platform,)).as_text()
        for name, given in arguments.items()
    }


@pytest.mark.parametrize("platform", ["cuda", "tpu", "cpu"])
@pytest.mark.parametrize("precision", compilation.PRECISIONS)
@pytest.mark.parametrize("context", [{}, CACHED], ids=["images", "activations"])
def test_every_product_has_the_precision_of_the_run(monkeypatch, platform, precision, context):
    """Forward and backward; on a CPU, where gradients are written by hand, too."""
    monkeypatch.setattr(cpu, "in_use", lambda: platform == "cpu")
    fields = {"model.dtype": "float32", "model.precision": precision, **context}
    texts = programs(monkeypatch, platform, **fields)
    assert texts.keys() == {"updates", "eval_step"} | ({"prefix"} if context else set())
    for name, text in texts.items():
        found = PRECISIONS.findall(text)
        assert len(found) == len(PRODUCTS.findall(text)) > 0, name
        assert set(found) == {(precision.upper(),) * 2}, name
