"""Mutants of strategies and protocols, and of what strategies need of the rest of the library."""

from tests.mutants.planting import Mutant

FREEZING = "tl_jax/freezing.py"
LENGTHS = "tl_jax/strategies/lengths.py"
REGISTRY = "tl_jax/strategies/registry.py"
PUBLISHED = "tl_jax/strategies/published.py"
PROTOCOL = "tl_jax/protocols/protocol.py"
TERMS = "tl_jax/protocols/terms.py"

TEST_FREEZING = ("tests/test_freezing.py",)
TEST_REGISTRY = ("tests/strategies/test_registry.py",)
TEST_PUBLISHED = ("tests/strategies/test_published.py",)
TEST_LENGTHS = ("tests/strategies/test_lengths.py",)
TEST_PROTOCOL = ("tests/protocols/test_protocol.py",)
TEST_RUNS_OF_PROTOCOLS = ("tests/runs/test_protocol.py",)

MUTANTS = [
    Mutant(
        "freezing-top-one-group-too-many",
        FREEZING,
        "return order[below - int(argument) :]",
        "return order[max(0, below - int(argument) - 1) :]",
        TEST_FREEZING,
    ),
    Mutant(
        "freezing-only-without-the-head",
        FREEZING,
        "return argument, order[-1]",
        "return (argument,)",
        TEST_FREEZING,
    ),
    Mutant(
        "freezing-biases-of-the-head-alone",
        FREEZING,
        'name.endswith("/bias") and _group(name) not in _AFTER_BACKBONE',
        'name.endswith("/bias") and _group(name) in _AFTER_BACKBONE',
        TEST_FREEZING,
    ),
    Mutant(
        "strategies-warm-up-is-not-divided",
        LENGTHS,
        "round(share * optim.warmup_steps)",
        "optim.warmup_steps",
        TEST_LENGTHS,
    ),
    Mutant(
        "strategies-updates-are-lost",
        LENGTHS,
        "steps = [round(end * train.steps) for end in ends]",
        "steps = [int(end * train.steps) // 2 * 2 for end in ends]",
        TEST_LENGTHS,
    ),
    Mutant(
        "strategies-only-the-first-name-expands",
        REGISTRY,
        'assignments += [text] if "=" in text else _assignments(text, config)',
        'assignments += [text] if "=" in text or assignments else _assignments(text, config)',
        TEST_REGISTRY,
    ),
    Mutant(
        "strategies-of-the-base-not-of-the-trial",
        "tl_jax/ablation/cells.py",
        "for assignment in spec.assignments(variant, config):",
        "for assignment in spec.assignments(variant):",
        TEST_REGISTRY,
    ),
    Mutant(
        "strategies-wise-ft-averages-the-probe",
        PUBLISHED,
        'average = ("average.name=wise_ft", "average.alpha=0.5", "average.choose=averaged")',
        'average = ("average.name=wise_ft", "average.alpha=1.0", "average.choose=averaged")',
        TEST_PUBLISHED,
    ),
    Mutant(
        "strategies-the-command-line-counts-less",
        "experiments/cli/arguments.py",
        "            _Given.config = with_strategy(_Given.config, flags.FLAGS.strategy)\n"
        "            for assignment in assignments:\n",
        "            _Given.config = with_strategy(_Given.config, flags.FLAGS.strategy)\n"
        "            for assignment in ():\n",
        ("tests/experiments/test_arguments.py",),
    ),
    Mutant(
        "bss-largest-singular-values",
        "tl_jax/objectives/spectral.py",
        "vectors[:, count - self.k :].T @ matrix",
        "vectors[:, : self.k].T @ matrix",
        ("tests/objectives/test_spectral.py",),
    ),
    Mutant(
        "bss-k-not-passed",
        "tl_jax/runs/objective.py",
        "objectives.SpectralShrinkage(pooled, section.bss_k)",
        "objectives.SpectralShrinkage(pooled)",
        ("tests/runs/test_objectives.py",),
    ),
    Mutant(
        "adapters-beside-the-centre",
        "tl_jax/models/adapters.py",
        "kernel = kernel.at[centre, centre].add(",
        "kernel = kernel.at[0, centre].add(",
        ("tests/models/test_adapters.py",),
    ),
    Mutant(
        "adapters-not-merged-for-export",
        "tl_jax/runs/results.py",
        "jax.device_get(models.merged_variables(variables)), naming=naming",
        '{**variables, "params": {k: v for k, v in variables["params"].items()}}, naming=naming',
        ("tests/runs/test_adapters.py",),
    ),
    Mutant(
        "adapters-rank-not-passed",
        "tl_jax/runs/network.py",
        "models.Adapted(model, section.adapters, section.adapter_rank)",
        "models.Adapted(model, section.adapters)",
        ("tests/wiring/test_fields.py",),
    ),
    Mutant(
        "freezing-adapters-without-norms",
        "tl_jax/freezing.py",
        'return _some(adapters, strategy, "adapters (model.adapters)") | norms',
        'return _some(adapters, strategy, "adapters (model.adapters)")',
        ("tests/test_freezing.py",),
    ),
    Mutant(
        "adabn-estimated-and-not-used",
        "tl_jax/runs/training.py",
        "    phases = target_statistics.adapted(prepared.phases)\n",
        "    phases = prepared.phases\n",
        ("tests/runs/test_target_statistics.py",),
    ),
    Mutant(
        "adabn-of-one-batch-twice",
        "tl_jax/runs/target_statistics.py",
        'most = min(setup.evaluator.rows(setup.splits["train"]), examples)',
        "most = min(20, examples)",
        ("tests/runs/test_target_statistics.py",),
    ),
    Mutant(
        "wise-ft-the-other-weight",
        "tl_jax/training/averaging.py",
        "kept = (1 - self.alpha) * kept + self.alpha * leaves[name]",
        "kept = self.alpha * kept + (1 - self.alpha) * leaves[name]",
        ("tests/training/test_averaging.py",),
    ),
    Mutant(
        "wise-ft-statistics-of-the-live-weights",
        "tl_jax/training/averaging.py",
        'return self.name in ("swa", "wise_ft") and bool(self.statistics)',
        'return self.name == "swa" and bool(self.statistics)',
        ("tests/runs/test_wise_ft.py",),
    ),
    Mutant(
        "wise-ft-alpha-not-passed",
        "tl_jax/runs/optimisation.py",
        "section.decay, first, every, section.alpha)",
        "section.decay, first, every)",
        ("tests/runs/test_wise_ft.py",),
    ),
    Mutant(
        "stoch-norm-other-branch",
        "tl_jax/models/batch_norm.py",
        "y = jnp.where(chosen, running, y)",
        "y = jnp.where(chosen, y, running)",
        ("tests/models/test_stoch_norm.py",),
    ),
    Mutant(
        "stoch-norm-of-single-images",
        "tl_jax/models/batch_norm.py",
        "self.stoch_norm, shape)",
        "self.stoch_norm, (len(x), *(1,) * (x.ndim - 2), *shape))",
        ("tests/models/test_stoch_norm.py",),
    ),
    Mutant(
        "stoch-norm-of-frozen-modules",
        "tl_jax/models/batch_norm.py",
        'if self.stoch_norm and policy == "update" and not',
        "if self.stoch_norm and not",
        ("tests/models/test_stoch_norm.py",),
    ),
    Mutant(
        "sam-frozen-leaves-count-in-the-norm",
        "tl_jax/training/sharpness.py",
        "length = rho / (norm_of_trainable(first, frozen_mask) + _TINY)",
        "length = rho / (optax.tree.norm(first) + _TINY)",
        ("tests/training/test_sharpness.py",),
    ),
    Mutant(
        "sam-statistics-of-the-second-pass",
        "tl_jax/training/sharpness.py",
        "second, _, _ = gradients(state.replace(params=params), batch_stats, rows, key)",
        "second, new_stats, _ = gradients(state.replace(params=params), new_stats, rows, key)",
        ("tests/training/test_sharpness.py",),
    ),
    Mutant(
        "sam-not-passed",
        "tl_jax/runs/pure_step.py",
        "GradientOptions(config.optim.accumulation, config.optim.sam_rho)",
        "GradientOptions(config.optim.accumulation)",
        ("tests/wiring/test_fields.py",),
    ),
    Mutant(
        "auto-rgn-never-anew",
        "tl_jax/optim/relative_gradients.py",
        "state.step % every == 0",
        "state.step == 0",
        ("tests/optim/test_relative_gradients.py",),
    ),
    Mutant(
        "auto-rgn-not-normalised",
        "tl_jax/optim/relative_gradients.py",
        "jnp.where(largest > 0, norm / largest, 0.0)",
        "jnp.where(largest > 0, norm, 0.0)",
        ("tests/optim/test_relative_gradients.py",),
    ),
    Mutant(
        "auto-rgn-not-passed",
        "tl_jax/runs/optimisation.py",
        "every = rgn_updates(config, num_examples)",
        "every = 0",
        ("tests/wiring/test_fields.py",),
    ),
    Mutant(
        "bit-hyperrule-length-of-the-next-size",
        "tl_jax/runs/fitted.py",
        "row for row in _BIT_SCHEDULES if row[0] is None or num_examples < row[0]",
        "row for row in _BIT_SCHEDULES if row[0] is None or num_examples <= row[0]",
        ("tests/runs/test_fitted.py",),
    ),
    Mutant(
        "bit-hyperrule-rate-of-any-batch",
        "tl_jax/runs/fitted.py",
        "_BIT_RATE * config.data.batch_size / _BIT_BATCH",
        "_BIT_RATE",
        ("tests/runs/test_fitted.py",),
    ),
    Mutant(
        "protocols-deviations-that-hold",
        PROTOCOL,
        "if self.holds(found):",
        "if not self.holds(found):",
        TEST_PROTOCOL,
    ),
    Mutant(
        "protocols-selection-by-part-of-test",
        TERMS,
        'chosen.partition("[")[0] == reported.partition("[")[0]',
        "chosen == reported",
        TEST_PROTOCOL,
    ),
    Mutant(
        "protocols-std-alone",
        TERMS,
        '_NATIVE = ("mean", "std")',
        '_NATIVE = ("std",)',
        TEST_PROTOCOL,
    ),
    Mutant(
        "protocols-trials-of-an-ablation",
        "tl_jax/ablation/report.py",
        'protocols.with_trials(row["protocol"], len(spec.trials(variant)))',
        'protocols.with_trials(row["protocol"], 1)',
        TEST_RUNS_OF_PROTOCOLS,
    ),
    Mutant(
        "protocols-resolution-of-the-weights",
        "tl_jax/runs/protocol.py",
        "preprocessing=weights.describe_preprocessing(last.preprocessing),",
        "preprocessing=last.initial.preprocessing,",
        TEST_RUNS_OF_PROTOCOLS,
    ),
    Mutant(
        "protocols-steps-of-all-phases",
        "tl_jax/runs/protocol.py",
        "steps=last.total_steps - last.first_step,",
        "steps=last.total_steps,",
        TEST_RUNS_OF_PROTOCOLS,
    ),
    Mutant(
        "protocols-nobody-held-out",
        "tl_jax/runs/protocol.py",
        'len(last.splits["validation"]) if "validation" in last.splits else 0',
        "1",
        TEST_RUNS_OF_PROTOCOLS,
    ),
    Mutant(
        "protocols-flag-ignored",
        "experiments/cli/arguments.py",
        "return protocols.assignments(name) if name else ()",
        "return ()",
        ("tests/experiments/test_arguments.py",),
    ),
]
