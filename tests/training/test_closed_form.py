"""Closed-form heads against normal equations and explicit distances, in float64."""

import numpy as np
import pytest

from tl_jax.errors import InputError
from tl_jax.training import closed_form

STRENGTHS = (1e-3, 1.0, 1e4)


def made(examples, width, classes=5, seed=0):
    """Returns features far from 0, float32, and labels of classes of different sizes."""
    rng = np.random.default_rng(seed)
    labels = np.sort(np.arange(examples) % (classes + 2)) % classes
    centres = rng.normal(size=(classes, width))
    return (rng.normal(size=(examples, width)) + centres[labels] + 3).astype(np.float32), labels


@pytest.mark.parametrize(("examples", "width"), [(30, 80), (80, 30), (40, 40), (9000, 7)])
def test_ridge_solves_the_normal_equations(examples, width):
    """With a column of ones whose weight is not penalised; few examples, many, and more than a block of them."""
    features, labels = made(examples, width)
    found = closed_form.ridge(features, labels, 5, STRENGTHS)
    rows = np.concatenate([features.astype(np.float64), np.ones((examples, 1))], 1)
    targets = (labels[:, None] == np.arange(5)).astype(np.float64)
    for place, strength in enumerate(STRENGTHS):
        penalty = np.diag([strength] * width + [0.0])
        expected = np.linalg.solve(rows.T @ rows + penalty, rows.T @ targets)
        largest = np.abs(expected[:-1]).max()
        np.testing.assert_allclose(
            found.kernel[place], expected[:-1], rtol=1e-6, atol=1e-6 * largest
        )
        np.testing.assert_allclose(found.bias[place], expected[-1], rtol=1e-6, atol=1e-6)


def test_ridge_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = made(60, 20)
    reference = linear_model.Ridge(alpha=2.5).fit(features.astype(np.float64), np.eye(5)[labels])
    found = closed_form.ridge(features, labels, 5, [2.5])
    np.testing.assert_allclose(found.kernel[0], reference.coef_.T, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.bias[0], reference.intercept_, rtol=1e-6)


@pytest.mark.parametrize(("examples", "width"), [(12, 30), (60, 10)])
def test_without_a_penalty_it_is_least_squares_of_least_norm(examples, width):
    """One feature is there twice, so that there are many solutions."""
    features, labels = made(examples, width)
    features[:, 1] = features[:, 0]
    found = closed_form.ridge(features, labels, 5, [0.0])
    rows = features.astype(np.float64)
    targets = np.eye(5)[labels]
    expected = np.linalg.pinv(rows - rows.mean(0), rcond=1e-10) @ (targets - targets.mean(0))
    np.testing.assert_allclose(found.kernel[0], expected, rtol=1e-6, atol=1e-8)


def test_a_class_without_an_example_regresses_to_nothing():
    features, labels = made(30, 4, classes=3)
    found = closed_form.ridge(features, labels, 4, [1.0])
    np.testing.assert_allclose(found.kernel[0, :, 3], 0, atol=1e-12)
    assert found.bias[0, 3] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("examples", [40, 9000])
def test_nearest_mean_is_the_nearest_by_distance(examples):
    features, labels = made(examples, 16)
    head = closed_form.nearest_mean(features, labels, 5)
    others = made(200, 16, seed=1)[0].astype(np.float64)
    rows = features.astype(np.float64)
    means = np.stack([rows[labels == label].mean(0) for label in range(5)])
    distances = ((others[:, None] - means[None]) ** 2).sum(-1)
    logits = others @ head.kernel[0] + head.bias[0]
    np.testing.assert_array_equal(logits.argmax(1), distances.argmin(1))
    constant = (others**2).sum(1, keepdims=True)
    np.testing.assert_allclose(logits, constant - distances, rtol=1e-5)
    assert head.kernel.shape == (1, 16, 5) and head.bias.shape == (1, 5)


@pytest.mark.parametrize("solver", ["ridge", "nearest_mean"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((3, 2, 2))}, "expected [N, F] and [N]"),
        ({"labels": np.array([0, 1])}, "expected [N, F] and [N]"),
        ({"labels": np.array([0, 1, 3])}, "labels run from 0 to 3, 2 classes"),
        ({"features": np.full((3, 2), np.nan)}, "features are not finite"),
    ],
)
def test_what_does_not_fit_is_refused(solver, changes, message):
    arguments = {
        "features": np.zeros((3, 2)),
        "labels": np.array([0, 1, 1]),
        "num_classes": 2,
    } | changes
    if solver == "ridge":
        arguments["strengths"] = [1.0]
    with pytest.raises(InputError) as caught:
        getattr(closed_form, solver)(**arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("strengths", [[], [-1.0], [float("inf")]])
def test_strengths_are_numbers_from_0(strengths):
    with pytest.raises(InputError, match="expected numbers of at least 0"):
        closed_form.ridge(np.zeros((3, 2)), np.array([0, 1, 1]), 2, strengths)


def test_a_class_without_an_example_has_no_mean():
    with pytest.raises(InputError, match="classes 1, 3 have no example"):
        closed_form.nearest_mean(np.zeros((3, 2)), np.array([0, 2, 2]), 4)
