"""Counts, accuracies, confusion and calibration, all worked out by hand."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax.training import metrics

NAN = float("nan")


@pytest.mark.parametrize(
    ("row", "label", "correct", "correct5"),
    [
        pytest.param([9, 8, 7, 6, 5, 4], 0, 1, 1, id="first"),
        pytest.param([9, 8, 7, 6, 5, 4], 1, 0, 1, id="second"),
        pytest.param([9, 8, 7, 6, 5, 4], 4, 0, 1, id="fifth"),
        pytest.param([9, 8, 7, 6, 5, 4], 5, 0, 0, id="sixth"),
        pytest.param([1, 1, 1, 1, 1, 1], 0, 1, 1, id="tie, lowest index"),
        pytest.param([1, 1, 1, 1, 1, 1], 1, 0, 1, id="tie, second index"),
        pytest.param([1, 1, 1, 1, 1, 1], 5, 0, 0, id="tie, highest index"),
        pytest.param([NAN] * 6, 0, 0, 0, id="diverged network is never right"),
    ],
)
def test_correct_counts(row, label, correct, correct5):
    logits = jnp.array([row], jnp.float32)
    sums = metrics.batch_sums(logits, jnp.array([label]), jnp.array([True]))
    assert (int(sums["correct"]), int(sums["correct5"])) == (correct, correct5)


def test_masked_rows_count_for_nothing():
    logits = jnp.array([[0.0, 0.0], [math.log(3), 0.0], [NAN, NAN], [50.0, 0.0]])
    labels = jnp.array([0, 0, 0, 1], jnp.int32)
    mask = jnp.array([True, True, False, False])
    sums = jax.jit(metrics.batch_sums)(logits, labels, mask)
    assert {name: value.dtype.name for name, value in sums.items()} == {
        "loss_sum": "float32",
        "correct": "int32",
        "correct5": "int32",
        "examples": "int32",
    }
    assert float(sums["loss_sum"]) == pytest.approx(math.log(2) + math.log(4 / 3), rel=1e-6)
    assert (int(sums["correct"]), int(sums["examples"])) == (2, 2)


def test_sums_of_padded_batches_equal_those_of_the_whole():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(10, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 10).astype(np.int32)
    whole = metrics.batch_sums(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(10, bool))
    total = dict.fromkeys(whole, 0)
    for start in (0, 4, 8):
        rows = np.arange(start, start + 4)
        mask, rows = jnp.asarray(rows < 10), np.minimum(rows, 9)
        part = metrics.batch_sums(jnp.asarray(logits[rows]), jnp.asarray(labels[rows]), mask)
        total = {name: total[name] + np.asarray(part[name]) for name in total}
    assert total["examples"] == 10
    assert total["correct"] == whole["correct"]
    assert total["correct5"] == whole["correct5"]
    np.testing.assert_allclose(total["loss_sum"], whole["loss_sum"], rtol=1e-6)


def test_finalize_returns_python_numbers():
    sums = {"loss_sum": jnp.float32(6), "correct": 3, "correct5": np.int32(4), "examples": 4}
    result = metrics.finalize(sums)
    assert result == {
        "loss": 1.5,
        "top1_accuracy": 0.75,
        "top5_accuracy": 1.0,
        "examples": 4,
    }
    assert [type(value) for value in result.values()] == [float, float, float, int]


def test_finalize_refuses_an_empty_split():
    with pytest.raises(ValueError, match="no example was evaluated"):
        metrics.finalize({"loss_sum": 0.0, "correct": 0, "correct5": 0, "examples": 0})


def test_confusion_matrix_has_the_true_class_in_rows():
    confusion = metrics.confusion_matrix(
        np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0]), num_classes=4
    )
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        pytest.param([0, 3], [0, 0], "labels run from 0 to 3, expected 0 to 2", id="label"),
        pytest.param([0, 0], [-1, 0], "predictions run from -1 to 0", id="prediction"),
        pytest.param([0, 0], [0], "differ in shape", id="shape"),
    ],
)
def test_confusion_matrix_refuses(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        metrics.confusion_matrix(np.array(labels), np.array(predictions), 3)


def test_per_class():
    confusion = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]])
    result = metrics.per_class(confusion)
    np.testing.assert_allclose(result["precision"], [1 / 2, 1 / 2, 1, 0])
    np.testing.assert_allclose(result["recall"], [1 / 2, 1, 2 / 3, 0])
    np.testing.assert_allclose(result["f1"], [1 / 2, 2 / 3, 4 / 5, 0])
    np.testing.assert_allclose(result["support"], [2, 1, 3, 0])


def test_class_averages_by_hand():
    """Classes 0, 1 and 2 have 2, 1 and 3 examples; class 3 has none, and nothing is predicted as such."""
    averages = metrics.class_averages(
        np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0]), num_classes=4
    )
    assert averages == pytest.approx(
        {
            "balanced_accuracy": (1 / 2 + 1 + 2 / 3) / 3,
            "macro_precision": (1 / 2 + 1 / 2 + 1) / 3,
            "macro_recall": (1 / 2 + 1 + 2 / 3) / 3,
            "macro_f1": (1 / 2 + 2 / 3 + 4 / 5) / 3,
            "weighted_precision": (2 / 2 + 1 / 2 + 3) / 6,
            "weighted_recall": (2 / 2 + 1 + 3 * 2 / 3) / 6,
            "weighted_f1": (2 / 2 + 2 / 3 + 3 * 4 / 5) / 6,
        }
    )
    assert tuple(averages) == metrics.CLASS_AVERAGES
    assert all(type(value) is float for value in averages.values())


def uneven(seed, classes, examples):
    """Returns labels and predictions in which some classes are rare, some absent, some never predicted."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(classes, 0.3))
    labels = rng.choice(classes, examples, p=shares)
    guesses = rng.choice(classes, examples, p=rng.dirichlet(np.full(classes, 0.3)))
    return labels, np.where(rng.random(examples) < 0.6, labels, guesses)


@pytest.mark.parametrize(("seed", "classes", "examples"), [(0, 3, 50), (1, 7, 40), (2, 40, 60)])
def test_class_averages_are_those_of_scikit_learn(seed, classes, examples):
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, predicted = uneven(seed, classes, examples)
    expected = {}
    for kind in ("macro", "weighted"):
        values = sklearn.precision_recall_fscore_support(
            labels, predicted, average=kind, zero_division=0
        )
        names = (f"{kind}_{name}" for name in ("precision", "recall", "f1"))
        expected |= dict(zip(names, values[:3], strict=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        expected["balanced_accuracy"] = sklearn.balanced_accuracy_score(labels, predicted)
    assert metrics.class_averages(labels, predicted, classes) == pytest.approx(expected, rel=1e-12)


def test_counts_of_batches_are_those_of_the_predictions():
    """Ties, rows with NaN and masked rows among them."""
    logits = np.random.default_rng(0).integers(0, 3, (40, 4)).astype(np.float32)
    logits[3, 1] = logits[17] = NAN
    labels = np.random.default_rng(1).integers(0, 4, 40)
    mask = np.arange(40) < 33
    counts = jax.jit(metrics.class_counts)(logits, labels, mask)
    found = metrics.averages_of_counts(
        *(np.asarray(counts[name]) for name in ("hits", "predicted")), labels[mask]
    )
    predicted = metrics.predictions(logits[mask])
    assert found == metrics.class_averages(labels[mask], predicted, 4)
    assert int(counts["predicted"].sum()) == 31


def test_a_class_that_is_predicted_without_examples_counts_in_macro_means_alone():
    averages = metrics.class_averages(np.array([0, 0]), np.array([0, 1]), num_classes=3)
    assert averages["macro_recall"] == 0.25 and averages["balanced_accuracy"] == 0.5
    assert averages["weighted_precision"] == 1.0


def test_predictions_of_a_diverged_network_are_of_no_class():
    logits = np.array([[NAN, NAN], [1.0, NAN], [1.0, 1.0], [0.0, np.inf]])
    predicted = metrics.predictions(logits)
    assert predicted.tolist() == [-1, -1, 0, 1]
    averages = metrics.class_averages(np.array([0, 0, 0, 1]), predicted, 2)
    assert averages["balanced_accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert averages["macro_precision"] == 1.0


@pytest.mark.parametrize(
    ("name", "value", "other", "expected"),
    [
        ("macro_f1", 0.9, 0.8, True),
        ("macro_f1", 0.8, 0.8, False),
        ("loss", 0.8, 0.9, True),
        ("loss", 0.9, 0.8, False),
        ("loss", 0.9, NAN, True),
        ("loss", NAN, 0.9, False),
        ("loss", NAN, NAN, False),
    ],
)
def test_which_of_two_values_is_better(name, value, other, expected):
    assert metrics.is_better(name, value, other) is expected


def test_the_brier_score_counts_all_classes():
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    # 0.25 + 0.0625 + 0.0625, and 0.01 + 0.64 + 0.49.
    expected = (0.375 + 1.14) / 2
    assert metrics.brier_score(probabilities, np.array([0, 1])) == pytest.approx(expected)
    assert probabilities[0, 0] == 0.5


def test_calibration_by_hand():
    # Confidences 0.6, 0.7 fall into (0.5, 0.75] with hits 1, 0; 0.9, 1.0 into (0.75, 1], both hits.
    probabilities = np.array([[0.6, 0.4], [0.3, 0.7], [0.1, 0.9], [1.0, 0.0]])
    result = metrics.calibration(probabilities, np.array([0, 0, 1, 0]), bins=4)
    np.testing.assert_array_equal(result["bin_count"], [0, 0, 2, 2])
    np.testing.assert_allclose(result["bin_confidence"], [0, 0, 0.65, 0.95])
    np.testing.assert_allclose(result["bin_accuracy"], [0, 0, 0.5, 1.0])
    assert result["ece"] == pytest.approx((2 * 0.15 + 2 * 0.05) / 4)


def test_calibration_bins_are_closed_on_the_right():
    result = metrics.calibration(np.array([[0.5, 0.5], [0.75, 0.25]]), np.array([0, 0]), bins=4)
    np.testing.assert_array_equal(result["bin_count"], [0, 1, 1, 0])


@pytest.mark.parametrize(
    ("rows", "labels", "bins"),
    [
        pytest.param(2, 2, 0, id="no bin"),
        pytest.param(0, 0, 5, id="no example"),
        pytest.param(2, 3, 5, id="lengths differ"),
    ],
)
def test_calibration_refuses(rows, labels, bins):
    with pytest.raises(ValueError, match="expected at least 1 bin"):
        metrics.calibration(np.full((rows, 2), 0.5), np.zeros(labels, int), bins)
