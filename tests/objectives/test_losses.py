"""Cross-entropy against numbers worked out by hand, and against PyTorch where it is installed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax.errors import InputError
from tl_jax.objectives import losses

LOG2 = math.log(2)


@pytest.mark.parametrize(
    ("logits", "label", "smoothing", "expected"),
    [
        pytest.param([0.0, 0.0, 0.0, 0.0], 2, 0.0, 2 * LOG2, id="uniform"),
        pytest.param([0.0, 0.0, 0.0, 0.0], 2, 0.4, 2 * LOG2, id="uniform, smoothed"),
        pytest.param([0.0, math.log(3)], 1, 0.0, math.log(4 / 3), id="three to one"),
        pytest.param([0.0, math.log(3)], 0, 0.0, 2 * LOG2, id="the unlikely class"),
        pytest.param(
            [0.0, math.log(3)], 1, 0.2, 0.9 * math.log(4 / 3) + 0.1 * 2 * LOG2, id="0.9 and 0.1"
        ),
        pytest.param([1000.0, 0.0], 1, 0.0, 1000.0, id="no overflow"),
    ],
)
def test_cross_entropy_by_hand(logits, label, smoothing, expected):
    loss = losses.cross_entropy(jnp.array([logits]), jnp.array([label]), smoothing)
    assert loss.shape == (1,)
    assert float(loss[0]) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_bfloat16_logits_is_computed_in_float32():
    logits = jnp.array([[0.5, -1.25, 3.0]], jnp.bfloat16)
    loss = losses.cross_entropy(logits, jnp.array([0]))
    assert loss.dtype == jnp.float32
    expected = losses.cross_entropy(logits.astype(jnp.float32), jnp.array([0]))
    np.testing.assert_array_equal(loss, expected)


def test_gradient_is_softmax_minus_the_smoothed_target():
    logits, labels = jnp.array([[0.0, math.log(3)]]), jnp.array([1])
    grads = jax.grad(lambda z: losses.cross_entropy(z, labels, 0.2)[0])(logits)
    np.testing.assert_allclose(grads, [[0.25 - 0.1, 0.75 - 0.9]], atol=1e-7)


def test_a_label_out_of_range_does_not_pass_for_a_loss():
    assert np.isnan(losses.cross_entropy(jnp.zeros((2, 3)), jnp.array([3, -1]))).all()


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_label_smoothing_out_of_range(smoothing):
    with pytest.raises(InputError, match=r"label_smoothing is .*\[0, 1\)"):
        losses.cross_entropy(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32), smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_as_data(smoothing):
    logits, labels = jnp.array([[0.0, math.log(3)], [0.5, -1.0]]), jnp.array([1, 0])
    as_data = jax.jit(losses.cross_entropy)(logits, labels, smoothing)
    np.testing.assert_allclose(as_data, losses.cross_entropy(logits, labels, smoothing), rtol=3e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_pytorch(smoothing):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(16, 10)).astype(np.float32)
    labels = rng.integers(0, 10, 16)
    reference = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels), label_smoothing=smoothing, reduction="none"
    )
    ours = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels, jnp.int32), smoothing)
    np.testing.assert_allclose(ours, reference.numpy(), rtol=1e-6, atol=1e-6)


TARGETS = np.array([[1, 0, 0], [0.25, 0.75, 0], [0.2, 0.3, 0.5]], np.float32)
LOGITS = np.array([[0.5, -1.25, 3.0], [2.0, 0.0, -1.0], [0.1, 0.2, -0.3]], np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_soft_cross_entropy_is_numpys(smoothing):
    logits = LOGITS.astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    smoothed = (1 - smoothing) * TARGETS + smoothing / 3
    found = losses.soft_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(TARGETS), smoothing)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, -(smoothed * log_probs).sum(1), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_cross_entropy_is_torchs(smoothing):
    torch = pytest.importorskip("torch")
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS),
        torch.from_numpy(TARGETS),
        reduction="none",
        label_smoothing=smoothing,
    )
    found = losses.soft_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(TARGETS), smoothing)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_soft_cross_entropy_of_certain_targets_is_that_of_labels(smoothing):
    labels = jnp.array([2, 0, 1])
    found = losses.soft_cross_entropy(jnp.asarray(LOGITS), jax.nn.one_hot(labels, 3), smoothing)
    expected = losses.cross_entropy(jnp.asarray(LOGITS), labels, smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_soft_cross_entropy_refuses_a_smoothing_out_of_range():
    with pytest.raises(InputError, match=r"label_smoothing is 1.5"):
        losses.soft_cross_entropy(jnp.zeros((1, 2)), jnp.ones((1, 2)) / 2, 1.5)


WEIGHTS = np.array([0.5, 2.0, 1.25], np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_multiply_the_terms_of_the_classes(smoothing):
    logits = LOGITS.astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = (1 - smoothing) * np.eye(3)[[2, 0, 1]] + smoothing / 3
    expected = -(WEIGHTS * targets * log_probs).sum(1)
    labels, weights = jnp.array([2, 0, 1]), jnp.asarray(WEIGHTS)
    found = losses.cross_entropy(jnp.asarray(LOGITS), labels, smoothing, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    hot = jax.nn.one_hot(labels, 3)
    soft = losses.soft_cross_entropy(jnp.asarray(LOGITS), hot, smoothing, weights)
    np.testing.assert_allclose(soft, expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_weighted_cross_entropy_is_torchs(kind, smoothing):
    torch = pytest.importorskip("torch")
    hard, soft = np.array([2, 0, 1]), TARGETS
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS),
        torch.from_numpy(hard if kind == "labels" else soft),
        weight=torch.from_numpy(WEIGHTS),
        reduction="none",
        label_smoothing=smoothing,
    )
    loss = losses.cross_entropy if kind == "labels" else losses.soft_cross_entropy
    given = jnp.asarray(hard if kind == "labels" else soft)
    found = loss(jnp.asarray(LOGITS), given, smoothing, jnp.asarray(WEIGHTS))
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-6)
