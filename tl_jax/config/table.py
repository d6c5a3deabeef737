"""The table of all fields: the one place that says which exist, what they may hold and what they are for."""

from typing import Any

from tl_jax import features, models, objectives, optim, porting
from tl_jax.augment import FILLS
from tl_jax.config.field import LARGEST, Field
from tl_jax.data import order, skipping
from tl_jax.features.pooling import POOLS
from tl_jax.features.saving import FORMATS
from tl_jax.models.batch_norm import NORM_POLICIES
from tl_jax.models.registry import DTYPES
from tl_jax.models.rematerialisation import REMATS
from tl_jax.models.vgg import CLASSIFIERS
from tl_jax.objectives import class_weights
from tl_jax.parallel import placement, sharding
from tl_jax.training import metrics
from tl_jax.training.averaging import AVERAGES

# Far above the training size of every registered network. A larger value is taken for a typo: it would only
# fail to allocate memory after the run folder was made.
LARGEST_IMAGE_SIZE = 4096

SECTIONS = {
    "model": "The network.",
    "init": "The weights that it starts from.",
    "data": "Images and labels.",
    "preprocess": "Where the input is to differ from what the weights were trained with.",
    "augment": "Random changes of the training images, on the device.",
    "freeze": "What is not trained.",
    "objective": "What is minimised: a main loss and terms that are added, each times its weight.",
    "optim": "How the trained parameters move.",
    "average": "Averages of the weights, evaluated beside them.",
    "train": "How long, and what happens when.",
    "cache": "Activations of the frozen prefix, computed once.",
    "parallel": "Devices.",
    "report": "What is written for people.",
    "compare": "Of `experiments.compare`.",
    "sweep": "Of `experiments.sweep`; an empty tuple stands for the value of the config.",
    "probe": "Of `experiments.probe`: L2 strengths and solver, as Kornblith et al. 2019 (arXiv:1805.08974).",
    "features": "Of `experiments.features` and `experiments.routes`: which features of the network.",
    "routes": "Of `experiments.routes`: scikit-learn's classifiers on features, their grids and the search.",
    "cross_validate": "Of `experiments.cross_validate`.",
}
# Sections that some commands alone read, and these commands.
COMMAND_SECTIONS = {
    "compare": ("compare",),
    "sweep": ("sweep",),
    "probe": ("probe",),
    "features": ("features", "routes"),
    "routes": ("routes",),
    "cross_validate": ("cross_validate",),
}


def _integer(name: str, default: int, least: int, most: int, help: str, **more: Any) -> Field:
    return Field(name, default, help, within=f"[{least}, {most}]", **more)


def _pixels(name: str, default: int, help: str) -> Field:
    return _integer(name, default, 0, LARGEST_IMAGE_SIZE, help)


def _numbers(name: str, within: str, help: str) -> Field:
    return Field(name, (), help, within=within, element=float)


def _choice(name: str, default: str, choices: Any, help: str, **more: Any) -> Field:
    listed = choices if callable(choices) else lambda: choices
    return Field(name, default, help, choices=listed, **more)


_FIELDS = (
    _integer("seed", 0, 0, LARGEST, "of initialisation, order of examples and augmentation"),
    Field(
        "phases",
        (),
        "one after the other, each a tuple of assignments to fields of "
        "freeze, optim, train, cache, augment, objective or average; empty: one phase",
        element=tuple,
    ),
    # model
    _choice("model.name", "resnet18", models.list_models, "the architecture", own=True),
    Field("model.stem", "", 'of ResNets: "imagenet" or "cifar"; empty: the model\'s default'),
    _choice(
        "model.classifier",
        "",
        ("", *CLASSIFIERS),
        'of VGG: "hidden" (two hidden layers) or "pooled" (none); empty: hidden',
    ),
    Field(
        "model.dropout",
        -1.0,
        "share of the features dropped before the head or, in VGG, after each hidden layer; -1: the model's own",
        within="[-1, 1)",
    ),
    _choice("model.dtype", "float32", DTYPES, "of the computation; parameters are float32"),
    Field("model.zero_init_residual", False, "of ResNets: whether residual branches start at zero"),
    _choice(
        "model.remat",
        "",
        REMATS,
        'what the backward pass computes again to save memory: nothing, "dots" (all but convolutions) or "blocks"',
    ),
    # init
    Field("init.weights", "", "a registered name, a file or a run folder; empty: random"),
    _choice(
        "init.head", "reset", porting.HEAD_CHOICES, '"reset" for other classes, "keep" for the same'
    ),
    Field(
        "init.reset",
        (),
        "more leaves that start at random: regular expressions over names like stage3/block0/conv1/kernel",
        element=str,
    ),
    Field(
        "init.source",
        (),
        "assignments that describe a run to be trained first, whose weights this one starts from, such as "
        '("data.name=folder:animals", "train.epochs=10")',
        element=str,
    ),
    _choice(
        "init.channel_order",
        "",
        ("", *porting.CHANNEL_ORDERS),
        'of the images that the network of a file takes; empty: "bgr" for files of Keras, else "rgb"',
    ),
    # data
    Field("data.name", "tfds:cifar10", "tfds:NAME, folder:PATH, csv:PATH, npz:PATH or digits"),
    Field("data.data_dir", "", "folder of tfds data sets; empty: the default of tfds"),
    Field(
        "data.cache_dir",
        "~/.cache/tl_jax/decoded",
        "folder of decoded images and archives; empty: none is kept",
        changes_numbers=False,
    ),
    _choice(
        "data.unreadable",
        "stop",
        skipping.UNREADABLE,
        'images that cannot be read: "stop" lists them, "skip" leaves them out, as if they were not there',
    ),
    Field("data.train_split", "train", "in the notation of tfds, such as train[:20%]"),
    Field("data.test_split", "test", "reported on; val stands in where there is no test"),
    Field("data.validation_split", "", "a separate split to choose the best step by"),
    Field(
        "data.validation_fraction",
        0.1,
        "without validation_split: held out of train, class-balanced",
        within="[0, 1)",
    ),
    _integer("data.examples_per_class", 0, 0, LARGEST, "of train, chosen by data.seed; 0: all"),
    _integer(
        "data.folds",
        0,
        0,
        LARGEST,
        "parts of train, one of which is reported on in place of test_split (cross-validation); 0: none",
    ),
    _integer("data.fold", 1, 1, LARGEST, "which of the folds is reported on"),
    _integer(
        "data.seed",
        0,
        0,
        LARGEST,
        "which examples are held out, which few are taken and what the folds are",
    ),
    _integer("data.batch_size", 128, 1, LARGEST, "of training, over all devices"),
    _integer(
        "data.eval_batch_size",
        500,
        1,
        LARGEST,
        "of evaluation, at most; fewer where a split or 32 MiB of pixels a device hold fewer",
        changes_numbers=False,
    ),
    _integer(
        "data.workers",
        0,
        0,
        1024,
        "processes that decode a split larger than memory; 0: threads",
        changes_numbers=False,
    ),
    _choice(
        "data.placement",
        "auto",
        placement.PLACEMENTS,
        'where the decoded train split is stored: "device", "host", or "auto": as fits',
        changes_numbers=False,
    ),
    _choice(
        "data.order",
        order.SHUFFLED,
        order.ORDERS,
        'of the training examples: "shuffled" anew in every epoch, "stored", or "balanced": every batch holds as '
        "many of each class",
    ),
    _pixels(
        "data.image_size",
        0,
        "side of the network's input; 0: as the weights say, else as stored",
    ),
    # preprocess
    Field(
        "preprocess.weights",
        "",
        "the registered name of a file that was downloaded by hand: sets all of this section",
    ),
    _numbers(
        "preprocess.mean", "[0, 1]", "per channel; empty: as the weights say, else CIFAR-10's"
    ),
    _numbers("preprocess.std", "(0, 1]", "per channel; empty: as the weights say, else CIFAR-10's"),
    _choice(
        "preprocess.interpolation", "", ("", "bilinear", "bicubic"), "empty: as the weights say"
    ),
    _pixels(
        "preprocess.resize",
        0,
        "shorter side before the centre crop; 0: as the weights say, in proportion to data.image_size, else that",
    ),
    # augment
    _pixels(
        "augment.crop_padding",
        4,
        "pixels added to each side of the network's input before a random crop back to its size; 0: no crop",
    ),
    Field("augment.flip", True, "whether images are mirrored at random"),
    Field(
        "augment.operations",
        (),
        '"name=strength", applied in order after crop and flip, such as rotation=15 or rand_augment=9; '
        "docs/augmentation.md lists them",
        element=str,
    ),
    _choice(
        "augment.fill",
        "black",
        tuple(FILLS),
        "what lies outside of an image that is shifted or turned; reflect: the image, mirrored, as in Keras",
    ),
    Field(
        "augment.once",
        False,
        "whether an image is changed alike in every epoch, as if train had been augmented before training",
    ),
    Field(
        "augment.mixing",
        (),
        '"name=alpha", mixup or cutmix; of several one is drawn for each update',
        element=str,
    ),
    _integer(
        "augment.repeats",
        1,
        1,
        10_000,
        "how many times in a row each image comes, every time changed anew (repeated augmentation)",
    ),
    # freeze
    Field("freeze.strategy", "none", "none, backbone, up_to:stageK or all_but_bn"),
    Field(
        "freeze.patterns",
        (),
        "more frozen leaves: regular expressions over names like stage1/block0/conv1/kernel",
        element=str,
    ),
    _choice("freeze.batch_norm", "frozen", NORM_POLICIES, "what frozen BatchNorm layers do"),
    # objective
    _choice(
        "objective.name",
        objectives.CROSS_ENTROPY,
        objectives.list_objectives,
        "the main loss; registered by `objectives.register`, or given in Python",
        own=True,
    ),
    Field("objective.weight", 1.0, "of the main loss; 0: the terms below alone", within="[0, inf)"),
    Field("objective.label_smoothing", 0.0, "of cross_entropy", within="[0, 1)"),
    Field(
        "objective.l2",
        (),
        '"pattern=strength", the first match counts, such as "hidden/.*=0.01": strength times the sum of squares is '
        "added to the loss",
        element=str,
    ),
    _choice(
        "objective.class_weighting",
        "",
        ("", *class_weights.WEIGHTINGS),
        'of cross_entropy, from the training images of each class: "balanced" (inverse to their number) or '
        '"effective" (to their effective number); empty: none',
    ),
    Field("objective.effective_beta", 0.999, "of effective weights", within="[0, 1)"),
    _numbers("objective.class_weights", "[0, inf)", "or given, one for each class in their order"),
    Field("objective.l2_sp", 0.0, "pull of the backbone to its start (L2-SP)", within="[0, inf)"),
    Field(
        "objective.delta",
        0.0,
        "distance of feature maps to those of the network at its start (DELTA)",
        within="[0, inf)",
    ),
    Field(
        "objective.delta_boundaries",
        (),
        "whose feature maps; empty: all with height and width",
        element=str,
    ),
    Field(
        "objective.distillation",
        0.0,
        "divergence from the teacher's probabilities",
        within="[0, inf)",
    ),
    Field("objective.teacher", "", "the folder of a finished run"),
    Field("objective.temperature", 4.0, "that softens both, in distillation", within="(0, inf)"),
    # optim
    _choice("optim.name", "sgd", optim.OPTIMIZERS, "the update rule; or given in Python", own=True),
    Field("optim.learning_rate", 0.1, "at its peak", within="[0, inf)"),
    Field("optim.momentum", 0.9, "of sgd", within="[0, 1)"),
    Field("optim.nesterov", False, "whether sgd's momentum is Nesterov's"),
    Field("optim.b1", 0.9, "of adamw", within="[0, 1)"),
    Field("optim.b2", 0.999, "of adamw", within="[0, 1)"),
    Field("optim.eps", 1e-8, "of adamw", within="(0, inf)"),
    Field("optim.weight_decay", 1e-4, "of kernels", within="[0, inf)"),
    Field("optim.decay_bias_and_norm", False, "whether weight decay is for all parameters"),
    Field(
        "optim.clip_norm", 0.0, "global norm of the trainable gradient; 0: off", within="[0, inf)"
    ),
    _choice("optim.schedule", "cosine", optim.SCHEDULES, "of the learning rate"),
    _integer("optim.warmup_steps", 0, 0, LARGEST, "updates over which the rate rises from 0"),
    Field("optim.warmup_epochs", 0.0, "or in epochs", within="[0, inf)"),
    Field(
        "optim.step_epochs",
        (),
        "of the step schedule: when the rate is multiplied by step_decay",
        element=float,
    ),
    Field("optim.step_steps", (), "or in updates", element=int),
    Field(
        "optim.step_decay",
        0.1,
        "factor of the step, exponential and plateau schedules",
        within="(0, 1]",
    ),
    Field(
        "optim.decay_epochs",
        1.0,
        "of exponential: over which the rate is multiplied by step_decay; of plateau: over which the training loss "
        "is averaged",
        within="(0, inf)",
    ),
    _integer(
        "optim.plateau_patience",
        5,
        1,
        LARGEST,
        "of plateau: such means without a new lowest one before the rate is multiplied by step_decay",
    ),
    Field(
        "optim.final_fraction",
        0.0,
        "of the cosine: last rate as a share of the first",
        within="[0, 1]",
    ),
    Field(
        "optim.lr_multipliers",
        (),
        '"pattern=number", the first match counts, such as "head/.*=10"',
        element=str,
    ),
    Field(
        "optim.layerwise_decay",
        1.0,
        "the head learns at 1, the last stage at this, the one below at its square",
        within="(0, 1]",
    ),
    _integer("optim.accumulation", 1, 1, LARGEST, "microbatches in one update"),
    # average
    _choice(
        "average.name",
        "",
        ("", *AVERAGES),
        '"ema" (exponential moving average) or "swa" (mean over the last part of the run); empty: none',
    ),
    Field("average.decay", 0.999, "of ema, at most", within="[0, 1)"),
    Field(
        "average.start",
        0.75,
        "of swa: the share of the run before its first sample",
        within="[0, 1)",
    ),
    _integer("average.every_steps", 0, 0, LARGEST, "of swa: updates between samples; 0: an epoch"),
    # train
    Field("train.epochs", 0.0, "give exactly one of epochs and steps", within="[0, inf)"),
    _integer("train.steps", 0, 0, LARGEST, "updates"),
    Field(
        "train.fit_to_data",
        False,
        "whether batch size (at most data.batch_size), length, warm-up and interval of evaluation, where not given, "
        "are chosen by the number of training images",
    ),
    _integer(
        "train.updates_per_dispatch",
        0,
        0,
        10_000,
        "at most; 0: as many as take about a quarter of a second",
        changes_numbers=False,
    ),
    _integer(
        "train.log_every_steps",
        50,
        1,
        LARGEST,
        "at most; more often in a run of under 1,000 updates",
        changes_numbers=False,
    ),
    Field(
        "train.eval_every_epochs", 1.0, "evaluation on validation; 0: at the end", within="[0, inf)"
    ),
    _integer("train.eval_every_steps", 0, 0, LARGEST, "or in updates"),
    _integer(
        "train.patience",
        0,
        0,
        LARGEST,
        "evaluations without a new best, then the run stops (early stopping); 0: never",
    ),
    _choice(
        "train.eval_statistics",
        "running",
        ("running", "image"),
        'what BatchNorm normalises by in evaluation: "running" statistics, or those of each "image" alone (a network '
        "that is left in training mode and given one image at a time)",
    ),
    _choice(
        "train.select_by",
        "top1_accuracy",
        metrics.SELECTION,
        "the metric on validation that chooses the best step",
    ),
    Field(
        "train.checkpoint_every_seconds",
        60.0,
        "0: not by the clock",
        within="[0, inf)",
        changes_numbers=False,
    ),
    _integer(
        "train.checkpoint_every_steps",
        0,
        0,
        LARGEST,
        "0: not by updates; the end is always saved",
        changes_numbers=False,
    ),
    # cache
    Field(
        "cache.boundary",
        "",
        '"stem", "stage1", ..., "pool", ..., or "auto": the last one up to which all is frozen; empty: no cache',
    ),
    _integer("cache.views", 1, 1, 10_000, "augmented views of each image; 1: the image as it is"),
    _choice(
        "cache.draw",
        "cycle",
        order.DRAWS,
        'which view an epoch sees: "cycle" takes turns, "random" draws one',
    ),
    _integer("cache.view_seed", 0, 0, LARGEST, "of the views' augmentation"),
    _choice("cache.dtype", "float32", features.DTYPES, "of what is stored"),
    _choice(
        "cache.storage",
        "auto",
        placement.STORAGES,
        'where it is read from: "device", "host", "disk", or "auto": as memory allows',
        changes_numbers=False,
    ),
    Field(
        "cache.dir",
        "~/.cache/tl_jax/activations",
        "folder of stored activations; empty: none is kept",
        changes_numbers=False,
    ),
    _integer(
        "cache.verify",
        0,
        0,
        LARGEST,
        "updates trained both ways, the largest difference printed; 0: none",
        changes_numbers=False,
    ),
    # parallel
    _choice("parallel.mode", "jit", sharding.MODES, "how a step is spread over devices"),
    _integer("parallel.devices", 0, 0, LARGEST, "0: all"),
    # report
    Field("report.html", True, "whether report.html is written", changes_numbers=False),
    Field(
        "report.tensorboard",
        True,
        "whether events of TensorBoard are written",
        changes_numbers=False,
    ),
    _integer(
        "report.mistakes",
        25,
        0,
        10_000,
        "pictures of the most confident ones",
        changes_numbers=False,
    ),
    _integer(
        "report.scatter",
        0,
        0,
        100_000,
        "test images drawn by PCA and LDA of their features, at most; 0: no such plots",
        changes_numbers=False,
    ),
    # compare
    Field("compare.seeds", (), "of every method", within=f"[0, {LARGEST}]", element=int),
    Field("compare.baseline", "", "the method that others are compared with"),
    Field(
        "compare.methods", {}, 'method: tuple of assignments, such as ("optim.learning_rate=0.1",)'
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
    _numbers("sweep.learning_rate", "[0, inf)", "values of optim.learning_rate"),
    _numbers("sweep.weight_decay", "[0, inf)", "values of optim.weight_decay"),
    _numbers("sweep.label_smoothing", "[0, 1)", "values of objective.label_smoothing"),
    _numbers("sweep.l2_sp", "[0, inf)", "values of objective.l2_sp"),
    Field("sweep.seed", (), "values of seed", within=f"[0, {LARGEST}]", element=int),
    _integer(
        "sweep.patience",
        0,
        0,
        LARGEST,
        "evaluations without a new best, then a run stops; 0: never",
    ),
    _integer("sweep.width", 0, 0, LARGEST, "runs at once; 0: as many as memory holds"),
    _choice(
        "sweep.test",
        "chosen",
        ("chosen", "all"),
        'whose test accuracy is measured: that of the "chosen" combination, or "all"',
    ),
    # probe
    Field("probe.least", 1e-6, "the smallest strength", within="(0, inf)"),
    Field("probe.most", 1e5, "the largest strength", within="(0, inf)"),
    _integer("probe.count", 45, 1, 10_000, "strengths, evenly spaced in their logarithm"),
    _integer("probe.max_evaluations", 1000, 1, LARGEST, "of the objective, for each strength"),
    Field("probe.tolerance", 1e-4, "of the gradient, where L-BFGS stops", within="(0, inf)"),
    # features
    Field("features.boundary", "", '"stem", "stage1", ..., "pool", ...; empty: the last one'),
    _choice(
        "features.pool", "mean", POOLS, "of maps: their mean over height and width, or all of it"
    ),
    _choice(
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
    _integer("routes.folds", 5, 2, 1000, "of the cross-validation that chooses, inside train"),
    _integer(
        "routes.search_examples",
        5000,
        0,
        LARGEST,
        "of train, class-balanced, at most, in the search; the refit takes all; 0: all",
    ),
    _integer(
        "routes.max_iterations",
        1000,
        1,
        LARGEST,
        "of logistic regression and the linear SVM, at most",
    ),
    _integer("routes.jobs", 1, 1, 1024, "processes of the search", changes_numbers=False),
    Field(
        "routes.finetuned",
        "",
        "the folder of a finished run on the same test split, shown beside; empty: none",
    ),
    _integer(
        "routes.scatter",
        2000,
        0,
        100_000,
        "test images drawn by PCA and LDA, at most; 0: no such plots",
        changes_numbers=False,
    ),
    # cross_validate
    _integer("cross_validate.folds", 5, 2, 1000, "a run each, reported on its own fold of train"),
)
# Fields that had another name in earlier versions, whose run folders go on.
RENAMED = {
    "optim.l2_sp": "objective.l2_sp",
    "optim.label_smoothing": "objective.label_smoothing",
}
FIELDS: dict[str, Field] = {field.name: field for field in _FIELDS}
