"""Batches of an evaluation: as large as is asked for, as the split has, and as memory allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax.data import InMemorySplit
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.training import evaluator, metrics
from tl_jax.training.evaluator import Evaluator

SIDE, CLASSES = 4, 3
PARAMS = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, CLASSES)))}


def split(num_examples: int) -> InMemorySplit:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (num_examples, SIDE, SIDE, 3), np.uint8)
    return InMemorySplit(images, random.integers(0, CLASSES, num_examples), "abc")


def forward(params, batch_stats, inputs, *, train):
    return inputs.reshape(len(inputs), -1) @ params["kernel"], batch_stats


def make(batch_size: int, devices: int = 1, enlarge: int = 1) -> Evaluator:
    def transform(images):
        return jnp.repeat(jnp.repeat(images, enlarge, 1), enlarge, 2)[:, :SIDE, :SIDE] / 255.0

    return Evaluator(forward, transform, sharding.make_mesh(devices), batch_size)


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "devices", "expected"),
    [
        pytest.param(6, 500, 1, 6, id="no more than the split has"),
        pytest.param(6, 500, 4, 8, id="a multiple of the devices"),
        pytest.param(600, 500, 1, 500, id="as asked for"),
        pytest.param(600, 501, 4, 504, id="as asked for, on every device"),
    ],
)
def test_rows_of_a_batch(num_examples, batch_size, devices, expected):
    assert make(batch_size, devices).rows(split(num_examples)) == expected


@pytest.mark.parametrize(("devices", "expected"), [(1, 10), (4, 40)])
def test_rows_are_limited_by_their_bytes(monkeypatch, devices, expected):
    monkeypatch.setattr(evaluator, "BATCH_BYTES", 10 * SIDE * SIDE * 3 + 5)
    assert make(500, devices).rows(split(200)) == expected


def test_averages_over_classes_are_of_all_examples_once():
    """Batches of four, the last one padded with copies of the first example."""
    given = split(11)
    measured, logits = make(4)(PARAMS, {}, given)
    wanted = metrics.class_averages(given.labels, logits.argmax(-1), CLASSES)
    assert {name: measured[name] for name in metrics.CLASS_AVERAGES} == wanted
    assert measured["weighted_recall"] == pytest.approx(measured["top1_accuracy"])
    assert measured["macro_recall"] != measured["weighted_recall"]


def test_bytes_are_those_of_what_the_network_sees_where_it_is_larger(monkeypatch):
    monkeypatch.setattr(evaluator, "BATCH_BYTES", 8 * SIDE * SIDE * 3)
    small = split(50).images[:, :2, :2]
    stored = InMemorySplit(small, split(50).labels, "abc")
    assert make(500, enlarge=2).rows(stored) == 8


def test_one_row_is_read_however_large(monkeypatch):
    monkeypatch.setattr(evaluator, "BATCH_BYTES", 1)
    assert make(500, 4).rows(split(50)) == 4


@pytest.mark.parametrize(("batch_size", "devices"), [(1, 1), (7, 1), (64, 1), (8, 8), (100, 4)])
def test_batches_change_no_result(batch_size, devices):
    expected, logits = make(13)(PARAMS, {}, split(13))
    measured, found = make(batch_size, devices)(PARAMS, {}, split(13))
    assert measured["examples"] == 13
    assert measured == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-6)


class Heavy:
    """A compiled step that takes 1,000 bytes for each row."""

    def __init__(self, rows: int):
        self.temp_size_in_bytes = 1000 * rows

    def memory_analysis(self):
        return self


@pytest.fixture
def heavy(monkeypatch):
    """Makes evaluation steps heavy; gives the rows that were compiled for."""
    compiled = []

    def compile_heavy(self, params, batch_stats, batch):
        compiled.append(len(batch["image"]))
        return Heavy(compiled[-1])

    monkeypatch.setattr(sharding.EvalStep, "compiled", compile_heavy)
    return compiled


@pytest.mark.parametrize(
    ("room", "rows"),
    [
        pytest.param(1_000_000, [100], id="enough"),
        pytest.param(100_000, [100, 50], id="half of what is left"),
        pytest.param(3_000, [100, 1], id="one row"),
        pytest.param(1_500, [100, 1], id="one row, of more than half of it"),
        pytest.param(0, [100], id="a device that does not say"),
    ],
)
def test_batches_are_made_smaller_where_the_step_is_too_large(heavy, room, rows):
    items = make(500).memory_items(PARAMS, {}, split(100), room)
    assert heavy == rows
    assert items[0].bytes == 1000 * rows[-1]
    assert {item.phase for item in items} == {"evaluation"}


def test_one_row_that_does_not_fit_is_refused(heavy):
    with pytest.raises(InputError, match=r"evaluation of one image needs .* data\.image_size"):
        make(500).memory_items(PARAMS, {}, split(100), 900)


def test_what_is_planned_is_compiled_once_and_used(monkeypatch):
    made = make(10)
    items = made.memory_items(PARAMS, {}, split(25), 10**9)
    # Three batches on the device, and as many read ahead: there are no more.
    assert [item.bytes for item in items[1:3]] == [3 * 10 * SIDE * SIDE * 3] * 2
    monkeypatch.setattr(jax.stages.Lowered, "compile", None)
    assert made(PARAMS, {}, split(25))[0]["examples"] == 25


def test_what_a_compiler_lacks_is_the_user_s_to_know():
    def full():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    with pytest.raises(InputError, match=r"the step does not fit .* smaller data\.batch_size"):
        evaluator.compile_or_refuse(full, "the step", "data.batch_size")

    def undetermined():
        raise jax.errors.JaxRuntimeError(
            "UNIMPLEMENTED: HLO instruction select-and-scatter.401.0 does not have a deterministic implementation, "
            "but run-to-run determinism is required by --xla_gpu_deterministic_ops."
        )

    with pytest.raises(
        InputError, match=r"train\.deterministic=True: the step .*select-and-scatter"
    ):
        evaluator.compile_or_refuse(undetermined, "the step", "data.batch_size")

    def broken():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        evaluator.compile_or_refuse(broken, "the step", "data.batch_size")
