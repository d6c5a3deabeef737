"""Classic classifiers on features, through scikit-learn: what is tried, how it is chosen, what is refitted.

A route is a pipeline: standardisation, PCA (or none), and a classifier. Its hyperparameters are chosen by
stratified k-fold cross-validation inside the training examples; standardisation and PCA are fitted again in every
fold, so that no example is judged by a pipeline that has seen it.

N: training examples; F: features of each; K: classes. Features are used in float64.
"""

import dataclasses
import tempfile
import time
import warnings
from collections.abc import Mapping
from typing import Any

import joblib
import numpy as np
import scipy.linalg
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from tl_jax.data.selection import at_most
from tl_jax.errors import InputError, unknown

# Up to so many the kernel of an RBF SVM is held in memory, 512 MB of it.
_KERNEL_EXAMPLES = 8000
_PREDICTED_AT_ONCE = 1000
METHODS = ("lda", "logistic", "linear_svm", "rbf_svm", "knn")


@dataclasses.dataclass(frozen=True)
class Grid:
    """The hyperparameters to try.

    Attributes:
        pca: before every classifier: numbers of components (from 1), shares of the variance (in (0, 1)), or 0 for no
            PCA.
        whiten: whether components get variance 1.
        lda_shrinkage: of the covariance of LDA, in [0, 1].
        logistic_c: inverse L2 strengths of multinomial logistic regression: C times the sum of losses, plus half
            the squared norm.
        linear_svm_c: of the linear SVM with squared hinge loss, one against the rest.
        rbf_svm_c: of the RBF SVM, one against one.
        rbf_svm_gamma: its gamma, as multiples of 1 / (F * variance), scikit-learn's "scale".
        knn_neighbors: of k-NN by Euclidean distance, all neighbours alike.
        max_iterations: of logistic regression and the linear SVM.

    Raises:
        InputError: if nothing is to be tried, or a value of `pca` is from 1 on and no whole number.
    """

    pca: tuple[float, ...] = (0.0,)
    whiten: bool = False
    lda_shrinkage: tuple[float, ...] = (0.0,)
    logistic_c: tuple[float, ...] = (1.0,)
    linear_svm_c: tuple[float, ...] = (1.0,)
    rbf_svm_c: tuple[float, ...] = (1.0,)
    rbf_svm_gamma: tuple[float, ...] = (1.0,)
    knn_neighbors: tuple[int, ...] = (5,)
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if isinstance(values, tuple) and not values:
                raise InputError(f"{field.name}=(): expected one value at least")
            if isinstance(values, tuple) and len(set(values)) < len(values):
                raise InputError(f"{field.name}={values}: a value is there twice")
        odd = [value for value in self.pca if value >= 1 and value != int(value)]
        if odd:
            raise InputError(
                f"pca={odd[0]:g}: expected a whole number of components, a share of the variance below 1, or 0"
            )

    @property
    def components(self) -> int:
        """The largest number of components that is tried; 0 where none is given as a number."""
        return int(max((value for value in self.pca if value >= 1), default=0))


@dataclasses.dataclass(frozen=True)
class Search:
    """How hyperparameters are chosen.

    Attributes:
        folds: of the cross-validation.
        seed: of the folds, and of which examples are searched on.
        examples: searched on at most, in proportion to the classes; 0: all. The search of kernel methods grows with
            the square of them.
        jobs: processes.
    """

    folds: int = 5
    seed: int = 0
    examples: int = 0
    jobs: int = 1


@dataclasses.dataclass(frozen=True)
class Route:
    """A classifier, its hyperparameters chosen and fitted to all training examples.

    Attributes:
        method: one of `METHODS`.
        chosen: its hyperparameters; `pca` among them.
        components: that PCA kept; None without PCA.
        accuracy: over the folds of the search, their mean, of the chosen ones.
        accuracy_std: the standard deviation over the folds (divisor k).
        settings: a row for each that was tried: hyperparameters, `accuracy`, `accuracy_std`, `not_converged`
            (fits of its folds).
        examples: that were searched on.
        converged: whether the solver of the last fit did; None of those that have no iterations to end.
        search_seconds: of the search, and `fit_seconds` of the last fit.
        pipeline: fitted.
    """

    method: str
    chosen: dict[str, Any]
    components: int | None
    accuracy: float
    accuracy_std: float
    settings: list[dict[str, Any]]
    examples: int
    converged: bool | None
    search_seconds: float
    fit_seconds: float
    pipeline: Pipeline

    @property
    def not_converged(self) -> int:
        """Fits of the search whose solver did not converge."""
        return sum(row["not_converged"] for row in self.settings)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns the class of each example, int64 [M], of features [M, F]."""
        return np.asarray(self.pipeline.predict(_float64(features)), np.int64)


class _TellsConvergence:
    """Keeps in `converged_` whether a fit converged, which some solvers say by a warning alone."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Any:
        """Fits as scikit-learn does; other warnings are passed on."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            super().fit(X, y)  # type: ignore[misc]
        told = [warning for warning in caught if issubclass(warning.category, ConvergenceWarning)]
        self.converged_ = not told
        for warning in caught:
            if warning not in told:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        return self


class _Logistic(_TellsConvergence, LogisticRegression):
    pass


class _LinearSvm(_TellsConvergence, LinearSVC):
    pass


class _Lda(ClassifierMixin, BaseEstimator):
    """Linear discriminant analysis with a shrunk covariance.

    The numbers are those of scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr")`, which takes the singular
    values of the F x F covariance, and several times as long. The covariance need not be regular, as where
    features are more than examples.

    Source: Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical Learning", section 4.3.
    """

    def __init__(self, shrinkage: float = 0.0):
        self.shrinkage = shrinkage

    def fit(self, X: np.ndarray, y: np.ndarray) -> "_Lda":
        """Fits means and the pooled covariance."""
        self.classes_, places, counts = np.unique(y, return_inverse=True, return_counts=True)
        means = np.stack([X[places == place].mean(0) for place in range(len(self.classes_))])
        centred = X - means[places]
        covariance = centred.T @ centred * ((1 - self.shrinkage) / len(X))
        spread = np.square(centred).sum() / centred.size  # the mean variance
        covariance.flat[:: len(covariance) + 1] += self.shrinkage * spread
        if self.shrinkage > 0 and spread > 0:
            self._axes = scipy.linalg.solve(covariance, means.T, assume_a="pos")
        else:
            self._axes = scipy.linalg.lstsq(covariance, means.T, lapack_driver="gelsy")[0]
        self._offsets = np.log(counts / len(X)) - 0.5 * np.einsum("kf,fk->k", means, self._axes)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Returns the most probable class of each example."""
        return self.classes_[(X @ self._axes + self._offsets).argmax(1)]


class _RbfSvm(ClassifierMixin, BaseEstimator):
    """Its gamma is `scale` times 1 / (features * variance) of what it is fitted to.

    Of a moderate number of examples the kernel is computed at once, as a product of matrices; libsvm by itself
    computes it row by row, which takes ten times as long where features are many.
    """

    def __init__(self, C: float = 1.0, scale: float = 1.0):
        self.C = C
        self.scale = scale

    def fit(self, X: np.ndarray, y: np.ndarray) -> "_RbfSvm":
        """Fits as scikit-learn's `SVC`."""
        self._gamma = self.scale / (X.shape[1] * X.var())
        self._examples = X if len(X) <= _KERNEL_EXAMPLES else None
        if self._examples is None:
            self._svm = SVC(C=self.C, gamma=self._gamma).fit(X, y)
        else:
            kernel = rbf_kernel(X, gamma=self._gamma)
            self._svm = SVC(C=self.C, kernel="precomputed").fit(kernel, y)
        self.classes_ = self._svm.classes_
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Returns the class of each example."""
        if self._examples is None:
            return self._svm.predict(X)
        parts = np.array_split(X, -(-len(X) // _PREDICTED_AT_ONCE))
        return np.concatenate(
            [self._svm.predict(rbf_kernel(part, self._examples, self._gamma)) for part in parts]
        )


def check_counts(labels: np.ndarray, search: Search, class_names: tuple[str, ...]) -> None:
    """Looks at whether every fold of the search gets examples of every class that there is.

    Args:
        labels: integers [N].
        search: how hyperparameters are chosen.
        class_names: K of them.

    Raises:
        InputError: if a class has fewer examples than folds; all of them are listed.
    """
    counts = np.bincount(labels[searched(labels, search)], minlength=len(class_names))
    few = np.flatnonzero((counts > 0) & (counts < search.folds))
    gone = np.flatnonzero((counts == 0) & (np.bincount(labels, minlength=len(class_names)) > 0))
    short = [*few, *gone]
    if not short:
        return
    listed = ", ".join(f"{class_names[place]} ({counts[place]})" for place in short[:10])
    more = f" and {len(short) - 10} more" if short[10:] else ""
    part = ""
    if 0 < search.examples < len(labels):
        part = f" among the examples={search.examples} of {len(labels):,} that are searched on"
    least = counts[short].min()
    hint = f"folds={least} or fewer" if least >= 2 else "more examples of them"
    raise InputError(
        f"folds={search.folds}: {len(short)} classes have fewer examples than folds{part}: "
        f"{listed}{more}; expected {hint}"
    )


def searched(labels: np.ndarray, search: Search) -> np.ndarray:
    """Returns the places of the examples of the search, int64, in rising order."""
    return at_most(labels, search.examples or len(labels), search.seed)


def least_in_training(labels: np.ndarray, search: Search) -> int:
    """Returns the least number of examples that a pipeline is fitted to in the search."""
    count = len(searched(labels, search))
    return count - -(-count // search.folds)


def find(
    method: str, features: np.ndarray, labels: np.ndarray, grid: Grid, search: Search
) -> Route:
    """Chooses hyperparameters by cross-validation, and fits the chosen ones to all examples.

    Among settings of equal accuracy the first of `settings` wins: in the order of the grid, `pca` changing first.

    Args:
        method: one of `METHODS`.
        features: floating point [N, F].
        labels: integers [N]; see `check_counts`.
        grid: what is tried.
        search: how it is chosen.

    Raises:
        InputError: if the method is unknown.
    """
    classifier, values = _classifier(method, grid, search.seed)
    rows, places = _float64(features), searched(labels, search)
    tried: dict[str, Any] = {f"classifier__{name}": list(given) for name, given in values.items()}
    with tempfile.TemporaryDirectory(prefix="tl_jax-routes-") as folder:
        # The same scaling and PCA stand before every setting of a classifier: computed once a fold.
        memory = joblib.Memory(folder, verbose=0)
        pipeline = Pipeline(
            [("scale", StandardScaler()), ("pca", "passthrough"), ("classifier", classifier)],
            memory=memory,
        )
        chooser = GridSearchCV(
            pipeline,
            {"pca": [_pca(value, grid.whiten) for value in grid.pca], **tried},
            scoring=_score,
            refit=False,
            cv=StratifiedKFold(search.folds, shuffle=True, random_state=search.seed),
            n_jobs=search.jobs,
            error_score="raise",
        )
        began = time.perf_counter()
        with warnings.catch_warnings():
            # It says that arguments took long to be written, which they may.
            warnings.filterwarnings("ignore", message="Persisting input arguments took")
            chooser.fit(rows[places], labels[places])
        search_seconds = time.perf_counter() - began
    settings = _settings(chooser.cv_results_, search.folds)
    best = int(np.argmax([row["accuracy"] for row in settings]))
    began = time.perf_counter()
    fitted = pipeline.set_params(memory=None, **chooser.cv_results_["params"][best])
    fitted.fit(rows, labels)
    pca = fitted.named_steps["pca"]
    measured = ("accuracy", "accuracy_std", "not_converged")
    return Route(
        method=method,
        chosen={name: value for name, value in settings[best].items() if name not in measured},
        components=None if pca == "passthrough" else int(pca.n_components_),
        accuracy=settings[best]["accuracy"],
        accuracy_std=settings[best]["accuracy_std"],
        settings=settings,
        examples=len(places),
        converged=getattr(fitted.named_steps["classifier"], "converged_", None),
        search_seconds=search_seconds,
        fit_seconds=time.perf_counter() - began,
        pipeline=fitted,
    )


def _classifier(method: str, grid: Grid, seed: int) -> tuple[Any, Mapping[str, tuple[Any, ...]]]:
    """Returns a classifier and the values of its arguments to try."""
    iterations = {"max_iter": grid.max_iterations}
    if method == "lda":
        return _Lda(), {"shrinkage": grid.lda_shrinkage}
    if method == "logistic":
        return _Logistic(**iterations), {"C": grid.logistic_c}
    if method == "linear_svm":
        svm = _LinearSvm(dual="auto", random_state=seed, **iterations)
        return svm, {"C": grid.linear_svm_c}
    if method == "rbf_svm":
        return _RbfSvm(), {"C": grid.rbf_svm_c, "scale": grid.rbf_svm_gamma}
    if method == "knn":
        return KNeighborsClassifier(), {"n_neighbors": grid.knn_neighbors}
    raise unknown("method", method, METHODS)


def _pca(value: float, whiten: bool) -> Any:
    if value == 0:
        return "passthrough"
    # Exact, in contrast to a randomised solver, and far faster than the SVD of N x F.
    kept = int(value) if value >= 1 else value
    return PCA(kept, whiten=whiten, svd_solver="covariance_eigh")


def _score(pipeline: Pipeline, features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the accuracy and whether the fit converged: another process has no warning to pass on."""
    converged = getattr(pipeline.named_steps["classifier"], "converged_", True)
    return {
        "accuracy": float(np.mean(pipeline.predict(features) == labels)),
        "converged": float(converged),
    }


def _settings(found: Mapping[str, Any], folds: int) -> list[dict[str, Any]]:
    """Returns a row for each setting of a search, in plain numbers."""
    rows = []
    for place, params in enumerate(found["params"]):
        pca = params["pca"]
        rows.append(
            {
                "pca": 0.0 if pca == "passthrough" else float(pca.n_components),
                **{
                    _NAMES.get(name, name): value
                    for name, value in (
                        (name.removeprefix("classifier__"), value)
                        for name, value in params.items()
                        if name != "pca"
                    )
                },
                "accuracy": float(found["mean_test_accuracy"][place]),
                "accuracy_std": float(found["std_test_accuracy"][place]),
                "not_converged": folds - round(folds * found["mean_test_converged"][place]),
            }
        )
    return rows


_NAMES = {"C": "c", "scale": "gamma", "n_neighbors": "neighbors"}


def _float64(features: np.ndarray) -> np.ndarray:
    return np.asarray(features, np.float64)
