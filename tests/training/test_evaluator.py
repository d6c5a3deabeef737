"""Batches of an evaluation: as large as is asked for, as the split has, and as memory allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax.data import InMemorySplit
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.training import evaluator, metrics
from tl_jax.training.busy_time import BusyTime
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


STORED = [
    pytest.param(1, "replicated", True, id="one device, at once"),
    pytest.param(1, "replicated", False, id="one device, batch by batch"),
    pytest.param(4, "replicated", True, id="four devices"),
    pytest.param(4, "sharded", True, id="four devices, split over them"),
]


@pytest.mark.parametrize(("devices", "layout", "at_once"), STORED)
def test_splits_that_are_stored_are_measured_as_those_of_the_host(devices, layout, at_once):
    """Three splits of other lengths: in batches of 8 they are 3, 1 and 5, each with padding at its end."""
    splits = [split(21).subset(np.arange(start, end)) for start, end in ((0, 20), (3, 9), (0, 21))]
    splits[2] = split(37)
    made, host = make(8, devices), make(8, devices)
    stored_bytes = made.store(splits, layout, at_once=at_once)
    rows = sum(map(len, splits))
    padded = -(-rows // devices) if layout == "sharded" else rows
    assert stored_bytes == padded * SIDE * SIDE * 3 + 4 * rows
    for one in splits:
        expected, logits = host(PARAMS, {}, one)
        measured, found = made(PARAMS, {}, one)
        assert (
            measured == expected == made.measure(PARAMS, {}, one) == host.measure(PARAMS, {}, one)
        )
        np.testing.assert_array_equal(found, logits)


def test_splits_whose_batches_are_alike_share_a_program(monkeypatch):
    compiled = []
    lower = jax.stages.Lowered.compile
    monkeypatch.setattr(
        jax.stages.Lowered,
        "compile",
        lambda self, **options: compiled.append(self) or lower(self, **options),
    )
    made, splits = make(8), [split(20), split(37), split(5)]
    made.store(splits, "replicated", at_once=True)
    for one in (*splits, *splits):
        made.measure(PARAMS, {}, one)
    assert len(compiled) == 2
    # What is evaluated often makes no batch in vain: rows, and batches at once.
    assert made._programs.keys() == {(8, 3), (5, 1)}
    made.store(splits, "replicated", at_once=True)
    made.measure(PARAMS, {}, splits[0])
    assert len(compiled) == 2
    made.store([splits[0]], "replicated", at_once=True)
    assert made.measure(PARAMS, {}, splits[0]) == make(8).measure(PARAMS, {}, splits[0])
    assert len(compiled) == 4  # another array: another program, and one of the host's


@pytest.mark.parametrize("at_once", [True, False])
def test_a_later_pass_over_a_stored_split_moves_sums_alone(at_once):
    """Any other transfer is refused."""
    made, given = make(8), split(20)
    made.store([given], "replicated", at_once=at_once)
    params = sharding.put_whole(sharding.make_mesh(1), PARAMS)
    expected = made.measure(params, {}, given)
    fetched, device_get = [], jax.device_get

    def seen(tree):
        fetched.append(tree)
        with jax.transfer_guard("allow"):
            return device_get(tree)

    with pytest.MonkeyPatch.context() as patch, jax.transfer_guard("disallow"):
        patch.setattr(jax, "device_get", seen)
        assert made.measure(params, {}, given) == expected
    (sums,) = fetched
    batches = 3 if at_once else 1
    sizes = {leaf.shape for leaf in jax.tree.leaves(sums)}
    assert sizes == {(batches,), (batches, CLASSES)}


def test_the_plan_of_a_stored_split_has_its_logits(monkeypatch):
    made, given = make(8), split(20)
    num_bytes = made.store([given], "replicated", at_once=True)
    items = {item.what: item for item in made.memory_items(PARAMS, {}, given, 10**9)}
    # Sums of three batches besides: four numbers and two counts for each class.
    assert items["evaluation: logits"].bytes == 4 * (24 * CLASSES + 3 * (4 + 2 * CLASSES))
    assert items["evaluation: images, copied"].bytes == num_bytes - 4 * 20  # without labels
    monkeypatch.setattr(jax.stages.Lowered, "compile", None)
    assert made.measure(PARAMS, {}, given)["examples"] == 20


@pytest.mark.parametrize("layout", ["replicated", "sharded"])
def test_the_plan_of_stored_splits_that_share_a_program(layout):
    """Of 3 and 5 batches: the second is two passes of three."""
    made, splits = make(8, 4), [split(20), split(37)]
    made.store(splits, layout, at_once=True)
    items = {item.what: item for item in made.memory_items(PARAMS, {}, splits[1], 10**9)}
    sums = 4 * 3 * (4 + 2 * CLASSES)
    assert items["evaluation: logits"].bytes == 2 * (4 * 24 * CLASSES + sums)
    # The host has all of it, whatever the devices have of it.
    assert items["evaluation: images, copied"].bytes == 57 * SIDE * SIDE * 3


def test_a_fit_of_what_is_stored_is_none_of_what_is_not():
    made, given = make(8), split(20)
    made.measure(PARAMS, {}, given)
    made.store([given], "replicated", at_once=True)
    made.measure(PARAMS, {}, given)
    assert len(made._passes) == 1 and next(iter(made._passes))[-1] is True
    made.store((), "replicated", at_once=False)
    assert made.measure(PARAMS, {}, given) == make(8).measure(PARAMS, {}, given)
    assert next(iter(made._passes))[-1] is False


def test_passes_count_as_busy_time_of_the_evaluator_that_is_watched():
    with BusyTime() as busy:
        unwatched = make(8)
        unwatched.watched(busy)
        unwatched(PARAMS, {}, split(20))
    assert busy.seconds == 0
    with BusyTime() as busy:
        made = make(8).watched(busy)
        made(PARAMS, {}, split(20))
        of_host = busy.seconds
        made.store([split(20)], "replicated", at_once=True)
        made.measure(PARAMS, {}, made._stored.splits[0])
    assert busy.seconds > of_host
