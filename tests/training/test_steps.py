"""One update, by hand: gradients, freezing, accumulation, smoothing and where randomness comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_network import (
    IMAGES,
    backbone_frozen,
    batch_of,
    linear,
    make,
    zero_head,
)

from tl_jax import freezing, models, optim
from tl_jax.augment import augmentation, preprocessing
from tl_jax.errors import InputError
from tl_jax.objectives import CrossEntropy
from tl_jax.training import steps
from tl_jax.training.state import TrainState
from tl_jax.training.steps import GradientOptions


def test_one_update_by_hand():
    """At zero logits p = 1/2, so dL/dlogits = (p - y) / B and dL/dW = x^T (p - y) / B = ±1/2."""
    step, state = make(zero_head())
    after, metrics = step(state, batch_of())
    np.testing.assert_allclose(
        after.params["head"]["kernel"], [[-0.05, 0.05], [-0.05, 0.05]], rtol=1e-6
    )
    np.testing.assert_array_equal(after.params["head"]["bias"], [0, 0])
    np.testing.assert_array_equal(after.params["backbone"]["kernel"], np.eye(2))
    assert float(metrics["loss"]) == pytest.approx(np.log(2), rel=1e-6)
    assert float(metrics["top1_accuracy"]) == 0.5  # equal logits: the lower class wins
    assert float(metrics["grad_norm"]) == pytest.approx(1.0, rel=1e-6)
    assert (int(after.step), int(after.seed), int(after.batch_stats["calls"])) == (1, 0, 1)


def test_label_smoothing_by_hand():
    """Targets 0.9 and 0.1 instead of 1 and 0: p - y shrinks from 0.5 to 0.4."""
    step, state = make(zero_head(), objective=CrossEntropy(0.2))
    after, metrics = step(state, batch_of())
    np.testing.assert_allclose(
        after.params["head"]["kernel"], [[-0.04, 0.04], [-0.04, 0.04]], rtol=1e-6
    )
    assert float(metrics["loss"]) == pytest.approx(np.log(2), rel=1e-6)
    assert float(metrics["grad_norm"]) == pytest.approx(0.8, rel=1e-6)


def test_momentum_and_decay_act_on_trainable_leaves_only():
    params = {
        "backbone": {"kernel": jnp.array([[-0.0, 1.0], [np.float32(1e-45), -0.0]])},
        "head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    }
    before = jax.device_get(params)
    step, state = make(params, frozen=backbone_frozen(params), momentum=0.9, weight_decay=0.1)
    step = jax.jit(step)
    for _ in range(3):
        state, _ = step(state, batch_of())
    after = jax.device_get(state.params)
    assert after["backbone"]["kernel"].tobytes() == before["backbone"]["kernel"].tobytes()
    assert np.signbit(after["backbone"]["kernel"][0, 0])
    for name in ("kernel", "bias"):
        assert (after["head"][name] != before["head"][name]).any(), name
    state_shapes = [leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sorted(state_shapes) == [(2,), (2, 2)]  # momentum of the head, nothing of the backbone


def test_every_trainable_leaf_of_a_network_moves():
    """Freezing up to stage 1: below bitwise the same, statistics too; above every leaf moved."""
    model = models.resnet.ResNet((1, 1), "basic", 3, stem_kind="cifar", width=2, shortcut="pad")
    variables = models.init_variables(model, jax.random.key(0), (1, 8, 8, 3))
    params, batch_stats = variables["params"], variables["batch_stats"]
    mask = freezing.frozen_mask(params, "up_to:stage1", boundaries=model.boundaries)
    norms = freezing.frozen_norms(params, mask)
    forward = models.make_forward(model, frozen_norms=norms)
    spec = preprocessing.Preprocessing(8)
    augmented = augmentation.Augmentation(crop_padding=1, flip=True)
    tx = optim.make_optimizer(
        params, lambda step: 0.1, optim.Rule(weight_decay=1e-3), frozen_mask=mask
    )
    step = jax.jit(
        steps.make_train_step(
            forward, augmentation.make_train_transform(spec, augmented), tx, frozen_mask=mask
        )
    )
    state = TrainState(jnp.int32(0), jnp.int32(0), params, batch_stats, tx.init(params))
    random = np.random.RandomState(0)
    for _ in range(3):
        images = random.randint(0, 256, (6, 8, 8, 3)).astype(np.uint8)
        state, _ = step(state, batch_of(images, np.arange(6, dtype=np.int32) % 3))
    after = {"params": state.params, "batch_stats": state.batch_stats}
    report = freezing.verify_unchanged(variables, after, mask, norms, "frozen")
    assert report["changed"] == []
    assert report["frozen_leaves"] == 9 and report["frozen_statistics"] == 6
    same = jax.tree.map(lambda a, b: bool((a == b).all()), params, state.params)
    assert same == mask
    same = jax.tree.map(lambda a, b: bool((a == b).all()), batch_stats, state.batch_stats)
    assert {name: all(jax.tree.leaves(group)) for name, group in same.items()} == {
        "stem": True,
        "stage1": True,
        "stage2": False,
    }


@pytest.mark.parametrize("class_weights", [(), (3.0, 0.25)], ids=["plain", "weighted"])
@pytest.mark.parametrize("accumulation", [2, 4, 8])
def test_accumulation_is_the_update_of_the_whole_batch(accumulation, class_weights):
    """With class weights, too: each of eight microbatches has images of one class alone."""
    random = np.random.RandomState(1)
    images = random.randint(0, 5, (8, 1, 1, 2)).astype(np.uint8)
    batch = batch_of(images, random.randint(0, 2, 8).astype(np.int32))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * random.randn(*leaf.shape), zero_head())
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    objective = CrossEntropy(class_weights=class_weights)
    whole, state = make(params, objective=objective)
    parts, _ = make(params, objective=objective, gradient=GradientOptions(accumulation))
    expected, expected_metrics = whole(state, batch)
    given, given_metrics = parts(state, batch)
    for (name, a), b in zip(
        jax.tree.leaves_with_path(given.params), jax.tree.leaves(expected.params), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0, err_msg=str(name))
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(given_metrics[name], value, rtol=1e-6, err_msg=name)
    assert int(given.step) == 1
    assert int(given.batch_stats["calls"]) == accumulation  # statistics pass through all of them


def test_microbatches_take_every_kth_row():
    """So that each stays spread over all devices, which hold consecutive rows."""
    seen = []

    def forward(params, batch_stats, images, *, train, key):
        jax.debug.callback(lambda x: seen.append(x.tolist()), images[:, 0, 0, 0], ordered=True)
        return linear(params, batch_stats, images, train=train)

    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1).repeat(2, axis=-1)
    step, state = make(zero_head(), forward=forward, gradient=GradientOptions(2))
    step(state, batch_of(images, np.zeros(6, np.int32)))
    jax.effects_barrier()
    assert sorted({tuple(rows) for rows in seen}) == [(0, 2, 4), (1, 3, 5)]


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "devices", "near"),
    [(8, 3, 1, "2, 4, 1"), (8, 0, 1, "1, 2, 4"), (8, -1, 1, "1, 2, 4"), (8, 4, 4, "2, 1")],
)
def test_check_accumulation_names_the_nearest(batch_size, accumulation, devices, near):
    with pytest.raises(InputError) as raised:
        steps.check_accumulation(batch_size, accumulation, devices)
    message = str(raised.value)
    assert f"accumulation={accumulation}" in message and f"batch of {batch_size}" in message
    assert message.endswith(f"nearest: {near}")


@pytest.mark.parametrize(("accumulation", "devices"), [(1, 1), (1, 8), (4, 2), (8, 1)])
def test_check_accumulation_accepts(accumulation, devices):
    steps.check_accumulation(8, accumulation, devices)


class TestRandomness:
    """A transform that returns its noise, and a forward pass that keeps what it sees."""

    @staticmethod
    def seen(seed, step_number, positions, fill=0):
        def transform(key, positions, images):
            del images
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, positions)
            return jax.vmap(lambda key: jax.random.normal(key, (1, 1, 2)))(keys)

        def forward(params, batch_stats, images, *, train, key):
            logits, _ = linear(params, batch_stats, images, train=train)
            return logits, {"calls": images[:, 0, 0]}

        params = jax.tree.map(lambda leaf: leaf + fill, zero_head())
        step, state = make(params, seed=seed, forward=forward, transform=transform)
        batch = {
            "image": np.full((len(positions), 1, 1, 2), fill, np.uint8),
            "label": np.full(len(positions), fill % 2, np.int32),
            "position": np.array(positions, np.int32),
        }
        after, _ = step(state.replace(step=jnp.int32(step_number)), batch)
        return np.asarray(after.batch_stats["calls"])

    def test_it_is_a_function_of_seed_step_and_position(self):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 5), 2)
        expected = np.asarray(jax.random.normal(key, (2,)))
        np.testing.assert_array_equal(self.seen(3, 5, [0, 1, 2])[2], expected)

    @pytest.mark.parametrize("positions", [[2], [2, 0, 1], [9, 8, 2]])
    def test_nothing_else_matters(self, positions):
        given = self.seen(3, 5, positions, fill=7)[positions.index(2)]
        np.testing.assert_array_equal(given, self.seen(3, 5, [0, 1, 2])[2])

    @pytest.mark.parametrize(("seed", "step", "position"), [(4, 5, 2), (3, 6, 2), (3, 5, 1)])
    def test_each_of_them_matters(self, seed, step, position):
        assert (self.seen(seed, step, [position]) != self.seen(3, 5, [2])).all()


def swap(key, images, labels):
    """Each row gets a quarter of the other one, of two classes."""
    del key
    targets = jax.nn.one_hot(labels, 2)
    return 0.75 * images + 0.25 * images[::-1], 0.75 * targets + 0.25 * targets[::-1]


def test_an_update_on_mixed_images_by_hand():
    """At zero logits dL/dW = x^T (p - y) / B with the mixed x = (1.5, 2.5), (2.5, 3.5) and y = 3/4, 1/4."""
    step, state = make(zero_head(), mixing=swap)
    after, metrics = step(state, batch_of())
    np.testing.assert_allclose(
        after.params["head"]["kernel"], [[-0.0125, 0.0125], [-0.0125, 0.0125]], rtol=1e-5
    )
    assert float(metrics["loss"]) == pytest.approx(np.log(2), rel=1e-6)
    # Equal logits are class 0, the more probable one of the first row.
    assert float(metrics["top1_accuracy"]) == 0.5


def test_label_smoothing_of_mixed_targets():
    """Targets 3/4 and 1/4 become 0.7 and 0.3 with a smoothing of 0.2: p - y shrinks by 0.8."""
    steps_of = [
        make(zero_head(), mixing=swap, objective=CrossEntropy(value)) for value in (0.0, 0.2)
    ]
    plain, smoothed = (step(state, batch_of())[0].params["head"] for step, state in steps_of)
    np.testing.assert_allclose(smoothed["kernel"], 0.8 * plain["kernel"], rtol=1e-5)


def test_a_mixing_sees_the_whole_batch_once_whatever_the_accumulation():
    seen = []

    def mix(key, images, labels):
        seen.append(images.shape)
        return swap(key, images, labels)

    random = np.random.RandomState(1)
    images = random.randint(0, 5, (8, 1, 1, 2)).astype(np.uint8)
    batch = batch_of(images, random.randint(0, 2, 8).astype(np.int32))
    params = jax.tree.map(
        lambda leaf: (leaf + 0.1 * random.randn(*leaf.shape)).astype(jnp.float32), zero_head()
    )
    (whole, state), (parts, _) = (
        make(params, mixing=mix, gradient=GradientOptions(count)) for count in (1, 4)
    )
    expected, expected_metrics = whole(state, batch)
    given, given_metrics = parts(state, batch)
    for a, b in zip(*map(jax.tree.leaves, (given.params, expected.params)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(given_metrics[name], value, rtol=1e-6, err_msg=name)
    assert seen == [(8, 1, 1, 2)] * 2


def test_the_key_of_a_mixing_is_of_seed_and_update_and_no_other():
    keys = []

    def mix(key, images, labels):
        keys.append(jax.random.key_data(key).tolist())
        return images, jax.nn.one_hot(labels, 2)

    def forward(params, batch_stats, images, *, train, key):
        keys.append(jax.random.key_data(key).tolist())
        return linear(params, batch_stats, images, train=train)

    def transform(key, positions, images):
        keys.extend(jax.random.key_data(jax.random.fold_in(key, p)).tolist() for p in positions)
        return images.astype(jnp.float32)

    with jax.disable_jit():
        for seed in (0, 1):
            step, state = make(
                zero_head(), mixing=mix, forward=forward, transform=transform, seed=seed
            )
            for _ in range(2):
                state, _ = step(state, batch_of())
    assert len(keys) == 16 and len({tuple(key) for key in keys}) == 16
    update = jax.random.fold_in(jax.random.key(0), 0)
    assert keys[2] == jax.random.key_data(jax.random.fold_in(update, 2**31 - 2)).tolist()


def test_eval_step_counts_unmasked_rows_only():
    params = {
        "backbone": {"kernel": jnp.eye(2)},
        "head": {"kernel": jnp.array([[1.0, 0.0], [0.0, 1.0]]), "bias": jnp.zeros(2)},
    }
    eval_step = steps.make_eval_step(linear, lambda images: images.astype(jnp.float32))
    images = np.array([[3, 0], [0, 3], [3, 0], [3, 0]], np.uint8).reshape(4, 1, 1, 2)
    batch = {
        "image": images,
        "label": np.array([0, 0, 1, 0], np.int32),
        "mask": np.array([True, True, False, False]),
    }
    sums, logits = eval_step(params, {"calls": jnp.int32(0)}, batch)
    assert (int(sums["correct"]), int(sums["correct5"]), int(sums["examples"])) == (1, 2, 2)
    # log(1 + e^-3) for the right one, 3 more for the wrong one.
    assert float(sums["loss_sum"]) == pytest.approx(2 * np.log1p(np.exp(-3)) + 3, rel=1e-6)
    np.testing.assert_array_equal(logits, images.reshape(4, 2))


def test_head_only_training_costs_the_forward_pass(record_property):
    """Frozen leaves' gradients are never used, not even for the norm: the backward pass is gone."""
    model = models.create_model("resnet20_cifar", 10)
    variables = jax.eval_shape(
        lambda key: models.init_variables(model, key, (1, 32, 32, 3)), jax.random.key(0)
    )
    params, batch_stats = variables["params"], variables["batch_stats"]
    spec = preprocessing.Preprocessing(32)
    augmented = augmentation.Augmentation(crop_padding=4, flip=True)
    mask = freezing.frozen_mask(params, "backbone")
    forward = models.make_forward(model, frozen_norms=freezing.frozen_norms(params, mask))
    tx = optim.make_optimizer(
        params, lambda step: 0.1, optim.Rule(weight_decay=1e-4, clip_norm=1.0), frozen_mask=mask
    )
    step = steps.make_train_step(
        forward, augmentation.make_train_transform(spec, augmented), tx, frozen_mask=mask
    )
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    state = TrainState(scalar, scalar, params, batch_stats, jax.eval_shape(tx.init, params))
    rows = jax.ShapeDtypeStruct((32,), jnp.int32)
    batch = {
        "image": jax.ShapeDtypeStruct((32, 32, 32, 3), jnp.uint8),
        "label": rows,
        "position": rows,
    }
    eval_step = steps.make_eval_step(forward, preprocessing.make_eval_transform(spec))
    masked = {**batch, "mask": jax.ShapeDtypeStruct((32,), jnp.bool_)}

    trained = jax.jit(step).lower(state, batch).compile().cost_analysis()["flops"]
    evaluated = jax.jit(eval_step).lower(params, batch_stats, masked).compile().cost_analysis()
    ratio = trained / evaluated["flops"]
    record_property("head_only_flops_over_forward", ratio)
    print(f"head-only step: {trained / 1e6:.1f} MFLOP, {ratio:.4f} of the forward pass")
    assert 0.95 < ratio < 1.05, ratio


def test_every_microbatch_drops_by_its_own_key():
    def noisy(params, batch_stats, images, *, train, key):
        logits, batch_stats = linear(params, batch_stats, images, train=train)
        return logits + jax.random.uniform(key), batch_stats

    def noise(outputs):
        return CrossEntropy()(outputs)[0], {"noise": outputs.logits.mean()}

    step, state = make(zero_head(), forward=noisy, objective=noise, gradient=GradientOptions(2))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 2**31 - 1)
    expected = np.mean([jax.random.uniform(each) for each in jax.random.split(key, 2)])
    _, metrics = jax.jit(step)(state, batch_of())
    np.testing.assert_allclose(metrics["noise"], expected, rtol=1e-6)


def test_what_is_drawn_once_depends_on_the_seed_and_the_place_in_the_split():
    """Not on the update, nor on the place in the batch."""

    def noise(key, places, images):
        drawn = jax.vmap(lambda place: jax.random.uniform(jax.random.fold_in(key, place)))(places)
        return images.astype(jnp.float32) + drawn[:, None, None, None]

    seen = []

    def recording(params, batch_stats, images, *, train, key=None):
        seen.append(images)
        return linear(params, batch_stats, images, train=train, key=key)

    def pixels(seed, step, index, once=True):
        train_step, state = make(
            zero_head(),
            seed=seed,
            transform=steps.Once(noise) if once else noise,
            forward=recording,
        )
        batch = batch_of() | {"index": np.array(index, np.int32)}
        with jax.disable_jit():
            train_step(state.replace(step=jnp.int32(step)), batch)
        return np.asarray(seen[-1]) - IMAGES

    first = pixels(0, 0, [5, 9])
    np.testing.assert_array_equal(pixels(0, 3, [5, 9]), first)
    np.testing.assert_array_equal(pixels(0, 3, [9, 5])[::-1], first)
    assert not np.allclose(pixels(1, 0, [5, 9]), first)
    assert not np.allclose(pixels(0, 0, [5, 9], once=False), pixels(0, 3, [5, 9], once=False))
