"""L-BFGS over many strengths: scikit-learn's optimum, one strength's answer independent of the others."""

import numpy as np
import pytest

from tl_jax.errors import InputError
from tl_jax.training import logistic

STRENGTHS = (0.1, 1.0, 10.0, 1000.0)


@pytest.fixture(scope="module")
def digits():
    """Returns features in [0, 1], float32 [600, 64], and labels of ten classes."""
    datasets = pytest.importorskip("sklearn.datasets")
    features, labels = datasets.load_digits(return_X_y=True)
    return (features[:600] / 16).astype(np.float32), labels[:600].astype(np.int32)


def objective(features, labels, kernel, bias, strength):
    """Returns the sum of losses and the penalty, in float64."""
    logits = features.astype(np.float64) @ kernel + bias
    logits -= logits.max(1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = -log_probs[np.arange(len(labels)), labels].sum()
    return loss + strength / 2 * (np.asarray(kernel, np.float64) ** 2).sum()


@pytest.fixture(scope="module")
def solved(digits):
    return logistic.fit(*digits, 10, STRENGTHS, tolerance=1e-6)


@pytest.mark.parametrize("place", range(len(STRENGTHS)), ids=map(str, STRENGTHS))
def test_the_optimum_is_that_of_scikit_learn(digits, solved, place):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = digits
    strength = STRENGTHS[place]
    reference = linear_model.LogisticRegression(C=1 / strength, tol=1e-6, max_iter=2000)
    reference.fit(features.astype(np.float64), labels)
    wanted = objective(
        features, labels, reference.coef_.T.astype(np.float64), reference.intercept_, strength
    )
    kernel, bias = solved.kernel[place], solved.bias[place]
    found = objective(features, labels, kernel, bias, strength)
    assert found == pytest.approx(wanted, rel=1e-5)
    assert solved.objective[place] * len(labels) == pytest.approx(found, rel=1e-5)
    assert solved.converged[place] and solved.gradient[place] < 1e-6
    predicted = (features @ kernel + bias).argmax(1)
    assert (predicted == reference.predict(features)).mean() >= 0.999


def test_by_hand_without_features():
    """The bias of constant features is the log of the class frequencies, up to a constant."""
    labels = np.array([0] * 6 + [1] * 3 + [2])
    found = logistic.fit(np.zeros((10, 2)), labels, 3, [1.0], tolerance=1e-6)
    expected = np.log([0.6, 0.3, 0.1])
    np.testing.assert_allclose(
        found.bias[0] - found.bias[0].mean(), expected - expected.mean(), atol=1e-4
    )
    np.testing.assert_array_equal(found.kernel, 0)
    entropy = -(0.6 * np.log(0.6) + 0.3 * np.log(0.3) + 0.1 * np.log(0.1))
    assert found.objective[0] == pytest.approx(entropy, rel=1e-6)


def test_a_strength_alone_and_among_others(digits, solved):
    alone = logistic.fit(*digits, 10, [10.0], tolerance=1e-6)
    np.testing.assert_allclose(alone.kernel[0], solved.kernel[2], atol=2e-4)
    assert alone.evaluations.max() <= solved.evaluations.max()
    assert len(set(solved.evaluations.tolist())) > 1


def test_it_gives_up_at_the_limit_and_says_so(digits):
    found = logistic.fit(*digits, 10, [0.1, 1e5], max_evaluations=25)
    np.testing.assert_array_equal(found.converged, [False, True])
    assert found.evaluations[0] == 25 > found.evaluations[1]


def test_top1_accuracy_counts_every_example_once(digits, solved):
    features, labels = digits
    expected = [
        (np.argmax(features @ kernel + bias, 1) == labels).mean()
        for kernel, bias in zip(solved.kernel, solved.bias, strict=True)
    ]
    measured = logistic.top1_accuracy(solved.kernel, solved.bias, features, labels)
    np.testing.assert_allclose(measured, expected, atol=1e-9)


def test_every_example_twice_and_twice_the_strength_is_the_same_problem():
    """Whatever the blocks that the examples are cut into, the last one padded."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 1500)
    features = (rng.normal(size=(1500, 4)) + labels[:, None]).astype(np.float32)
    once = logistic.fit(features, labels, 3, [5.0], tolerance=1e-6)
    twice = logistic.fit(np.tile(features, (2, 1)), np.tile(labels, 2), 3, [10.0], tolerance=1e-6)
    np.testing.assert_allclose(once.kernel, twice.kernel, atol=1e-3)
    assert once.objective == pytest.approx(twice.objective, rel=1e-6)


def test_the_strongest_of_equals_is_chosen():
    assert logistic.choose(np.array([0.5, 0.9, 0.9, 0.7]), (0.1, 1.0, 10.0, 100.0)) == 2
    assert logistic.choose(np.array([0.9, 0.9]), (10.0, 1.0)) == 0


def test_strength_grid():
    assert logistic.strength_grid(1e-6, 1e6, 97)[48] == 1.0
    assert logistic.strength_grid(2.0, 2.0, 1) == (2.0,)
    for given in [(0.0, 1.0, 3), (2.0, 1.0, 3), (1.0, 2.0, 1), (1.0, 1.0, 0)]:
        with pytest.raises(InputError, match="expected 0 < least <= most"):
            logistic.strength_grid(*given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((3, 2, 2))}, "expected [N, F] and [N]"),
        ({"labels": [0, 1]}, "expected [N, F] and [N]"),
        ({"labels": [0, 1, 3]}, "labels run from 0 to 3, 2 classes"),
        ({"features": np.full((3, 2), np.nan)}, "features are not finite"),
        ({"strengths": []}, "strengths []: expected numbers"),
        ({"strengths": [-1.0]}, "strengths [-1.0]"),
        ({"max_evaluations": 0}, "max_evaluations=0"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    arguments = {
        "features": np.zeros((3, 2)),
        "labels": [0, 1, 1],
        "num_classes": 2,
        "strengths": [1.0],
    }
    with pytest.raises(InputError) as caught:
        logistic.fit(**(arguments | changes))
    assert message in str(caught.value)
