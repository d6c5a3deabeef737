"""Every field a run has, with its default. The other configs start here and change what they need.

Any field can be set from the command line: `--config.optim.learning_rate=0.01`. A config file that sets a field
which is not here is refused, with the line and the nearest field.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the defaults: nothing pretrained, nothing frozen, CIFAR-10 from tfds."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # initialisation, order of examples, augmentation

    config.model = ml_collections.ConfigDict()
    config.model.name = "resnet18"
    config.model.stem = ""  # "imagenet" or "cifar"; empty: the model's own default
    config.model.dtype = "float32"  # of the computation: "float32" or "bfloat16"
    config.model.zero_init_residual = False
    # What the backward pass computes again instead of keeping it: "", "dots" (all but convolutions) or "blocks".
    config.model.remat = ""

    config.init = ml_collections.ConfigDict()
    config.init.weights = ""  # a registered name, a file, a run folder; empty: random
    config.init.head = "reset"  # "reset" for other classes, "keep" for the same ones

    config.data = ml_collections.ConfigDict()
    config.data.name = "tfds:cifar10"  # tfds:NAME, folder:PATH, npz:PATH or digits
    config.data.data_dir = ""  # of tfds; empty: its own default
    config.data.cache_dir = "~/.cache/tl_jax/decoded"  # of decoded images; empty: none
    config.data.train_split = "train"  # tfds notation, such as train[:20%]
    config.data.test_split = "test"  # reported on; val stands in where there is none
    config.data.validation_split = ""  # a separate split to choose the best step by; or, without:
    config.data.validation_fraction = 0.1  # held out of train, class-balanced, from data.seed
    config.data.examples_per_class = 0  # few-shot: this many of train; 0: all
    config.data.seed = 0  # which examples are held out, which few are taken
    config.data.batch_size = 128  # global
    config.data.eval_batch_size = (
        500  # at most; fewer where a split or 32 MiB of pixels a device hold fewer
    )
    config.data.workers = 0  # processes that decode a split larger than memory; 0: threads
    config.data.placement = "auto"  # of the decoded train split: "device", "host"; "auto": as fits
    # Side of the network's input in pixels; 0: as the weights say, else as stored. Photos are shrunk to what
    # the network sees while they are decoded.
    config.data.image_size = 0

    config.preprocess = ml_collections.ConfigDict()
    config.preprocess.weights = (
        ""  # the registered name of a file that was downloaded by hand: sets all below
    )
    config.preprocess.mean = ()  # three numbers in [0, 1]; empty: as the weights say, else CIFAR-10's
    config.preprocess.std = ()
    config.preprocess.interpolation = ""  # "bilinear" or "bicubic"; empty: as the weights say
    # Shorter side before the centre crop; 0: as the weights say, in proportion to image_size, else image_size.
    config.preprocess.resize = 0

    config.augment = ml_collections.ConfigDict()
    # Of the network's input, before a random crop back to its size, in its pixels (after resize and centre
    # crop); 0: no random crop. 4 is a shift by up to an eighth of 32 pixels, or a 56th of 224.
    config.augment.crop_padding = 4
    config.augment.flip = True

    config.freeze = ml_collections.ConfigDict()
    config.freeze.strategy = "none"  # none, backbone, up_to:stageK, all_but_bn
    config.freeze.patterns = ()  # more frozen leaves: regular expressions over names like stage1/block0/conv1/kernel
    config.freeze.batch_norm = (
        "frozen"  # of frozen BatchNorm: frozen, batch_stats_no_update, update
    )

    config.optim = ml_collections.ConfigDict()
    config.optim.name = "sgd"  # sgd or adamw
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.9
    config.optim.nesterov = False
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    config.optim.eps = 1e-8
    config.optim.weight_decay = 1e-4
    config.optim.l2_sp = 0.0  # pull of the backbone towards where it started (L2-SP)
    config.optim.decay_bias_and_norm = False
    config.optim.clip_norm = 0.0  # global norm of the trainable gradient; 0: off
    config.optim.schedule = "cosine"  # constant, step or cosine
    config.optim.warmup_steps = 0
    config.optim.warmup_epochs = 0.0
    config.optim.step_epochs = ()  # of the step schedule: where the rate is multiplied by step_decay
    config.optim.step_steps = ()  # or in updates
    config.optim.step_decay = 0.1
    config.optim.final_fraction = 0.0  # of the cosine: last rate as a share of the first
    config.optim.lr_multipliers = ()  # "pattern=number", first match wins, such as "head/.*=10"
    config.optim.layerwise_decay = (
        1.0  # the head learns at 1, the last stage at this, the one below at its square
    )
    config.optim.label_smoothing = 0.0
    config.optim.accumulation = 1  # microbatches in one update

    config.train = ml_collections.ConfigDict()
    config.train.epochs = 0.0  # exactly one of epochs and steps
    config.train.steps = 0
    config.train.updates_per_dispatch = 0  # at most; 0: as many as take about a quarter of a second
    config.train.log_every_steps = 50  # at most; more often in a run of under 1,000
    config.train.eval_every_epochs = 1.0  # 0: only at the end
    config.train.eval_every_steps = 0
    config.train.checkpoint_every_seconds = 60.0  # 0: not by the clock
    config.train.checkpoint_every_steps = 0  # 0: not by updates; the end always saves

    config.cache = ml_collections.ConfigDict()  # activations of the frozen prefix, computed once
    # "stem", "stage1", ..., "pool", or "auto": the last one up to which all is frozen; empty: no cache.
    config.cache.boundary = ""
    config.cache.views = 1  # augmented views of each image; 1: the image as it is
    config.cache.draw = "cycle"  # which view an epoch sees: "cycle" takes turns, "random" draws one
    config.cache.view_seed = 0  # of the views' augmentation
    config.cache.dtype = "float32"  # stored as "float32" or "bfloat16"
    config.cache.storage = "auto"  # read from "device", "host" or "disk"; "auto": as memory allows
    config.cache.dir = "~/.cache/tl_jax/activations"
    config.cache.verify = 0  # updates trained both ways, the largest difference printed; 0: none

    config.parallel = ml_collections.ConfigDict()
    config.parallel.mode = "jit"  # jit or pmap
    config.parallel.devices = 0  # 0: all

    config.report = ml_collections.ConfigDict()
    config.report.html = True
    config.report.tensorboard = True
    config.report.mistakes = 25  # pictures of the most confident ones

    # Of a field that does not exist the error names the line. Sections of a command's own, such as
    # `compare`, may be added.
    for section in config.values():
        if isinstance(section, ml_collections.ConfigDict):
            section.lock()
    return config
