"""The fields that single commands read, such as those of `experiments.sweep`; part of the table of all fields."""

from tl_jax.config.field import LARGEST, Field, choice, integer, numbers
from tl_jax.features.pooling import POOLS
from tl_jax.features.saving import FORMATS
from tl_jax.training import metrics

SECTIONS = {
    "compare": "Of `experiments.compare`.",
    "sweep": "Of `experiments.sweep`; an empty tuple stands for the value of the config.",
    "probe": "Of `experiments.probe`: L2 strengths and solver, as Kornblith et al. 2019 (arXiv:1805.08974).",
    "features": "Of `experiments.features` and `experiments.routes`: which features of the network.",
    "routes": "Of `experiments.routes`: scikit-learn's classifiers on features, their grids and the search.",
    "cross_validate": "Of `experiments.cross_validate`.",
    "advise": "Of `experiments.advise`.",
}
# Which commands read them.
COMMAND_SECTIONS = {
    "compare": ("compare",),
    "sweep": ("sweep",),
    "probe": ("probe",),
    "features": ("features", "routes"),
    "routes": ("routes",),
    "cross_validate": ("cross_validate",),
    "advise": ("advise",),
}

FIELDS = (
    # compare
    Field("compare.seeds", (), "of every method", within=f"[0, {LARGEST}]", element=int),
    Field("compare.baseline", "", "the method that others are compared with"),
    Field(
        "compare.methods",
        {},
        'method: tuple of assignments, such as ("optim.learning_rate=0.1",), or a strategy by name',
    ),
    Field(
        "compare.metrics",
        (),
        "more columns of the printed table, of test",
        element=str,
        choices=lambda: metrics.CLASS_AVERAGES,
        changes_numbers=False,
    ),
    # sweep
    numbers("sweep.learning_rate", "[0, inf)", "values of optim.learning_rate"),
    numbers("sweep.weight_decay", "[0, inf)", "values of optim.weight_decay"),
    numbers("sweep.label_smoothing", "[0, 1)", "values of objective.label_smoothing"),
    numbers("sweep.l2_sp", "[0, inf)", "values of objective.l2_sp"),
    Field("sweep.seed", (), "values of seed", within=f"[0, {LARGEST}]", element=int),
    integer(
        "sweep.patience",
        0,
        0,
        LARGEST,
        "evaluations without a new best, then a run stops; 0: never",
    ),
    integer("sweep.width", 0, 0, LARGEST, "runs at once; 0: as many as memory holds"),
    choice(
        "sweep.test",
        "chosen",
        ("chosen", "all"),
        'whose test accuracy is measured: that of the "chosen" combination, or "all"',
    ),
    # probe
    Field("probe.least", 1e-6, "the smallest strength", within="(0, inf)"),
    Field("probe.most", 1e5, "the largest strength", within="(0, inf)"),
    integer("probe.count", 45, 1, 10_000, "strengths, evenly spaced in their logarithm"),
    integer("probe.max_evaluations", 1000, 1, LARGEST, "of the objective, for each strength"),
    Field("probe.tolerance", 1e-4, "of the gradient, where L-BFGS stops", within="(0, inf)"),
    # features
    Field("features.boundary", "", '"stem", "stage1", ..., "pool", ...; empty: the last one'),
    choice(
        "features.pool", "mean", POOLS, "of maps: their mean over height and width, or all of it"
    ),
    choice(
        "features.format", "npz", FORMATS, "of the files: a .npz for each split, or a tfds folder"
    ),
    # routes
    Field(
        "routes.methods",
        ("lda", "logistic", "linear_svm", "rbf_svm", "knn"),
        "the classifiers, in the order of the table",
        element=str,
    ),
    Field(
        "routes.pca",
        (0.0, 0.95),
        "before each classifier: numbers of components (from 1) or shares of the variance (below 1) to try; 0: none",
        within="[0, inf)",
        element=float,
    ),
    Field("routes.whiten", False, "whether the components of PCA get variance 1"),
    Field(
        "routes.lda_shrinkage",
        (0.0, 0.1, 0.5, 0.9),
        "of the covariance of LDA, values to try",
        within="[0, 1]",
        element=float,
    ),
    Field(
        "routes.logistic_c",
        (0.001, 0.01, 0.1, 1.0),
        "inverse L2 strengths of logistic regression to try",
        within="(0, inf)",
        element=float,
    ),
    Field(
        "routes.linear_svm_c",
        (0.0001, 0.001, 0.01, 0.1),
        "C of the linear SVM, values to try",
        within="(0, inf)",
        element=float,
    ),
    Field(
        "routes.rbf_svm_c",
        (1.0, 10.0),
        "C of the RBF SVM, values to try",
        within="(0, inf)",
        element=float,
    ),
    Field(
        "routes.rbf_svm_gamma",
        (0.25, 1.0, 4.0),
        "its gamma, as multiples of 1 / (features x variance)",
        within="(0, inf)",
        element=float,
    ),
    Field(
        "routes.knn_neighbors",
        (1, 5, 20, 50),
        "of k-NN, values to try",
        within=f"[1, {LARGEST}]",
        element=int,
    ),
    integer("routes.folds", 5, 2, 1000, "of the cross-validation that chooses, inside train"),
    integer(
        "routes.search_examples",
        5000,
        0,
        LARGEST,
        "of train, class-balanced, at most, in the search; the refit takes all; 0: all",
    ),
    integer(
        "routes.max_iterations",
        1000,
        1,
        LARGEST,
        "of logistic regression and the linear SVM, at most",
    ),
    integer("routes.jobs", 1, 1, 1024, "processes of the search", changes_numbers=False),
    Field(
        "routes.finetuned",
        "",
        "the folder of a finished run on the same test split, shown beside; empty: none",
    ),
    integer(
        "routes.scatter",
        2000,
        0,
        100_000,
        "test images drawn by PCA and LDA, at most; 0: no such plots",
        changes_numbers=False,
    ),
    # cross_validate
    integer("cross_validate.folds", 5, 2, 1000, "a run each, reported on its own fold of train"),
    # advise
    integer("advise.examples", 2000, 10, 100_000, "training images that are looked at, at most"),
    integer("advise.folds", 5, 2, 100, "each judged by the others"),
)
