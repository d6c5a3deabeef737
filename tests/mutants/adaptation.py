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
        'name.endswith("/bias") and _group(name) != HEAD',
        'name.endswith("/bias") and _group(name) == HEAD',
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
        'average = ("average.name=wise_ft", "average.alpha=0.5")',
        'average = ("average.name=wise_ft", "average.alpha=1.0")',
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
