"""The table of all fields: the one place that says which exist, what they may hold and what they are for.

The fields of what the network sees are in `input_fields`, those that single commands read in `command_fields`, all
others here.
"""

from tl_jax import features, models, objectives, optim, porting, protocols
from tl_jax.compilation import PRECISIONS
from tl_jax.config import command_fields, input_fields
from tl_jax.config.field import LARGEST, Field, choice, integer, numbers
from tl_jax.data import order
from tl_jax.models.batch_norm import NORM_POLICIES
from tl_jax.models.registry import DTYPES
from tl_jax.models.rematerialisation import REMATS
from tl_jax.models.vgg import CLASSIFIERS
from tl_jax.objectives import class_weights, relationship
from tl_jax.parallel import placement, sharding
from tl_jax.training import metrics, solvers, soups
from tl_jax.training.averaging import AVERAGES

# Of every run; those that single commands read are in `command_fields`.
_SECTIONS = {
    "model": "The network.",
    "init": "The weights that it starts from.",
    **input_fields.SECTIONS,
    "freeze": "What is not trained.",
    "objective": "What is minimised: a main loss and terms that are added, each times its weight.",
    "optim": "How the trained parameters move.",
    "solver": "What finds the head in place of updates, from the features of all training images at once.",
    "soup": "Runs that are trained first, whose weights are averaged in place of updates.",
    "average": "Averages of the weights, evaluated beside them.",
    "train": "How long, and what happens when.",
    "cache": "Activations of the frozen prefix, computed once.",
    "parallel": "Devices.",
    "report": "What is written for people.",
}

_FIELDS = (
    integer("seed", 0, 0, LARGEST, "of initialisation, order of examples and augmentation"),
    Field(
        "phases",
        (),
        "one after the other, each a tuple of assignments to fields of "
        "freeze, optim, train, cache, augment, objective or average; empty: one phase",
        element=tuple,
    ),
    # model
    choice("model.name", "resnet18", models.list_models, "the architecture", own=True),
    Field("model.stem", "", 'of ResNets: "imagenet" or "cifar"; empty: the model\'s default'),
    choice(
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
    choice("model.dtype", "float32", DTYPES, "of the computation; parameters are float32"),
    choice(
        "model.precision",
        "default",
        PRECISIONS,
        'of products of float32 numbers: "default" (that of JAX; TF32 on new GPUs, bfloat16 on TPUs), "high" (more '
        'on TPUs) or "highest" (float32); CPUs know no other than float32',
    ),
    integer(
        "model.batch_norm_rows",
        0,
        0,
        LARGEST,
        "examples over which BatchNorm takes its statistics in training: each group of so many consecutive rows of "
        "the global batch by itself (batch_size / devices: local statistics); 0: all rows",
    ),
    Field(
        "model.stoch_norm",
        0.0,
        "probability with which trained BatchNorm normalises a channel by running statistics in training (StochNorm)",
        within="[0, 1)",
    ),
    choice(
        "model.adapters",
        "",
        ("", *models.ADAPTERS),
        '"residual" (1x1 convolutions beside others) or "low_rank" (changes of kernels); empty: none',
    ),
    integer("model.adapter_rank", 4, 1, LARGEST, "of low_rank adapters"),
    Field("model.zero_init_residual", False, "of ResNets: whether residual branches start at zero"),
    choice(
        "model.remat",
        "",
        REMATS,
        'what the backward pass computes again to save memory: nothing, "dots" (all but convolutions) or "blocks"',
    ),
    # init
    Field("init.weights", "", "a registered name, a file or a run folder; empty: random"),
    choice(
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
    choice(
        "init.batch_stats",
        "weights",
        ("weights", "target"),
        'running statistics of BatchNorm at the start: of the "weights", or of the training images ("target", AdaBN)',
    ),
    choice(
        "init.channel_order",
        "",
        ("", *porting.CHANNEL_ORDERS),
        'of the images that the network of a file takes; empty: "bgr" for files of Keras, else "rgb"',
    ),
    *input_fields.FIELDS,
    # freeze
    Field(
        "freeze.strategy",
        "none",
        "none, backbone, up_to:GROUP, top:K, only:GROUP, all_but_bn, all_but_bias or all_but_adapters",
    ),
    Field(
        "freeze.patterns",
        (),
        "more frozen leaves: regular expressions over names like stage1/block0/conv1/kernel",
        element=str,
    ),
    choice("freeze.batch_norm", "frozen", NORM_POLICIES, "what frozen BatchNorm layers do"),
    # objective
    choice(
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
    choice(
        "objective.class_weighting",
        "",
        ("", *class_weights.WEIGHTINGS),
        'of cross_entropy, from the training images of each class: "balanced" (inverse to their number) or '
        '"effective" (to their effective number); empty: none',
    ),
    Field("objective.effective_beta", 0.999, "of effective weights", within="[0, 1)"),
    numbers("objective.class_weights", "[0, inf)", "or given, one for each class in their order"),
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
        "objective.delta_attention",
        False,
        "whether channels count by how much the source misses them on training images, as DELTA has it; else alike",
    ),
    Field(
        "objective.bss",
        0.0,
        "sum of the squares of the smallest singular values of the features before the head (BSS)",
        within="[0, inf)",
    ),
    integer("objective.bss_k", 1, 1, LARGEST, "how many singular values"),
    Field(
        "objective.distillation",
        0.0,
        "divergence from the teacher's probabilities",
        within="[0, inf)",
    ),
    Field("objective.teacher", "", "the folder of a finished run"),
    Field(
        "objective.teacher_source",
        (),
        "assignments that describe a run to be trained first as the teacher, such as "
        '("freeze.strategy=none",): this run without its objective and phases (self-distillation), with these',
        element=str,
    ),
    Field("objective.temperature", 4.0, "that softens both, in distillation", within="(0, inf)"),
    Field(
        "objective.co_tuning",
        0.0,
        "cross-entropy of the head of the weights, which is kept and trained beside the new one, with the classes of "
        "the source that go with each label (Co-Tuning)",
        within="[0, inf)",
    ),
    choice(
        "objective.relationship",
        relationship.REVERSE,
        relationship.METHODS,
        'how p(class of the source | label) is learned from the training images: "reverse" (logistic regression and '
        'Bayes\' rule) or "direct" (mean probabilities)',
    ),
    Field(
        "objective.source_temperature",
        1.0,
        "by which the logits of the source network are divided for it, so that its probabilities are calibrated",
        within="(0, inf)",
    ),
    Field(
        "objective.lwf",
        0.0,
        "cross-entropy of the head of the weights, trained beside the new one, with what the network at its start "
        "says (Learning without Forgetting)",
        within="[0, inf)",
    ),
    Field("objective.lwf_temperature", 2.0, "that softens both, in lwf", within="(0, inf)"),
    # optim
    choice("optim.name", "sgd", optim.OPTIMIZERS, "the update rule; or given in Python", own=True),
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
    choice("optim.schedule", "cosine", optim.SCHEDULES, "of the learning rate"),
    integer("optim.warmup_steps", 0, 0, LARGEST, "updates over which the rate rises from 0"),
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
    integer(
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
    Field(
        "optim.auto_rgn",
        False,
        "whether the rate of each layer is multiplied by its relative gradient norm, anew in every epoch",
    ),
    integer("optim.accumulation", 1, 1, LARGEST, "microbatches in one update"),
    Field(
        "optim.sam_rho",
        0.0,
        "radius of sharpness-aware minimisation (SAM), which takes two gradients an update; 0: off",
        within="[0, inf)",
    ),
    # solver
    choice(
        "solver.name",
        "",
        ("", *solvers.SOLVERS),
        '"lbfgs" (logistic regression), "ridge" (ridge regression on one-hot targets) or "nearest_mean" (the nearest '
        "mean features of a class); empty: updates",
    ),
    numbers(
        "solver.strengths",
        "[0, inf)",
        "L2 strengths to try, chosen by train.select_by on validation; empty: 45 from 1e-6 to 1e5",
    ),
    # soup
    choice(
        "soup.name",
        "",
        ("", *soups.SOUPS),
        '"uniform" (the mean of all members) or "greedy" (of those that help on validation); empty: none',
    ),
    Field(
        "soup.members",
        (),
        "each a tuple of assignments that tell it from the run: to fields of freeze, optim, train, cache, augment, "
        "objective or average, to phases or data.batch_size",
        element=tuple,
    ),
    # average
    choice(
        "average.name",
        "",
        ("", *AVERAGES),
        '"ema" (exponential moving average), "swa" (mean over the last part of the run) or "wise_ft" (mean with the '
        "weights at the start); empty: none",
    ),
    Field("average.decay", 0.999, "of ema, at most", within="[0, 1)"),
    Field(
        "average.start",
        0.75,
        "of swa: the share of the run before its first sample",
        within="[0, 1)",
    ),
    Field("average.alpha", 0.5, "of wise_ft: the weight of the live weights", within="[0, 1]"),
    integer("average.every_steps", 0, 0, LARGEST, "of swa: updates between samples; 0: an epoch"),
    choice(
        "average.choose",
        "better",
        ("better", "averaged"),
        "what an evaluation on validation puts forward: the better of the live and the averaged weights, or the "
        "averaged ones in any case",
    ),
    # train
    Field("train.epochs", 0.0, "give exactly one of epochs and steps", within="[0, inf)"),
    integer("train.steps", 0, 0, LARGEST, "updates"),
    Field(
        "train.fit_to_data",
        False,
        "whether batch size (at most data.batch_size), length, warm-up and interval of evaluation, where not given, "
        "are chosen by the number of training images",
    ),
    choice(
        "train.rule",
        "",
        ("", "bit"),
        "by which fit_to_data chooses: ours (empty), or BiT-HyperRule (bit), also schedule, rate and mixup",
    ),
    integer(
        "train.updates_per_dispatch",
        0,
        0,
        10_000,
        "at most; 0: as many as take about a quarter of a second",
        changes_numbers=False,
    ),
    integer(
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
    integer("train.eval_every_steps", 0, 0, LARGEST, "or in updates"),
    integer(
        "train.patience",
        0,
        0,
        LARGEST,
        "evaluations without a new best, then the run stops (early stopping); 0: never",
    ),
    choice(
        "train.eval_statistics",
        "running",
        ("running", "image"),
        'what BatchNorm normalises by in evaluation: "running" statistics, or those of each "image" alone (a network '
        "that is left in training mode and given one image at a time)",
    ),
    choice(
        "train.select_by",
        "top1_accuracy",
        metrics.SELECTION,
        "the metric on validation that chooses the best step, or the strength of a solver",
    ),
    Field(
        "train.deterministic",
        False,
        "whether a GPU must give the same bits again (slower); CPUs and TPUs do so by themselves",
    ),
    Field(
        "train.checkpoint_every_seconds",
        60.0,
        "0: not by the clock",
        within="[0, inf)",
        changes_numbers=False,
    ),
    integer(
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
    integer("cache.views", 1, 1, 10_000, "augmented views of each image; 1: the image as it is"),
    choice(
        "cache.draw",
        "cycle",
        order.DRAWS,
        'which view an epoch sees: "cycle" takes turns, "random" draws one',
    ),
    integer("cache.view_seed", 0, 0, LARGEST, "of the views' augmentation"),
    choice(
        "cache.dtype",
        "float32",
        features.DTYPES,
        "of what is stored; features that are computed in bfloat16 always are stored so",
    ),
    choice(
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
    Field(
        "cache.whole",
        False,
        "whether the activations of all images of a stored split are computed, not only of those that the run reads: "
        "runs with other seeds find them",
        changes_numbers=False,
    ),
    integer(
        "cache.verify",
        0,
        0,
        LARGEST,
        "updates trained both ways, the largest difference printed; 0: none",
        changes_numbers=False,
    ),
    # parallel
    choice("parallel.mode", "jit", sharding.MODES, "how a step is spread over devices"),
    integer("parallel.devices", 0, 0, LARGEST, "0: all"),
    # report
    choice(
        "report.protocol",
        "",
        lambda: ("", *protocols.list_protocols()),
        "a published experiment, with whose terms the run is compared (docs/protocols.md); empty: none",
        changes_numbers=False,
    ),
    Field("report.html", True, "whether report.html is written", changes_numbers=False),
    Field(
        "report.tensorboard",
        True,
        "whether events of TensorBoard are written",
        changes_numbers=False,
    ),
    integer(
        "report.mistakes",
        25,
        0,
        10_000,
        "pictures of the most confident ones",
        changes_numbers=False,
    ),
    integer(
        "report.scatter",
        0,
        0,
        100_000,
        "test images drawn by PCA and LDA of their features, at most; 0: no such plots",
        changes_numbers=False,
    ),
)
# Fields that had another name in earlier versions, whose run folders go on.
RENAMED = {
    "optim.l2_sp": "objective.l2_sp",
    "optim.label_smoothing": "objective.label_smoothing",
}
SECTIONS = _SECTIONS | command_fields.SECTIONS
COMMAND_SECTIONS = command_fields.COMMAND_SECTIONS
FIELDS: dict[str, Field] = {field.name: field for field in (*_FIELDS, *command_fields.FIELDS)}
