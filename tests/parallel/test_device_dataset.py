"""Data on the devices: gathered by index, several updates at once, bit for bit as one by one."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import freezing, models, optim
from tl_jax.augment import augmentation, preprocessing
from tl_jax.data.order import Order
from tl_jax.parallel import device_dataset, placement, sharding
from tl_jax.training import steps
from tl_jax.training.state import TrainState

EXAMPLES, BATCH_SIZE, CLASSES, SIZE, UPDATES = 44, 16, 4, 16, 4
SMALL = models.resnet.ResNet(
    (1, 1, 1), "basic", CLASSES, stem_kind="cifar", width=4, shortcut="pad"
)


def data():
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (EXAMPLES, SIZE, SIZE, 3)).astype(np.uint8)
    return images, random.randint(0, CLASSES, EXAMPLES).astype(np.int32)


def make(strategy, num_devices):
    """Returns the mesh, the pure step, a function that makes the first state, and the mask."""
    mesh = sharding.make_mesh(num_devices)
    variables = models.init_variables(SMALL, jax.random.key(0), (1, SIZE, SIZE, 3))
    mask = freezing.frozen_mask(variables["params"], strategy, boundaries=SMALL.boundaries)
    schedule = optim.make_schedule("cosine", 0.05, 10)
    tx = optim.make_optimizer(
        variables["params"], schedule, optim.Rule(weight_decay=5e-4), frozen_mask=mask
    )
    forward = models.make_forward(
        SMALL, frozen_norms=freezing.frozen_norms(variables["params"], mask)
    )
    transform = augmentation.make_train_transform(
        preprocessing.Preprocessing(SIZE), augmentation.Augmentation(crop_padding=2, flip=True)
    )
    step = steps.make_train_step(forward, transform, tx, frozen_mask=mask)

    def initial():
        params = variables["params"]
        state = (jnp.int32(0), jnp.int32(1), params, variables["batch_stats"], tx.init(params))
        return sharding.replicate(mesh, TrainState(*state))

    return mesh, step, initial


def rows(order=None):
    order = order or Order(3, BATCH_SIZE, EXAMPLES)
    return np.stack([order.rows(step) for step in range(UPDATES)])


@functools.cache
def streamed(strategy, num_devices):
    """Returns state and losses after batches that come from the host one by one."""
    mesh, step, initial = make(strategy, num_devices)
    images, labels = data()
    train_step = sharding.StreamedStep(lambda axis_name: step, mesh)
    state, losses = initial(), []
    for chosen in rows():
        batch = {
            "image": images[chosen],
            "label": labels[chosen],
            "position": np.arange(BATCH_SIZE, dtype=np.int32),
        }
        state, measured = train_step(state, train_step.place(batch))
        losses.append(float(measured["loss"]))
    return jax.device_get(state), losses


def dispatched(strategy, num_devices, parts, layout="replicated", one_by_one=False):
    """Returns state and losses after dispatches of `parts` updates on data that lie there."""
    mesh, step, initial = make(strategy, num_devices)
    resident_step = device_dataset.ResidentStep(
        step, mesh, layout, shape=(SIZE, SIZE, 3), one_by_one=one_by_one
    )
    resident_step.put(*data())
    state, losses, start = initial(), [], 0
    for part in parts:
        state, measured = resident_step(state, rows()[start : start + part])
        assert measured["loss"].shape == (part,)
        losses += np.asarray(measured["loss"]).tolist()
        start += part
    return jax.device_get(state), losses


def assert_same_bits(given, expected):
    leaves, wanted = jax.tree.leaves(given[0]), jax.tree.leaves(expected[0])
    assert len(leaves) == len(wanted)
    for leaf, other in zip(leaves, wanted, strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()
    assert given[1] == expected[1]


@pytest.mark.parametrize(
    ("strategy", "one_by_one", "parts"),
    [
        ("none", False, [1, 1, 1, 1]),
        ("none", False, [4]),
        ("none", False, [3, 1]),
        ("none", False, [2, 1, 1]),
        ("none", True, [4]),
        ("none", True, [3, 1]),
        ("backbone", False, [4]),
        ("backbone", False, [3, 1]),
    ],
    ids=str,
)
def test_dispatched_together_is_bitwise_one_by_one(strategy, one_by_one, parts):
    expected = streamed(strategy, 1)
    assert_same_bits(dispatched(strategy, 1, parts, one_by_one=one_by_one), expected)


@pytest.mark.parametrize("layout", placement.LAYOUTS)
def test_replicated_or_sharded_the_same_bits_on_four_devices(layout):
    expected = streamed("backbone", 4)
    assert_same_bits(dispatched("backbone", 4, [4], layout), expected)


def test_padding_of_a_sharded_split_is_never_seen():
    mesh = sharding.make_mesh(8)
    values = np.arange(1, 12, dtype=np.uint8)[:, None]
    placed = device_dataset.place(mesh, values, "sharded")
    assert placed.shape == (16, 1)
    chosen = jnp.array([10, 0, 3, 3, 9, 1, 7, 5], jnp.int32)
    found = jax.jit(lambda data, rows: device_dataset.gather(mesh, "sharded", data, rows))(
        placed, chosen
    )
    assert np.asarray(found)[:, 0].tolist() == [11, 1, 4, 4, 10, 2, 8, 6]


@pytest.mark.parametrize(("devices", "examples"), [(4, 10), (4, 3), (2, 8)])
@pytest.mark.parametrize("layout", ["sharded", "replicated"])
def test_rows_that_are_read_by_part_are_placed_as_all_at_once(devices, examples, layout):
    images = np.arange(examples * 12, dtype=np.uint8).reshape(examples, 2, 2, 3)
    read = []

    def gather(places):
        read.append(len(places))
        return images[places]

    mesh = sharding.make_mesh(devices)
    own = device_dataset.OwnRows(gather, (examples, 12))
    found = device_dataset.place(mesh, own, layout)
    whole = device_dataset.place(mesh, device_dataset.flat(images), layout)
    assert found.sharding == whole.sharding
    np.testing.assert_array_equal(found, whole)
    assert sum(read) == examples and max(read) <= -(-examples // devices)


@pytest.mark.parametrize(("devices", "processes"), [(4, 2), (4, 4), (6, 3)])
@pytest.mark.parametrize("rows", [1, 3, 12, 41])
def test_processes_read_what_their_devices_store(devices, processes, rows, monkeypatch):
    """Together all rows, each once: as many as the parts of their devices have."""
    each = devices // processes
    of_process = [types.SimpleNamespace(process_index=place // each) for place in range(devices)]
    mesh = types.SimpleNamespace(size=devices, devices=np.array(of_process))
    found = []
    for process in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        found.append(device_dataset.own_rows(mesh, rows))
        assert len(found[-1]) <= each * -(-rows // devices)
    np.testing.assert_array_equal(np.concatenate(found), np.arange(rows))


def test_views_share_the_label_of_their_example():
    mesh = sharding.make_mesh(1)
    seen = device_dataset.ResidentStep(
        lambda state, batch: (state, {"image": batch["image"], "label": batch["label"]}),
        mesh,
        "replicated",
        shape=(),
        views=3,
    )
    seen.put(np.arange(12, dtype=np.float32), np.array([5, 6, 7, 8], np.int32))
    _, batch = seen(jnp.zeros(()), np.array([[0, 2, 3, 11]]))
    assert np.asarray(batch["image"]).tolist() == [[0, 2, 3, 11]]
    assert np.asarray(batch["label"]).tolist() == [[5, 5, 6, 8]]


@pytest.mark.parametrize(("fewer", "programs"), [(True, [5, 6]), (False, [5, 2, 1, 6])])
def test_programs_of_fewer_updates(fewer, programs):
    compiled = []

    class Counted(device_dataset.ResidentStep):
        def use(self, count, program):
            compiled.append(count)
            super().use(count, program)

    def train_step(state, batch):
        return state + 1, {"loss": state}

    step = Counted(train_step, sharding.make_mesh(1), "replicated", shape=(1,), fewer=fewer)
    step.put(np.zeros((4, 1), np.uint8), np.zeros(4, np.int32))
    state = jnp.zeros(())
    for count, expected in [(5, 5), (2, 7), (1, 8), (6, 14), (5, 19)]:
        state, measured = step(state, np.zeros((count, 2), np.int32))
        assert float(state) == expected
        found = np.asarray(measured["loss"]).tolist()
        assert found[:count] == [*range(expected - count, expected)]
        assert set(found[count:]) <= {found[count - 1]}  # as the bar shows it
    assert compiled == programs
    # A branch would make the host of a GPU wait for its condition.
    shapes = jax.ShapeDtypeStruct((4, 1), jnp.uint8), jax.ShapeDtypeStruct((4,), jnp.int32)
    assert "stablehlo.case" not in step.trace(state, 5, 2, *shapes).lower().as_text()


@pytest.mark.parametrize("parts", [[4], [1, 1, 1, 1]], ids=str)
def test_a_dispatch_moves_rows_alone(parts, monkeypatch):
    """Which rows and how many updates; any other transfer is refused."""
    mesh, step, initial = make("backbone", 1)
    resident_step = device_dataset.ResidentStep(step, mesh, "replicated", shape=(SIZE, SIZE, 3))
    resident_step.put(*data())
    state = initial()
    for part in set(parts):
        resident_step.use(
            part,
            resident_step.trace(state, part, BATCH_SIZE, *data()).lower().compile(),
        )
    moved, place = [], device_dataset.place

    def allowed(mesh, array, layout):
        moved.append(array.shape)
        with jax.transfer_guard("allow"):
            return place(mesh, array, layout)

    monkeypatch.setattr(device_dataset, "place", allowed)
    start = 0
    with jax.transfer_guard("disallow"):
        for part in parts:
            state, measured = resident_step(state, rows()[start : start + part])
            start += part
    assert int(jax.block_until_ready(state).step) == 4 and len(measured["loss"]) == parts[-1]
    assert moved == [shape for part in parts for shape in ((part, BATCH_SIZE), ())]
