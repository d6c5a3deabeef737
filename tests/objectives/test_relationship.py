"""The relationship of classes against numbers worked out by hand and independent NumPy."""

import numpy as np
import pytest

from tl_jax.errors import InputError
from tl_jax.objectives import relationship

RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.normal(size=(30, 5))
LABELS = np.arange(30) % 4


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def test_calibrated_probabilities():
    np.testing.assert_allclose(
        relationship.calibrated(LOGITS, 1.25), softmax(LOGITS / 1.25), rtol=1e-12
    )
    # Of logits whose exponentials would overflow.
    huge = relationship.calibrated(np.array([[1e4, 0.0], [0.0, 1e4]]), 1.0)
    np.testing.assert_array_equal(huge, np.eye(2))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_0(temperature):
    with pytest.raises(InputError, match=r"temperature is .*, expected a number above 0"):
        relationship.calibrated(LOGITS, temperature)


def test_the_temperature_of_the_least_loss():
    labels = RNG.integers(0, 5, 30)
    found = relationship.fit_temperature(LOGITS, labels)

    def loss(temperature):
        return -np.log(softmax(LOGITS / temperature)[np.arange(30), labels]).mean()

    # No better than any of a fine grid around it, and a minimum: the slope changes its sign there.
    assert all(loss(found) <= loss(found * factor) for factor in np.geomspace(0.9, 1.1, 101))
    assert loss(found * (1 + 1e-3)) > loss(found) < loss(found * (1 - 1e-3))


def test_logits_twice_as_large_have_twice_the_temperature():
    labels = np.where(np.arange(30) % 3, LOGITS.argmax(1), 0)
    once, twice = (relationship.fit_temperature(factor * LOGITS, labels) for factor in (1, 2))
    assert twice == pytest.approx(2 * once, rel=1e-9)


def test_the_temperature_is_bounded_where_all_or_nothing_is_right():
    assert relationship.fit_temperature(LOGITS, LOGITS.argmax(1)) == pytest.approx(0.01)
    assert relationship.fit_temperature(LOGITS, LOGITS.argmin(1)) == pytest.approx(100)


def test_direct_by_hand():
    """Classes in no order, of different numbers of images."""
    probabilities = np.array([[1.0, 0.0, 0.0], [0.2, 0.2, 0.6], [0.0, 1.0, 0.0], [0.4, 0.4, 0.2]])
    found = relationship.direct(probabilities, np.array([1, 0, 1, 1]), 2)
    np.testing.assert_allclose(found, [[0.2, 0.2, 0.6], [1.4 / 3, 1.4 / 3, 0.2 / 3]], rtol=1e-12)


def test_direct_is_the_mean_over_the_images_of_each_class():
    probabilities = softmax(LOGITS)
    found = relationship.direct(probabilities, LABELS, 4)
    for label in range(4):
        mean = probabilities[label == LABELS].mean(0)
        np.testing.assert_allclose(found[label], mean, rtol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)


def test_reverse_is_the_rule_of_bayes():
    scores, marginal = RNG.normal(size=(5, 4)), softmax(RNG.normal(size=5))
    target_given_source = softmax(scores)
    expected = np.empty((4, 5))
    for target in range(4):
        joint = [target_given_source[source, target] * marginal[source] for source in range(5)]
        expected[target] = np.array(joint) / sum(joint)
    np.testing.assert_allclose(relationship.reverse(scores, marginal), expected, rtol=1e-12)


def test_classes_that_nothing_of_the_source_makes_likely_have_a_row():
    """Products of probabilities would be 0 in all of it, and 0 / 0 no number."""
    scores = np.zeros((3, 2))
    scores[:, 1] = -1000.0, -1001.0, -1002.0
    found = relationship.reverse(scores, np.full(3, 1 / 3))
    np.testing.assert_allclose(found[1], softmax(np.array([0.0, -1.0, -2.0])), rtol=1e-9)
    np.testing.assert_allclose(found[0], 1 / 3, rtol=1e-9)


def test_a_class_of_the_source_that_is_never_seen_is_in_no_row():
    found = relationship.reverse(np.zeros((3, 2)), np.array([0.5, 0.5, 0.0]))
    np.testing.assert_allclose(found, [[0.5, 0.5, 0.0]] * 2, rtol=1e-12)


def test_entropies_by_hand():
    rows = np.array([[1.0, 0.0, 0.0, 0.0], [0.25] * 4, [0.5, 0.5, 0.0, 0.0]])
    np.testing.assert_allclose(relationship.entropies(rows), [0, np.log(4), np.log(2)], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relationship.direct(LOGITS, LABELS, 5), "class 4 has no image"),
        (lambda: relationship.direct(LOGITS, LABELS[:3], 4), r"labels \(3,\): expected"),
        (lambda: relationship.direct(LOGITS, LABELS, 3), "labels run from 0 to 3, expected 0 to 2"),
        (lambda: relationship.fit_temperature(LOGITS, LABELS + 2), "expected 0 to 4"),
        (
            lambda: relationship.reverse(np.zeros((3, 2)), np.ones(2) / 2),
            r"scores \(3, 2\) and source_marginal \(2,\): expected",
        ),
    ],
    ids=["class without image", "other lengths", "few classes", "large label", "marginal"],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
