"""The mutants. Old texts are short, so that few changes elsewhere touch them; when one does, amend it here.

`SURVIVORS` were not noticed by the suite when such bugs were first planted; `OTHERS` cover the rest of the library.
"""

from tests.mutants.planting import Mutant


def field(*cases: str) -> tuple[str, ...]:
    """Returns the tests of these cases of the table of fields, such as "optim.nesterov=True"."""
    test = "tests/wiring/test_fields.py::test_a_field_changes_what_it_says_and_nothing_else"
    return tuple(f"{test}[{case}]" for case in cases)


ASSEMBLY = "experiments/assembly.py"
PREPARATION = "experiments/preparation.py"
MEMBERS = "experiments/members.py"
PROBE = "experiments/probe.py"
ORDER = "tl_jax/data/order.py"
SELECTION = "tl_jax/data/selection.py"
LOADING = "tl_jax/data/loading.py"
TRANSFORMS = "tl_jax/optim/transforms.py"
SCHEDULES = "tl_jax/optim/schedules.py"
BATCH_NORM = "tl_jax/models/batch_norm.py"
BLOCKS = "tl_jax/models/blocks.py"
STEPS = "tl_jax/steps.py"
METRICS = "tl_jax/metrics.py"

TEST_ORDER = ("tests/properties/test_order.py",)
TEST_SELECTION = ("tests/properties/test_selection.py",)
TEST_SWEEP = ("tests/wiring/test_sweep.py",)
TEST_PROBE = ("tests/wiring/test_probe.py",)
TEST_RESULTS = ("tests/wiring/test_results.py",)
TEST_TRANSFORMS = ("tests/optim/test_transforms.py",)
TEST_SCHEDULES = ("tests/optim/test_schedules.py", "tests/properties/test_schedules.py")
TEST_PORT = ("tests/properties/test_port.py", "tests/porting/test_port.py")
TEST_FREEZING = ("tests/test_freezing.py",)

SURVIVORS = [
    Mutant(
        "assembly-nesterov-not-passed",
        ASSEMBLY,
        "nesterov=section.nesterov,",
        "nesterov=False,",
        field("optim.nesterov=True"),
    ),
    Mutant(
        "assembly-clip-norm-not-passed",
        ASSEMBLY,
        "clip_norm=section.clip_norm,",
        "clip_norm=0.0,",
        field("optim.clip_norm=1.0"),
    ),
    Mutant(
        "assembly-decay-bias-and-norm-not-passed",
        ASSEMBLY,
        "decay_bias_and_norm=section.decay_bias_and_norm,",
        "decay_bias_and_norm=False,",
        field("optim.decay_bias_and_norm=True"),
    ),
    Mutant(
        "assembly-layerwise-decay-not-passed",
        ASSEMBLY,
        "rates, config.optim.layerwise_decay)",
        "rates, 1.0)",
        field("optim.layerwise_decay=0.5"),
    ),
    Mutant(
        "assembly-warmup-epochs-not-passed",
        ASSEMBLY,
        "in_steps(config, section.warmup_epochs, num_examples)",
        "0",
        field("optim.warmup_epochs=1.0"),
    ),
    Mutant(
        "assembly-final-fraction-not-passed",
        ASSEMBLY,
        "final_fraction=section.final_fraction,",
        "final_fraction=0.0,",
        field("optim.final_fraction=0.1"),
    ),
    Mutant(
        "run-label-smoothing-ignored",
        PREPARATION,
        "label_smoothing=config.optim.label_smoothing,",
        "label_smoothing=0.0,",
        field("optim.label_smoothing=0.1"),
    ),
    Mutant(
        "run-batch-norm-policy-ignored",
        PREPARATION,
        "norm_policy=config.freeze.batch_norm,",
        'norm_policy="frozen",',
        field("freeze.batch_norm=update"),
    ),
    Mutant(
        "run-augmentation-off",
        PREPARATION,
        "transform = preprocessing.make_train_transform(setup.preprocessing)",
        "as_is = preprocessing.make_eval_transform(setup.preprocessing)\n"
        "        transform = lambda key, positions, images: as_is(images)",
        field("augment.flip=False", "augment.crop_padding=2"),
    ),
    Mutant(
        "run-augmentation-seed-fixed",
        PREPARATION,
        "seed=jnp.int32(self.config.seed)",
        "seed=jnp.int32(0)",
        field("seed=1"),
    ),
    Mutant(
        "run-same-head-for-every-seed",
        "experiments/weights.py",
        ", key=key)",
        ")",
        field("seed=1-1"),
    ),
    Mutant(
        "sweep-label-smoothing-ignored",
        MEMBERS,
        'label_smoothing=(grid.fixed | scalars)["label_smoothing"],',
        "label_smoothing=setup.config.optim.label_smoothing,",
        TEST_SWEEP,
    ),
    Mutant(
        "sweep-l2-sp-ignored",
        MEMBERS,
        'l2_sp=values["l2_sp"],',
        "l2_sp=setup.config.optim.l2_sp,",
        TEST_SWEEP,
    ),
    Mutant(
        "sweep-labels-of-views-tiled",
        MEMBERS,
        "np.repeat(split.labels, setup.order.views)",
        "np.tile(split.labels, setup.order.views)",
        TEST_SWEEP,
    ),
    Mutant(
        "sweep-every-member-has-the-chosen-test-accuracy",
        "experiments/sweep.py",
        '["test_top1"] = measured["top1_accuracy"]',
        '["test_top1"] = test["top1_accuracy"]',
        TEST_SWEEP,
    ),
    Mutant(
        "probe-strength-chosen-on-test",
        PROBE,
        'logistic.choose(top1["validation"], strengths)',
        "logistic.choose(\n"
        '        logistic.top1_accuracy(found.kernel, found.bias, features["test"], labels["test"]),\n'
        "        strengths,\n"
        "    )",
        TEST_PROBE,
    ),
    Mutant(
        "probe-final-fit-on-train-only",
        PROBE,
        "final = logistic.fit(*both, classes",
        'final = logistic.fit(features["train"], labels["train"], classes',
        TEST_PROBE,
    ),
    Mutant(
        "order-always-the-first-view",
        ORDER,
        "return examples * self.views + chosen",
        "return examples * self.views",
        TEST_ORDER,
    ),
    Mutant(
        "order-same-random-view-at-every-step",
        ORDER,
        "(self.seed, step, _VIEWS)",
        "(self.seed, 0, _VIEWS)",
        TEST_ORDER,
    ),
    Mutant(
        "keys-without-batch-norm-statistics",
        "tl_jax/activations/keys.py",
        'trees.flatten({"params": params, "batch_stats": batch_stats})',
        'trees.flatten({"params": params})',
        ("tests/properties/test_keys.py",),
    ),
    Mutant(
        "comparison-differences-unpaired",
        "tl_jax/statistics.py",
        "pairs = {seed: values[seed] - baseline[seed] for seed in values if seed in baseline}",
        "pairs = dict(\n"
        "        enumerate(\n"
        "            a - b\n"
        "            for a, b in zip(\n"
        "                sorted(values.values()), sorted(baseline.values()), strict=False\n"
        "            )\n"
        "        )\n"
        "    )",
        ("tests/properties/test_comparison.py", "tests/test_statistics.py"),
    ),
    Mutant(
        "compare-validation-reported-as-test",
        "experiments/compare.py",
        'row = {"top1_accuracy": test["top1_accuracy"]',
        'row = {"top1_accuracy": (validation or test)["top1_accuracy"]',
        (*TEST_RESULTS, "tests/experiments/test_compare.py"),
    ),
    Mutant(
        "packaged-mean-from-std",
        "tl_jax/models/pretrained.py",
        "mean=TINY_IMAGENET_MEAN,",
        "mean=TINY_IMAGENET_STD,",
        ("tests/porting/test_packaged.py",),
    ),
    Mutant(
        "naming-square-dense-kernel-not-transposed",
        "tl_jax/porting/naming.py",
        "return array.transpose(axes) if axes and array.ndim == len(axes) else array",
        "square = array.ndim == 2 and array.shape[0] == array.shape[1]\n"
        "    return array.transpose(axes) if array.ndim == len(axes) and axes and not square else array",
        TEST_PORT,
    ),
    Mutant(
        "digits-train-overlaps-test",
        "tl_jax/data/arrays.py",
        "chosen = np.setdiff1d(np.arange(len(labels)), chosen)",
        "chosen = np.arange(len(labels) - len(chosen))",
        ("tests/properties/test_digits.py",),
    ),
    Mutant(
        "freezing-up-to-leaves-the-last-group-out",
        "tl_jax/freezing.py",
        "order.index(_group(name)) <= order.index(last)",
        "order.index(_group(name)) < order.index(last)",
        TEST_FREEZING,
    ),
]

OTHERS = [
    # Where a config is wired to the library.
    Mutant(
        "assembly-data-seed-is-the-run-seed",
        ASSEMBLY,
        "seed=section.seed,",
        "seed=config.seed,",
        field("data.seed=1", "seed=1"),
    ),
    Mutant(
        "assembly-epochs-of-the-whole-data-set",
        ASSEMBLY,
        "return round(epochs * num_examples / config.data.batch_size)",
        "return round(epochs * num_examples // config.data.batch_size)",
        ("tests/wiring/test_lengths.py",),
    ),
    Mutant(
        "assembly-evaluates-without-validation",
        ASSEMBLY,
        'eval_every=eval_every if "validation" in splits else 0,',
        "eval_every=eval_every,",
        field("data.validation_split=test[50%:]"),
    ),
    Mutant(
        "assembly-boundary-ignores-augmentation",
        ASSEMBLY,
        "if augments and section.views == 1:",
        "if False:",
        ("tests/wiring/test_cache.py",),
    ),
    Mutant(
        "run-accumulation-ignored",
        PREPARATION,
        "accumulation=config.optim.accumulation,",
        "",
        field("optim.accumulation=2"),
    ),
    Mutant(
        "run-order-of-another-seed",
        PREPARATION,
        "examples = order.Order(\n        config.seed,",
        "examples = order.Order(\n        config.data.seed,",
        field("seed=1", "data.seed=1"),
    ),
    Mutant(
        "run-pmap-without-its-axis",
        "tl_jax/sharding.py",
        "make_step(axis_name=AXIS)",
        "make_step(axis_name=None)",
        ("tests/test_sharding.py",),
    ),
    Mutant(
        "weights-flip-always",
        "experiments/weights.py",
        "flip=config.augment.flip,",
        "flip=True,",
        field("augment.flip=False"),
    ),
    Mutant(
        "weights-resize-not-in-proportion",
        "experiments/weights.py",
        'theirs = round(theirs * used["image_size"] / own["image_size"])',
        "pass",
        ("tests/wiring/test_preprocessing.py",),
    ),
    Mutant(
        "training-test-chooses-the-step",
        "experiments/training.py",
        'state.batch_stats, setup.inputs["validation"])',
        'state.batch_stats, setup.inputs["test"])',
        TEST_RESULTS,
    ),
    Mutant(
        "training-latest-reported-as-best",
        "experiments/training.py",
        "state = checkpointer.restore_best(template)",
        "state = checkpointer.restore_latest(template)",
        TEST_RESULTS,
    ),
    Mutant(
        "training-validation-measured-as-test",
        "experiments/training.py",
        "state.params, state.batch_stats, setup.inputs[name]",
        'state.params, state.batch_stats, setup.inputs["test"]',
        TEST_RESULTS,
    ),
    Mutant(
        "dispatch-streams-from-the-beginning",
        "experiments/dispatch.py",
        "host = stream.batches(split, order, start, stop",
        "host = stream.batches(split, order, 0, stop",
        ("tests/wiring/test_dispatch.py",),
    ),
    Mutant(
        "dispatch-rows-ahead-of-another-update",
        "experiments/dispatch.py",
        "thread.submit(rows, first + count, following)",
        "thread.submit(rows, first, following)",
        ("tests/wiring/test_dispatch.py",),
    ),
    Mutant(
        "dispatch-the-same-batch-in-a-dispatch",
        "experiments/dispatch.py",
        "order.rows(first + i) for i",
        "order.rows(first) for i",
        ("tests/wiring/test_dispatch.py",),
    ),
    Mutant(
        "cache-validation-from-augmented-views",
        "experiments/activation_cache.py",
        'views if role == "train" else 1',
        "views",
        ("tests/wiring/test_cache.py",),
    ),
    Mutant(
        "cache-rows-of-the-split-not-of-the-store",
        "experiments/activation_cache.py",
        "places = np.searchsorted(self.rows, split.whole()[1])",
        "places = np.arange(len(split))",
        ("tests/wiring/test_cache.py",),
    ),
    Mutant(
        "sweep-order-shared-by-seeds",
        MEMBERS,
        "dataclasses.replace(setup.order, seed=seed)",
        "setup.order",
        TEST_SWEEP,
    ),
    Mutant(
        "sweep-head-shared-by-seeds",
        MEMBERS,
        "config.seed = seed",
        "pass",
        TEST_SWEEP,
    ),
    Mutant(
        "sweep-chosen-by-its-best-seed",
        "experiments/sweep.py",
        "top1.mean(0).argmax()",
        "top1.max(0).argmax()",
        (
            "tests/experiments/test_sweep.py::test_hyperparameters_are_not_chosen_for_the_luck_of_one_seed",
        ),
    ),
    Mutant(
        "compare-data-seed-not-set",
        "experiments/compare.py",
        '(*assignments, f"seed={seed}", f"data.seed={seed}")',
        '(*assignments, f"seed={seed}")',
        TEST_RESULTS,
    ),
    Mutant(
        "evaluate-latest-by-default",
        "experiments/evaluate.py",
        '"best" if held_out else "latest"',
        '"latest"',
        TEST_RESULTS,
    ),
    # Order, splits and pixels.
    Mutant(
        "order-same-in-every-epoch",
        ORDER,
        "shuffled(num_examples, seed, epoch)",
        "shuffled(num_examples, seed, 0)",
        (*TEST_ORDER, "tests/data/test_order.py"),
    ),
    Mutant(
        "order-batch-over-two-epochs-repeats",
        ORDER,
        "_permutation(seed, epoch + 1, num_examples)",
        "_permutation(seed, epoch, num_examples)",
        (*TEST_ORDER, "tests/data/test_order.py"),
    ),
    Mutant(
        "order-seed-ignored",
        ORDER,
        "_permutation(seed, epoch, num_examples)[offset",
        "_permutation(0, epoch, num_examples)[offset",
        (*TEST_ORDER, "tests/data/test_order.py"),
    ),
    Mutant(
        "order-one-view-for-all-in-an-epoch",
        ORDER,
        "(places // self.num_examples + examples) % self.views",
        "(places // self.num_examples) % self.views",
        TEST_ORDER,
    ),
    Mutant(
        "order-random-views-share-seeds",
        ORDER,
        "(self.seed, step, _VIEWS)",
        "(0, step, _VIEWS)",
        TEST_ORDER,
    ),
    Mutant(
        "selection-hold-out-not-in-proportion",
        SELECTION,
        "counts[largest[: count - counts.sum()]] += 1",
        "counts[: count - counts.sum()] += 1",
        ("tests/data/test_selection.py", *TEST_SELECTION),
    ),
    Mutant(
        "selection-seed-ignored",
        SELECTION,
        "order.shuffled(len(labels), seed, purpose)",
        "order.shuffled(len(labels), 0, purpose)",
        TEST_SELECTION,
    ),
    Mutant(
        "selection-first-of-each-class",
        SELECTION,
        'by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]',
        'by_class = np.argsort(labels, kind="stable")',
        TEST_SELECTION,
    ),
    Mutant(
        "loading-held-out-of-test",
        LOADING,
        'splits["validation"] = splits["train"].subset(held',
        'splits["validation"] = splits["test"].subset(held % len(splits["test"])',
        ("tests/data/test_loading.py",),
    ),
    Mutant(
        "loading-held-out-stays-in-train",
        LOADING,
        'splits["train"] = splits["train"].subset(stay)',
        "pass",
        ("tests/data/test_loading.py",),
    ),
    Mutant(
        "loading-few-shot-seed-ignored",
        LOADING,
        "few_shot(split.labels, examples_per_class, seed, split.class_names)",
        "few_shot(split.labels, examples_per_class, 0, split.class_names)",
        field("data.seed=1-1"),
    ),
    Mutant(
        "notation-percentages-rounded-down",
        "tl_jax/data/notation.py",
        "round(percent * num_examples / 100)",
        "percent * num_examples // 100",
        ("tests/data/test_notation.py", "tests/properties/test_notation.py"),
    ),
    Mutant(
        "split-part-of-a-part-reads-the-whole",
        "tl_jax/data/split.py",
        "chosen._rows = indices if self._rows is None else self._rows[indices]",
        "chosen._rows = indices",
        ("tests/data/test_split.py",),
    ),
    Mutant(
        "split-fingerprint-without-rows",
        "tl_jax/data/split.py",
        "return fingerprint.combine(self._fingerprint, np.asarray(rows, np.int64))",
        "return self._fingerprint",
        ("tests/data/test_fingerprint.py",),
    ),
    Mutant(
        "stream-positions-of-the-first-process",
        "tl_jax/data/stream.py",
        "positions = _positions(self.order.batch_size, self.rows)",
        "positions = _positions(self.order.batch_size, slice(len(rows)))",
        ("tests/data/test_stream.py",),
    ),
    Mutant(
        "cifar-channels-last-without-transposing",
        "tl_jax/data/cifar.py",
        "rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)",
        "rows.reshape(-1, _SIDE, _SIDE, 3)",
        ("tests/data/test_cifar.py",),
    ),
    Mutant(
        "decoded-checksum-ignored",
        "tl_jax/data/decoded.py",
        'facts[_IMAGES]["sha256"]',
        "files.digest(folder / _IMAGES)",
        ("tests/data/test_decoded.py",),
    ),
    Mutant(
        "images-centre-square-from-the-corner",
        "tl_jax/data/images.py",
        "image.crop((left, top, left + side, top + side))",
        "image.crop((0, 0, side, side))",
        ("tests/data/test_images.py",),
    ),
    Mutant(
        "preprocessing-last-crop-never-drawn",
        "tl_jax/preprocessing.py",
        "0, 2 * padding + 1)",
        "0, 2 * padding)",
        ("tests/test_preprocessing.py",),
    ),
    Mutant(
        "preprocessing-std-not-in-levels",
        "tl_jax/preprocessing.py",
        "scale = 255 * jnp.asarray(std",
        "scale = jnp.asarray(std",
        ("tests/test_preprocessing.py",),
    ),
    Mutant(
        "preprocessing-keys-by-row-not-by-position",
        "tl_jax/preprocessing.py",
        "jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)",
        "jax.random.split(key, len(positions))",
        ("tests/test_preprocessing.py",),
    ),
    # Networks.
    Mutant(
        "batch-norm-momentum-as-pytorch-says-it",
        BATCH_NORM,
        "keep, take = self.momentum, 1.0 - self.momentum",
        "take, keep = self.momentum, 1.0 - self.momentum",
        ("tests/models/test_batch_norm.py",),
    ),
    Mutant(
        "batch-norm-epsilon-of-keras",
        BATCH_NORM,
        "epsilon: float = 1e-5",
        "epsilon: float = 1e-3",
        ("tests/models/test_batch_norm.py", "tests/porting/test_golden.py"),
    ),
    Mutant(
        "batch-norm-biased-running-variance",
        BATCH_NORM,
        "(count / (count - 1)) * var",
        "var",
        ("tests/models/test_batch_norm.py",),
    ),
    Mutant(
        "batch-norm-frozen-follows-the-batch",
        BATCH_NORM,
        'if not train or policy == "frozen":',
        "if not train:",
        ("tests/models/test_forward.py",),
    ),
    Mutant(
        "convolution-padded-as-same",
        "tl_jax/models/convolution.py",
        "        (padding, padding),\n        dimension_numbers=_DIMENSIONS,\n        feature_group_count",
        '        "SAME",\n        dimension_numbers=_DIMENSIONS,\n        feature_group_count',
        ("tests/models/test_resnet.py",),
    ),
    Mutant(
        "blocks-shortcut-pads-one-side",
        BLOCKS,
        "before = (features - x.shape[-1]) // 2",
        "before = 0",
        ("tests/models/test_resnet.py",),
    ),
    Mutant(
        "blocks-pool-padded-as-same",
        BLOCKS,
        "((0, 0), (1, 1), (1, 1), (0, 0))",
        "((0, 0), (0, 2), (0, 2), (0, 0))",
        ("tests/models/test_resnet.py",),
    ),
    Mutant(
        "resnet-first-stage-strides",
        "tl_jax/models/resnet.py",
        "stride = 1 if index == 0 else 2",
        "stride = 2",
        ("tests/models/test_resnet.py",),
    ),
    # Freezing and optimisers.
    Mutant(
        "freezing-mask-inverted",
        "tl_jax/freezing.py",
        "{name: name in frozen for name in names}",
        "{name: name not in frozen for name in names}",
        TEST_FREEZING,
    ),
    Mutant(
        "freezing-norm-of-which-half-is-frozen",
        "tl_jax/freezing.py",
        'frozen[f"{norm}/scale"] and frozen[f"{norm}/bias"]',
        'frozen[f"{norm}/scale"] or frozen[f"{norm}/bias"]',
        TEST_FREEZING,
    ),
    Mutant(
        "freezing-proof-sees-nothing",
        "tl_jax/freezing.py",
        "if not _same_bits(old[name], new[name])]",
        "if False]",
        TEST_FREEZING,
    ),
    Mutant(
        "exact-statistics-of-the-batch-are-stored",
        "tl_jax/activations/exact.py",
        'if norms and norm_policy != "frozen":',
        'if norms and norm_policy == "update":',
        ("tests/activations/test_exact.py",),
    ),
    Mutant(
        "exact-nothing-stored-after-pooling",
        "tl_jax/activations/exact.py",
        'index("pool") + 1]',
        'index("pool")]',
        ("tests/wiring/test_cache.py",),
    ),
    Mutant(
        "optim-decay-on-biases",
        TRANSFORMS,
        "weight_decay if decay_bias_and_norm or _is_kernel(leaf) else 0.0",
        "weight_decay",
        TEST_TRANSFORMS,
    ),
    Mutant(
        "optim-clip-after-decay",
        TRANSFORMS,
        "        _record_and_clip(clip_norm),\n        *steps,\n",
        "        *steps,\n        _record_and_clip(clip_norm),\n",
        TEST_TRANSFORMS,
    ),
    Mutant(
        "optim-clip-scales-small-gradients-up",
        TRANSFORMS,
        "jnp.minimum(1.0, clip_norm / (norm + 1e-6))",
        "clip_norm / (norm + 1e-6)",
        TEST_TRANSFORMS,
    ),
    Mutant(
        "optim-l2-sp-from-zero",
        TRANSFORMS,
        "toward = g + l2_sp * (w - start)",
        "toward = g + l2_sp * w",
        TEST_TRANSFORMS,
    ),
    Mutant(
        "optim-l2-sp-pulls-the-head",
        TRANSFORMS,
        'leaf.split("/", 1)[0] != "head"',
        "True",
        TEST_TRANSFORMS,
    ),
    Mutant(
        "optim-adamw-decay-before-adam",
        TRANSFORMS,
        "steps = [_scale_by_adam(b1, b2, eps), decay]",
        "steps = [decay, _scale_by_adam(b1, b2, eps)]",
        TEST_TRANSFORMS,
    ),
    Mutant(
        "optim-nesterov-ignored",
        TRANSFORMS,
        "optax.trace(momentum, nesterov)",
        "optax.trace(momentum)",
        TEST_TRANSFORMS,
    ),
    Mutant(
        "optim-layerwise-decay-of-the-head",
        "tl_jax/optim/multipliers.py",
        "len(order) - 1 - index for index",
        "len(order) - index for index",
        ("tests/optim/test_multipliers.py",),
    ),
    Mutant(
        "schedules-warmup-begins-at-zero",
        SCHEDULES,
        "learning_rate * (t + 1) / warmup_steps",
        "learning_rate * t / warmup_steps",
        TEST_SCHEDULES,
    ),
    Mutant(
        "schedules-cosine-counts-warmup",
        SCHEDULES,
        "(t - warmup_steps) / max(total_steps - warmup_steps, 1)",
        "t / total_steps",
        TEST_SCHEDULES,
    ),
    Mutant(
        "schedules-cosine-to-the-wrong-end",
        SCHEDULES,
        "final_fraction + (1 - final_fraction) * wave",
        "1 - (1 - final_fraction) * wave",
        TEST_SCHEDULES,
    ),
    Mutant(
        "schedules-boundary-one-late",
        SCHEDULES,
        "jnp.sum(t >= jnp.asarray",
        "jnp.sum(t > jnp.asarray",
        TEST_SCHEDULES,
    ),
    # Steps, losses, metrics and loops.
    Mutant(
        "steps-draws-the-same-at-every-step",
        STEPS,
        "jax.random.fold_in(jax.random.key(state.seed), state.step)",
        "jax.random.key(state.seed)",
        ("tests/test_steps.py::TestRandomness",),
    ),
    Mutant(
        "steps-draws-the-same-for-every-seed",
        STEPS,
        "jax.random.key(state.seed)",
        "jax.random.key(0)",
        ("tests/test_steps.py::TestRandomness",),
    ),
    Mutant(
        "steps-accumulation-not-averaged",
        STEPS,
        "lambda leaf: leaf / accumulation, total",
        "lambda leaf: leaf, total",
        ("tests/test_steps.py::test_accumulation_is_the_update_of_the_whole_batch",),
    ),
    Mutant(
        "steps-microbatches-are-neighbours",
        STEPS,
        "jnp.moveaxis(rows.reshape(-1, accumulation, *rows.shape[1:]), 1, 0)",
        "rows.reshape(accumulation, -1, *rows.shape[1:])",
        ("tests/test_steps.py::test_microbatches_take_every_kth_row",),
    ),
    Mutant(
        "steps-evaluation-mask-dropped",
        STEPS,
        'batch["label"], batch["mask"])',
        'batch["label"], jnp.ones_like(batch["mask"]))',
        ("tests/test_steps.py::test_eval_step_counts_unmasked_rows_only",),
    ),
    Mutant(
        "losses-smoothing-only-added",
        "tl_jax/losses.py",
        "(1 - label_smoothing) * loss - label_smoothing",
        "loss - label_smoothing",
        ("tests/test_losses.py",),
    ),
    Mutant(
        "metrics-top5-is-top6",
        METRICS,
        "mask & (rank < 5)",
        "mask & (rank <= 5)",
        ("tests/test_metrics.py",),
    ),
    Mutant(
        "metrics-padding-counted-as-correct",
        METRICS,
        "jnp.sum(mask & (rank < 1)",
        "jnp.sum((rank < 1)",
        ("tests/test_metrics.py",),
    ),
    Mutant(
        "metrics-confusion-transposed",
        METRICS,
        "labels.astype(np.int64) * num_classes + predictions",
        "predictions.astype(np.int64) * num_classes + labels",
        ("tests/test_metrics.py",),
    ),
    Mutant(
        "loops-resume-at-the-beginning",
        "tl_jax/loops.py",
        "step = int(state.step)",
        "step = 0",
        ("tests/test_loops.py",),
    ),
    Mutant(
        "loops-every-evaluation-is-the-best",
        "tl_jax/loops.py",
        "if metrics and is_best(metrics):",
        "if metrics:",
        ("tests/test_loops.py",),
    ),
    Mutant(
        "population-the-last-of-equals-is-best",
        "tl_jax/population.py",
        'sums["correct"] > members.best_correct',
        'sums["correct"] >= members.best_correct',
        (
            "tests/test_population.py::test_the_best_evaluation_is_kept_and_its_accuracy_is_that_of_its_weights",
        ),
    ),
    Mutant(
        "population-padding-counts",
        "tl_jax/population.py",
        "mask = np.arange(examples + padding) < examples",
        "mask = np.ones(examples + padding, bool)",
        (
            "tests/test_population.py::test_the_best_evaluation_is_kept_and_its_accuracy_is_that_of_its_weights",
        ),
    ),
    Mutant(
        "logistic-bias-penalised",
        "tl_jax/logistic.py",
        "kernel = weights.at[-1].set(0.0)",
        "kernel = weights",
        ("tests/test_logistic.py::test_by_hand_without_features",),
    ),
    Mutant(
        "logistic-weakest-of-equals",
        "tl_jax/logistic.py",
        "return max(map(int, best)",
        "return min(map(int, best)",
        ("tests/test_logistic.py::test_the_strongest_of_equals_is_chosen",),
    ),
    # Activations, placement, checkpoints, foreign weights.
    Mutant(
        "keys-without-pixels",
        "tl_jax/activations/keys.py",
        '"images": split.fingerprint(),',
        '"images": "",',
        ("tests/properties/test_keys.py",),
    ),
    Mutant(
        "compute-views-numbered-by-place",
        "tl_jax/activations/compute.py",
        'examples[batch["index"]] * views + view',
        'batch["index"] * views + view',
        ("tests/activations/test_compute.py",),
    ),
    Mutant(
        "activations-the-first-view-only",
        "tl_jax/activations/split.py",
        "np.asarray(indices)], np.asarray(views)]",
        "np.asarray(indices)], 0]",
        ("tests/activations/test_compute.py",),
    ),
    Mutant(
        "resident-label-of-the-row",
        "tl_jax/resident.py",
        "labels, rows // views)",
        "labels, rows % len(labels))",
        ("tests/test_resident.py::test_views_share_the_label_of_their_example",),
    ),
    Mutant(
        "resident-all-rows-at-the-first-position",
        "tl_jax/resident.py",
        '"position": jnp.arange(len(rows), dtype=jnp.int32),',
        '"position": jnp.zeros(len(rows), jnp.int32),',
        ("tests/test_resident.py",),
    ),
    Mutant(
        "sharding-every-process-loads-the-first-rows",
        "tl_jax/sharding.py",
        "start = jax.process_index() * per_process",
        "start = 0",
        ("tests/test_sharding.py::test_each_process_has_consecutive_rows",),
    ),
    Mutant(
        "checkpointing-checksum-ignored",
        "tl_jax/checkpointing/verification.py",
        "if files.digest(folder / name) != checksum:",
        "if False:",
        ("tests/test_checkpointing.py::test_damage_to_any_file_of_the_newest_is_found",),
    ),
    Mutant(
        "checkpointing-best-is-latest",
        "tl_jax/checkpointing/checkpointer.py",
        "return self._restore(self._choose(self._by_metric()), template)",
        "return self._restore(self._choose(self._by_age()), template)",
        ("tests/test_checkpointing.py",),
    ),
    Mutant(
        "checkpointing-latest-of-equals-is-best",
        "tl_jax/checkpointing/verification.py",
        "key=lambda step: (scores[step], step)",
        "key=lambda step: (scores[step], -step)",
        ("tests/test_checkpointing.py",),
    ),
    Mutant(
        "naming-kernel-rows-and-columns-swapped",
        "tl_jax/porting/naming.py",
        '"OIHW->HWIO": (2, 3, 1, 0)',
        '"OIHW->HWIO": (3, 2, 1, 0)',
        TEST_PORT,
    ),
    Mutant(
        "naming-mean-and-variance-swapped",
        "tl_jax/porting/naming.py",
        '"mean": ("running_mean", "none"),\n    "var": ("running_var", "none"),',
        '"mean": ("running_var", "none"),\n    "var": ("running_mean", "none"),',
        ("tests/porting/test_naming.py",),
    ),
    Mutant(
        "export-transposed-the-wrong-way",
        "tl_jax/porting/naming.py",
        "array.transpose(np.argsort(axes))",
        "array.transpose(axes)",
        TEST_PORT,
    ),
    Mutant(
        "export-without-counters",
        "tl_jax/porting/export.py",
        'if entry.source.endswith(".running_var"):',
        "if False:",
        ("tests/porting/test_export.py",),
    ),
    Mutant(
        "port-what-is-left-over-is-ignored",
        "tl_jax/porting/port.py",
        "elif source not in expected:",
        "elif False:",
        TEST_PORT,
    ),
    Mutant(
        "hub-checksum-ignored",
        "tl_jax/porting/hub.py",
        "if stated and files.digest(path) != stated:",
        "if False:",
        (
            "tests/porting/test_pretrained.py::test_a_cached_file_is_used_offline_and_its_digest_checked",
        ),
    ),
    # Statistics and reports.
    Mutant(
        "statistics-interval-of-the-normal-distribution",
        "tl_jax/statistics.py",
        "half = _t_quantile(n - 1) * deviation",
        "half = 1.96 * deviation",
        ("tests/test_statistics.py",),
    ),
    Mutant(
        "statistics-interval-of-a-value-not-of-the-mean",
        "tl_jax/statistics.py",
        "* deviation / math.sqrt(n)",
        "* deviation",
        ("tests/test_statistics.py",),
    ),
    Mutant(
        "statistics-wilson-without-its-correction",
        "tl_jax/statistics.py",
        "+ z**2 / (4 * examples**2)",
        "",
        ("tests/test_statistics.py",),
    ),
    Mutant(
        "comparison-mean-of-validation-shown-as-test",
        "tl_jax/reporting/comparison.py",
        "test = {method: _by_seed(results, method, metric) for method in methods}",
        "test = {\n"
        "        method: _by_seed(\n"
        "            [{**run, metric: run.get(VALIDATION + metric, run[metric])} for run in results],\n"
        "            method,\n"
        "            metric,\n"
        "        )\n"
        "        for method in methods\n"
        "    }",
        ("tests/reporting/test_comparison.py",),
    ),
    Mutant(
        "analysis-mistaken-for-read-by-columns",
        "tl_jax/reporting/analysis.py",
        "other = int(mistakes[place].argmax())",
        "other = int(mistakes[:, place].argmax())",
        ("tests/reporting/test_report.py",),
    ),
    Mutant(
        "writers-resume-keeps-later-lines",
        "tl_jax/reporting/writers.py",
        'if line["step"] <= resume_step',
        "if True",
        ("tests/reporting/test_writers.py",),
    ),
    Mutant(
        "run-folder-another-config-is-the-same",
        "tl_jax/run_folder.py",
        "if there != here",
        "if there > here",
        ("tests/test_run_folder.py",),
    ),
]

MUTANTS = [
    *(Mutant(m.name, m.file, m.old, m.new, m.tests, survivor=True) for m in SURVIVORS),
    *OTHERS,
]
