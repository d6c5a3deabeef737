"""Classifiers on features: chosen inside train, fitted to all of it, and the numbers of scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from tl_jax.errors import InputError
from tl_jax.training import classic

GRID = classic.Grid(
    pca=(0.0, 2.0),
    lda_shrinkage=(0.0, 0.5),
    logistic_c=(0.01, 1.0),
    linear_svm_c=(0.01, 1.0),
    rbf_svm_c=(1.0, 10.0),
    rbf_svm_gamma=(0.5, 2.0),
    knn_neighbors=(1, 5),
)
SEARCH = classic.Search(folds=3, seed=4)
# The classifier of scikit-learn that a setting stands for.
REFERENCES = {
    "lda": lambda row: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=row["shrinkage"]),
    "logistic": lambda row: LogisticRegression(C=row["c"], max_iter=1000),
    "linear_svm": lambda row: LinearSVC(C=row["c"], random_state=4),
    "rbf_svm": lambda row: SVC(C=row["c"], gamma=row["gamma"]),
    "knn": lambda row: KNeighborsClassifier(row["neighbors"]),
}


def blobs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns three classes that overlap: features [N, 6] of different scales, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = 1.2 * np.eye(3, 6)[labels] + rng.normal(size=(count, 6))
    return (features * [1, 10, 0.1, 5, 1, 1]).astype(np.float32), labels


FEATURES, LABELS = blobs(90)
TEST, TEST_LABELS = blobs(60, seed=1)


@pytest.fixture(scope="module")
def routes():
    return {
        method: classic.find(method, FEATURES, LABELS, GRID, SEARCH) for method in classic.METHODS
    }


def reference(method: str, setting: dict, train: np.ndarray):
    """Returns scikit-learn's pipeline of a setting, to be fitted to `train`."""
    scaled = StandardScaler().fit_transform(train.astype(np.float64))
    steps = [StandardScaler()]
    if setting["pca"]:
        steps.append(PCA(int(setting["pca"])))
        scaled = PCA(int(setting["pca"])).fit_transform(scaled)
    given = dict(setting)
    if method == "rbf_svm":
        given["gamma"] /= scaled.shape[1] * scaled.var()
    return make_pipeline(*steps, REFERENCES[method](given))


@pytest.mark.parametrize("method", classic.METHODS)
def test_every_setting_is_judged_by_folds_of_train(routes, method):
    """Accuracies as of scikit-learn's own pipeline, fitted anew in each fold."""
    folds = list(StratifiedKFold(3, shuffle=True, random_state=4).split(FEATURES, LABELS))
    settings = routes[method].settings
    assert len(settings) == (8 if method == "rbf_svm" else 4)
    for row in settings:
        accuracies = [
            reference(method, row, FEATURES[train])
            .fit(FEATURES[train].astype(np.float64), LABELS[train])
            .score(FEATURES[held].astype(np.float64), LABELS[held])
            for train, held in folds
        ]
        assert row["accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-12), row
        assert row["accuracy_std"] == pytest.approx(np.std(accuracies), abs=1e-12)


@pytest.mark.parametrize("method", classic.METHODS)
def test_the_best_setting_is_fitted_to_all_of_train(routes, method):
    route = routes[method]
    best = max(route.settings, key=lambda row: row["accuracy"])
    assert route.accuracy == best["accuracy"]
    assert route.chosen.items() <= best.items()
    assert route.components == (2 if best["pca"] else None)
    fitted = reference(method, best, FEATURES).fit(FEATURES.astype(np.float64), LABELS)
    np.testing.assert_array_equal(route.predict(TEST), fitted.predict(TEST.astype(np.float64)))
    assert route.examples == 90 and route.not_converged == 0
    assert route.converged is (True if method in ("logistic", "linear_svm") else None)


def test_shares_of_the_variance_and_whitening():
    grid = classic.Grid(pca=(0.9,), whiten=True)
    route = classic.find("knn", FEATURES, LABELS, grid, SEARCH)
    scaled = StandardScaler().fit_transform(FEATURES.astype(np.float64))
    shares = PCA().fit(scaled).explained_variance_ratio_.cumsum()
    assert route.components == np.flatnonzero(shares > 0.9)[0] + 1
    kept = route.pipeline[:-1].transform(FEATURES.astype(np.float64))
    np.testing.assert_allclose(kept.var(axis=0, ddof=1), 1.0, rtol=1e-6)


def test_lda_of_more_features_than_examples():
    """The covariance is singular, and some features are constant."""
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(size=(30, 50)) + 2 * np.eye(3, 50)[np.arange(30) % 3], 0)
    features[:, 10] = 0.0
    grid = classic.Grid(lda_shrinkage=(0.0, 0.3))
    route = classic.find("lda", features, np.arange(30) % 3, grid, SEARCH)
    assert all(0 < row["accuracy"] <= 1 for row in route.settings)


def test_an_rbf_svm_of_many_examples_is_the_same(routes, monkeypatch):
    """Whose kernel is not held in memory."""
    monkeypatch.setattr(classic, "_KERNEL_EXAMPLES", 50)
    found = classic.find("rbf_svm", FEATURES, LABELS, GRID, SEARCH)
    assert found.settings == routes["rbf_svm"].settings
    np.testing.assert_array_equal(found.predict(TEST), routes["rbf_svm"].predict(TEST))


def test_the_search_sees_a_part_and_the_refit_all():
    search = classic.Search(folds=3, seed=0, examples=30)
    places = classic.searched(LABELS, search)
    assert np.bincount(LABELS[places]).tolist() == [10, 10, 10]
    assert classic.least_in_training(LABELS, search) == 20
    route = classic.find("knn", FEATURES, LABELS, classic.Grid(knn_neighbors=(1, 3)), search)
    alone = classic.find(
        "knn",
        FEATURES[places],
        LABELS[places],
        classic.Grid(knn_neighbors=(1, 3)),
        classic.Search(folds=3),
    )
    assert (route.examples, route.settings) == (30, alone.settings)
    # Every training example is its own nearest neighbour.
    nearest = classic.find("knn", FEATURES, LABELS, classic.Grid(knn_neighbors=(1,)), search)
    np.testing.assert_array_equal(nearest.predict(FEATURES), LABELS)


def test_solvers_that_stop_early_are_told_of_and_not_warned_about():
    grid = classic.Grid(logistic_c=(1.0, 100.0), max_iterations=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        route = classic.find("logistic", FEATURES, LABELS, grid, SEARCH)
    assert route.converged is False
    assert [row["not_converged"] for row in route.settings] == [3, 3]
    assert route.not_converged == 6
    with pytest.warns(ConvergenceWarning):
        LogisticRegression(max_iter=2).fit(FEATURES, LABELS)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (classic.Search(folds=4), "folds=4: 1 classes have fewer examples than folds: c (3)"),
        (classic.Search(folds=4), "expected folds=3 or fewer"),
        (
            classic.Search(folds=3, examples=12),
            "among the examples=12 of 23 that are searched on: c (2); expected folds=2 or fewer",
        ),
        (classic.Search(folds=2, examples=3), "expected more examples of them"),
    ],
)
def test_classes_without_enough_examples_are_named(search, message):
    labels = np.array([0] * 10 + [1] * 10 + [2] * 3)
    with pytest.raises(InputError) as raised:
        classic.check_counts(labels, search, ("a", "b", "c", "of nothing"))
    assert message in str(raised.value)


def test_enough_examples_pass():
    classic.check_counts(np.array([0, 0, 2, 2]), classic.Search(folds=2), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pca": (2.5,)}, "pca=2.5: expected a whole number of components"),
        ({"pca": ()}, "pca=(): expected one value at least"),
        ({"logistic_c": (1.0, 1.0)}, "logistic_c=(1.0, 1.0): a value is there twice"),
    ],
)
def test_wrong_grids(given, message):
    with pytest.raises(InputError) as raised:
        classic.Grid(**given)
    assert str(raised.value).startswith(message)


def test_an_unknown_method_is_named():
    with pytest.raises(InputError, match=r"unknown method 'svm'.*linear_svm"):
        classic.find("svm", FEATURES, LABELS, GRID, SEARCH)
