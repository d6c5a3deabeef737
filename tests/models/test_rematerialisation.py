"""Keeping less for the backward pass changes its memory, and neither names nor numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import freezing, models, trees
from tl_jax.errors import InputError
from tl_jax.models import cpu
from tl_jax.models.resnet import ResNet
from tl_jax.parallel import memory

MODEL = ResNet((2, 2), "basic", 3, "cifar", width=8)
IMAGES = jax.random.normal(jax.random.key(1), (16, 16, 16, 3))


@functools.cache
def variables():
    return models.init_variables(MODEL, jax.random.key(0))


def gradient_of(remat, model=MODEL, **options):
    forward = models.make_forward(model.clone(remat=remat), **options)

    def gradient(params, batch_stats, images):
        def loss(params):
            logits, updated = forward(params, batch_stats, images, train=True)
            return jnp.square(logits).mean(), updated

        return jax.value_and_grad(loss, has_aux=True)(params)

    return gradient


@pytest.mark.parametrize("remat", ["dots", "blocks"])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_loss_statistics_and_gradients_stay(remat, block):
    model = MODEL.clone(block=block)
    start = models.init_variables(model, jax.random.key(0))
    arguments = (start["params"], start["batch_stats"], IMAGES)
    plain = jax.jit(gradient_of("", model))(*arguments)
    leaner = jax.jit(gradient_of(remat, model))(*arguments)
    for name, leaf in trees.flatten({"stats": plain[0][1], "grads": plain[1]}).items():
        other = trees.flatten({"stats": leaner[0][1], "grads": leaner[1]})[name]
        np.testing.assert_allclose(other, leaf, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(leaner[0][0], plain[0][0], rtol=1e-5)


@pytest.mark.parametrize("remat", ["dots", "blocks"])
def test_groups_of_batch_norm_stay(remat):
    model = MODEL.clone(batch_norm_rows=4)
    start = variables()
    arguments = (start["params"], start["batch_stats"], IMAGES)
    plain = jax.jit(gradient_of("", model))(*arguments)
    leaner = jax.jit(gradient_of(remat, model))(*arguments)
    for expected, found in zip(jax.tree.leaves(plain), jax.tree.leaves(leaner), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remat", ["dots", "blocks"])
def test_names_and_initial_values_stay(remat):
    fresh = models.init_variables(MODEL.clone(remat=remat), jax.random.key(0))
    expected = trees.flatten(variables())
    assert list(trees.flatten(fresh)) == list(expected)
    for name, leaf in trees.flatten(fresh).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)


def test_frozen_norms_are_still_found_by_name():
    params, stats = variables()["params"], variables()["batch_stats"]
    frozen = frozenset(models.norm_names(MODEL))
    (_, updated), _ = gradient_of("blocks", frozen_norms=frozen)(params, stats, IMAGES)
    assert freezing.frozen_norms(params, jax.tree.map(lambda _: True, params)) == frozen
    jax.tree.map(np.testing.assert_array_equal, updated, stats)


def test_unknown_policy_is_named():
    with pytest.raises(InputError, match="unknown remat of resnet18 'block'; nearest: blocks"):
        models.create_model("resnet18", 10, remat="block")


def test_statistics_of_a_batch_are_kept(monkeypatch):
    """Each sum over the activations is taken once, where blocks keep their convolutions."""
    monkeypatch.setattr(
        cpu, "in_use", lambda: False
    )  # equal blocks would be one call, counted once
    params, stats = variables()["params"], variables()["batch_stats"]

    def sums(remat):
        text = jax.jit(gradient_of(remat)).lower(params, stats, IMAGES).as_text()
        return text.count("across dimensions = [0, 1, 2]")

    assert sums("blocks") > sums("dots") == sums("") == 4 * len(models.norm_names(MODEL))


def temporary(remat):
    model = ResNet((3, 3), "basic", 3, "cifar", width=16)
    images = jax.ShapeDtypeStruct((128, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0)))
    lowered = jax.jit(gradient_of(remat, model)).lower(
        shapes["params"], shapes["batch_stats"], images
    )
    return memory.temporary_bytes(lowered.compile())


def test_frozen_blocks_have_no_backward_pass():
    """Nothing is computed anew for a gradient that is never used."""
    params, stats = variables()["params"], variables()["batch_stats"]

    def flops(remat):
        def head_gradient(params, stats, images):
            return gradient_of(remat)(params, stats, images)[1]["head"]

        return (
            jax.jit(head_gradient).lower(params, stats, IMAGES).compile().cost_analysis()["flops"]
        )

    assert flops("blocks") < 1.05 * flops("")


def test_memory_falls_from_policy_to_policy():
    everything, dots, blocks = (temporary(remat) for remat in ("", "dots", "blocks"))
    assert blocks < dots < everything
