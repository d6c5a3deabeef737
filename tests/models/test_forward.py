"""The model as a function of plain trees, and what freezing does to its BatchNorms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import errors, models, trees
from tl_jax.models.resnet import ResNet

MODEL = ResNet((1, 1), "basic", 3, "cifar", width=4, shortcut="projection")
IMAGES = 1.0 + 2.0 * jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
FROZEN = frozenset({"stem/bn", "stage2/block0/bn1", "stage2/block0/downsample/bn"})


@pytest.fixture(scope="module")
def variables():
    """Returns params, and random running statistics so that inference differs from training."""
    fresh = models.init_variables(MODEL, jax.random.key(0))
    rng = np.random.default_rng(0)
    stats = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype),
        fresh["batch_stats"],
    )
    return fresh["params"], stats


def changed_norms(before, after):
    before, after = trees.flatten(before), trees.flatten(after)
    assert before.keys() == after.keys()
    return {
        name.rsplit("/", 1)[0]
        for name, leaf in before.items()
        if not np.array_equal(leaf, after[name])
    }


def test_norm_names():
    assert models.norm_names(MODEL) == (
        "stage1/block0/bn1",
        "stage1/block0/bn2",
        "stage2/block0/bn1",
        "stage2/block0/bn2",
        "stage2/block0/downsample/bn",
        "stem/bn",
    )


def test_inference_returns_the_statistics_as_they_came(variables):
    params, stats = variables
    outputs, after = models.make_forward(MODEL, frozen_norms=FROZEN)(
        params, stats, IMAGES, train=False
    )
    assert outputs.shape == (4, 3)
    assert after is stats


@pytest.mark.parametrize(
    ("policy", "touches_frozen"),
    [("frozen", False), ("batch_stats_no_update", False), ("update", True)],
)
def test_frozen_statistics_are_untouched(variables, policy, touches_frozen):
    params, stats = variables
    forward = models.make_forward(MODEL, frozen_norms=FROZEN, norm_policy=policy)
    _, after = forward(params, stats, IMAGES, train=True)
    norms = set(models.norm_names(MODEL))
    assert changed_norms(stats, after) == (norms if touches_frozen else norms - FROZEN)
    assert type(after) is dict


def test_policies_choose_the_statistics(variables):
    params, stats = variables
    everything = frozenset(models.norm_names(MODEL))

    def outputs(policy, train):
        forward = models.make_forward(MODEL, frozen_norms=everything, norm_policy=policy)
        return forward(params, stats, IMAGES, train=train)[0]

    np.testing.assert_array_equal(outputs("frozen", True), outputs("frozen", False))
    np.testing.assert_array_equal(outputs("batch_stats_no_update", True), outputs("update", True))
    assert not np.allclose(outputs("frozen", True), outputs("update", True), atol=1e-2)


def test_a_single_image_trains_when_every_norm_is_frozen(variables):
    params, stats = variables
    forward = models.make_forward(MODEL, frozen_norms=frozenset(models.norm_names(MODEL)))
    outputs, _ = forward(params, stats, IMAGES[:1, :1, :1], train=True)
    assert outputs.shape == (1, 3)


def test_a_segment_leaves_the_other_statistics_alone(variables):
    params, stats = variables
    prefix, after_prefix = models.make_forward(MODEL, stop="stage1")(
        params, stats, IMAGES, train=True
    )
    assert changed_norms(stats, after_prefix) == {
        "stem/bn",
        "stage1/block0/bn1",
        "stage1/block0/bn2",
    }
    suffix, after = models.make_forward(MODEL, start="stage1")(
        params, after_prefix, prefix, train=True
    )
    whole, expected = models.make_forward(MODEL)(params, stats, IMAGES, train=True)
    np.testing.assert_array_equal(suffix, whole)
    jax.tree.map(np.testing.assert_array_equal, after, expected)


def test_a_head_alone_needs_no_statistics(variables):
    params, _ = variables
    forward = models.make_forward(MODEL, start="pool")
    outputs, after = forward({"head": params["head"]}, {}, jnp.ones((2, 8)), train=True)
    expected = params["head"]["kernel"].sum(0) + params["head"]["bias"]
    np.testing.assert_allclose(outputs, [expected, expected], rtol=1e-5, atol=1e-6)
    assert after == {}


def test_replicas_see_the_whole_batch(variables):
    params, stats = variables
    whole, expected = models.make_forward(MODEL)(params, stats, IMAGES, train=True)
    forward = models.make_forward(MODEL, axis_name="data")
    outputs, after = jax.vmap(
        lambda images: forward(params, stats, images, train=True), axis_name="data"
    )(IMAGES.reshape(2, 2, 8, 8, 3))
    np.testing.assert_allclose(outputs.reshape(4, 3), whole, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda leaf, value: np.testing.assert_allclose(leaf[0], value, rtol=1e-5, atol=1e-6),
        after,
        expected,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm_policy": "freeze"}, "unknown norm_policy 'freeze'; nearest: frozen"),
        ({"stop": "stage5"}, "unknown boundary 'stage5'"),
        ({"start": "pool", "stop": "stage1"}, "'pool' comes after stop 'stage1'"),
        (
            {"frozen_norms": {"stage1/block0/bn3", "stem/norm"}},
            "'stage1/block0/bn3' is no BatchNorm.*nearest: stage1/block0/bn(.|\n)*'stem/norm'",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(errors.InputError, match=message):
        models.make_forward(MODEL, **arguments)


def test_groups_concern_training_alone(variables):
    params, stats = variables
    grouped = MODEL.clone(batch_norm_rows=2)
    whole = models.make_forward(MODEL)(params, stats, IMAGES, train=False)[0]
    found = models.make_forward(grouped)(params, stats, IMAGES[:3], train=False)[0]
    np.testing.assert_allclose(found, whole[:3], rtol=1e-5, atol=1e-6)
    everything = {"frozen_norms": frozenset(models.norm_names(MODEL))}
    forward = models.make_forward(grouped, **everything)
    np.testing.assert_allclose(
        forward(params, stats, IMAGES[:3], train=True)[0], whole[:3], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(errors.InputError, match="batch_norm_rows=2: 3 examples in a batch"):
        models.make_forward(grouped)(params, stats, IMAGES[:3], train=True)


def test_groups_of_a_frozen_module_that_uses_the_statistics_of_the_batch(variables):
    params, stats = variables
    everything = frozenset(models.norm_names(MODEL))

    def outputs(model, images):
        forward = models.make_forward(
            model, frozen_norms=everything, norm_policy="batch_stats_no_update"
        )
        logits, after = forward(params, stats, images, train=True)
        jax.tree.map(np.testing.assert_array_equal, after, stats)
        return logits

    found = outputs(MODEL.clone(batch_norm_rows=2), IMAGES)
    alone = [outputs(MODEL, IMAGES[i : i + 2]) for i in (0, 2)]
    np.testing.assert_allclose(found, np.concatenate(alone), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, outputs(MODEL, IMAGES), atol=1e-2)


@pytest.mark.parametrize("rows", [0, 8])
def test_one_by_one_each_image_has_its_own_statistics(rows):
    model = models.create_model("resnet20_cifar", 3, batch_norm_rows=rows)
    variables = models.init_variables(model, jax.random.key(0))
    variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + 0.3, variables["batch_stats"])
    images = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))
    collections = variables["params"], variables["batch_stats"]
    found, batch_stats = models.one_by_one(model)(*collections, images, train=False)
    forward = models.make_forward(model.clone(batch_norm_rows=0))
    alone = [forward(*collections, images[i : i + 1], train=True)[0][0] for i in range(3)]
    np.testing.assert_allclose(found, np.stack(alone), rtol=2e-5, atol=2e-6)
    assert batch_stats is collections[1]
    assert not np.allclose(found, forward(*collections, images, train=True)[0], atol=1e-3)
