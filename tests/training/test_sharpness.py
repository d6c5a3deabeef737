"""Sharpness-aware minimisation against NumPy, written from the formula, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_network import IMAGES, LABELS, backbone_frozen, batch_of, linear, make

from tl_jax.training.steps import GradientOptions

RHO = 0.3
RNG = np.random.default_rng(0)
BACKBONE, HEAD = RNG.normal(size=(2, 2)), RNG.normal(size=(2, 2))


def params():
    return {
        "backbone": {"kernel": jnp.array(BACKBONE, jnp.float32)},
        "head": {"kernel": jnp.array(HEAD, jnp.float32), "bias": jnp.zeros(2)},
    }


def gradients(backbone, head, bias, images, labels):
    """Returns the loss and its gradient of softmax(x U V + b), by hand in float64."""
    x = images.reshape(len(images), -1).astype(np.float64)
    hidden = x @ backbone
    logits = hidden @ head + bias
    exps = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = exps / exps.sum(1, keepdims=True)
    loss = -np.log(probabilities[np.arange(len(x)), labels]).mean()
    error = (probabilities - np.eye(2)[labels]) / len(x)
    return loss, (x.T @ (error @ head.T), hidden.T @ error, error.sum(0))


def expected(rho, images=IMAGES, labels=LABELS, trained=(1, 1, 1)):
    """Returns the gradient at w + rho g / |g| over what is trained, and the loss at w."""
    point = [BACKBONE, HEAD, np.zeros(2)]
    loss, first = gradients(*point, images, labels)
    norm = np.sqrt(sum((g**2).sum() for g, counts in zip(first, trained, strict=True) if counts))
    moved = [
        w + (rho * g / norm if counts else 0)
        for w, g, counts in zip(point, first, trained, strict=True)
    ]
    return loss, gradients(*moved, images, labels)[1]


def leaves(tree):
    return tree["backbone"]["kernel"], tree["head"]["kernel"], tree["head"]["bias"]


@pytest.mark.parametrize("rho", [0.05, RHO])
def test_an_update_against_numpy(rho):
    step, state = make(params(), rate=1.0, gradient=GradientOptions(sam_rho=rho))
    after, metrics = step(state, batch_of())
    loss, grads = expected(rho)
    for before, new, grad in zip(leaves(state.params), leaves(after.params), grads, strict=True):
        np.testing.assert_allclose(before - new, grad, rtol=2e-6, atol=1e-7)
    assert float(metrics["loss"]) == pytest.approx(
        loss, rel=1e-6
    )  # of w, not of where it is higher
    norm = np.sqrt(sum((grad**2).sum() for grad in grads))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-6)
    assert int(after.batch_stats["calls"]) == 1  # statistics of the first pass alone


def test_what_is_frozen_stays_and_does_not_count_in_the_norm():
    step, state = make(
        params(),
        rate=1.0,
        frozen=backbone_frozen(params()),
        gradient=GradientOptions(sam_rho=RHO),
    )
    after, _ = step(state, batch_of())
    _, grads = expected(RHO, trained=(0, 1, 1))
    np.testing.assert_array_equal(
        after.params["backbone"]["kernel"], state.params["backbone"]["kernel"]
    )
    np.testing.assert_allclose(
        leaves(state.params)[1] - leaves(after.params)[1], grads[1], rtol=2e-6
    )


def test_each_microbatch_has_its_own_neighbourhood():
    images = RNG.integers(0, 5, (4, 1, 1, 2)).astype(np.uint8)
    labels = np.array([0, 1, 1, 0], np.int32)
    step, state = make(params(), rate=1.0, gradient=GradientOptions(2, RHO))
    after, _ = step(state, batch_of(images, labels))
    halves = [expected(RHO, images[start::2], labels[start::2])[1] for start in (0, 1)]
    for number, (before, new) in enumerate(
        zip(leaves(state.params), leaves(after.params), strict=True)
    ):
        mean = (halves[0][number] + halves[1][number]) / 2
        np.testing.assert_allclose(before - new, mean, rtol=5e-6, atol=1e-7)


def test_both_passes_drop_the_same_units():
    def noisy(params, batch_stats, images, *, train, key=None):
        kept = jax.random.bernoulli(key, 0.5, (2,)) if train else 1.0
        scaled = {**params, "backbone": {"kernel": params["backbone"]["kernel"] * kept}}
        return linear(scaled, batch_stats, images, train=train)

    seen = []

    def spying(params, batch_stats, images, *, train, key=None):
        seen.append(key)
        return noisy(params, batch_stats, images, train=train, key=key)

    step, state = make(params(), forward=spying, gradient=GradientOptions(sam_rho=RHO))
    step(state, batch_of())
    first, second = (jax.random.key_data(key) for key in seen)
    np.testing.assert_array_equal(first, second)


def test_a_gradient_of_zero_moves_nothing():
    flat = jax.tree.map(jnp.zeros_like, params())
    step, state = make(flat, gradient=GradientOptions(sam_rho=RHO))
    batch = batch_of(np.zeros_like(IMAGES), np.array([0, 1], np.int32))
    after, _ = step(state, batch)
    for leaf in jax.tree.leaves(after.params):
        np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))


def test_under_pmap_the_neighbourhood_is_that_of_the_global_batch():
    images = RNG.integers(0, 5, (4, 1, 1, 2)).astype(np.uint8)
    labels = np.array([0, 1, 1, 0], np.int32)
    whole, state = make(params(), gradient=GradientOptions(sam_rho=RHO))
    after, metrics = whole(state, batch_of(images, labels))
    split, _ = make(params(), gradient=GradientOptions(sam_rho=RHO), axis_name="data")
    batch = jax.tree.map(lambda rows: rows.reshape(2, 2, *rows.shape[1:]), batch_of(images, labels))
    spread, of_devices = jax.vmap(split, in_axes=(None, 0), axis_name="data")(state, batch)
    for one, other in zip(leaves(after.params), leaves(spread.params), strict=True):
        np.testing.assert_allclose(other[0], one, rtol=2e-6, atol=1e-7)
        np.testing.assert_array_equal(other[0], other[1])
    assert float(of_devices["loss"][0]) == pytest.approx(float(metrics["loss"]), rel=1e-6)
