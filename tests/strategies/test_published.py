"""Every published strategy: the fields that it sets, with the numbers of its paper, in a config that fits."""

import pytest

from tl_jax import strategies
from tl_jax.config import default_config, flat
from tl_jax.runs.setup import check_config

PROBE = (
    *("freeze.strategy=backbone", "cache.boundary=auto", "augment.flip=False"),
    *("augment.crop_padding=0", "augment.operations=", "train.steps=100", "optim.warmup_steps=5"),
)
ALL = ("freeze.strategy=none", "train.steps=100", "optim.warmup_steps=5")
LP_FT = (PROBE, ALL)
# The learning rate of the config, 0.05, times 0.3, 0.6, 1, 1.7 and 3.
MEMBERS = tuple(
    (f"phases={(PROBE, (*ALL, f'optim.learning_rate={rate}'))}",)
    for rate in ("0.015", "0.03", "0.05", "0.085", "0.15")
)
UNFROZEN = ("backbone", "up_to:stage2", "up_to:stage1", "up_to:stem", "none")

# What each sets that differs from the config below.
SETS = {
    "random_init": {"init.weights": ""},
    "full_finetune": {},
    "linear_probe": {"freeze.strategy": "backbone"},
    "linear_probe_lbfgs": {"freeze.strategy": "backbone", "solver.name": "lbfgs"},
    "ridge": {"freeze.strategy": "backbone", "solver.name": "ridge"},
    "nearest_class_mean": {"freeze.strategy": "backbone", "solver.name": "nearest_mean"},
    "lp_ft": {"phases": LP_FT},
    "gradual_unfreezing": {
        "phases": tuple(
            (f"freeze.strategy={strategy}", "train.steps=40", "optim.warmup_steps=2")
            for strategy in UNFROZEN
        )
    },
    "discriminative_rates": {"optim.layerwise_decay": 1 / 2.6},
    "top:2": {"freeze.strategy": "top:2"},
    "surgical:stage1": {"freeze.strategy": "only:stage1"},
    "auto_rgn": {"optim.auto_rgn": True},
    "batch_norm_only": {"freeze.strategy": "all_but_bn"},
    "bias_only": {"freeze.strategy": "all_but_bias"},
    "linear_probe_batch_statistics": {
        "freeze.strategy": "backbone",
        "freeze.batch_norm": "update",
    },
    "adabn": {"init.batch_stats": "target", "freeze.strategy": "backbone"},
    "residual_adapters": {"model.adapters": "residual", "freeze.strategy": "all_but_adapters"},
    "low_rank_adapters": {"model.adapters": "low_rank", "freeze.strategy": "all_but_adapters"},
    "l2_sp": {"objective.l2_sp": 0.01},
    "delta": {"objective.delta": 0.01, "objective.delta_attention": True},
    "bss": {"objective.bss": 0.001},
    "stoch_norm": {"model.stoch_norm": 0.5},
    "co_tuning": {"objective.co_tuning": 2.3},
    "lwf": {"objective.lwf": 1.0},
    "self_distillation": {
        "objective.distillation": 1.0,
        "objective.teacher_source": ("freeze.strategy=none",),
    },
    "ema": {"average.name": "ema", "average.decay": 0.99, "average.choose": "averaged"},
    "swa": {"average.name": "swa", "average.choose": "averaged"},
    "wise_ft": {
        "phases": (
            PROBE,
            (*ALL, "average.name=wise_ft", "average.alpha=0.5", "average.choose=averaged"),
        )
    },
    "uniform_soup": {"soup.name": "uniform", "soup.members": MEMBERS},
    "greedy_soup": {"soup.name": "greedy", "soup.members": MEMBERS},
    "sam": {"optim.sam_rho": 0.05},
    "mixup": {"augment.mixing": ("mixup=1.0",)},
    "cutmix": {"augment.mixing": ("cutmix=1.0",)},
    "bit_hyperrule": {"train.fit_to_data": True, "train.rule": "bit", "train.steps": 0},
}


@pytest.fixture
def config():
    return default_config(
        model__name="resnet20_cifar",
        init__weights="resnet20_cifar.tin32",
        train__steps=200,
        optim__warmup_steps=10,
        optim__learning_rate=0.05,
        data__image_size=32,
        data__validation_fraction=0.1,
    )


@pytest.mark.parametrize("name", SETS)
def test_a_strategy_sets_these_fields_and_no_others(config, name):
    changed = strategies.with_strategy(config, name)
    before, after = flat(config), flat(changed)
    differing = {field: value for field, value in after.items() if value != before.get(field)}
    assert differing == SETS[name]
    check_config(changed)


def test_every_strategy_is_here():
    assert [name.partition(":")[0] for name in strategies.list_strategies()] == [
        name.partition(":")[0] for name in SETS
    ]


def test_every_strategy_says_what_it_does():
    ours = {
        "random_init",
        "full_finetune",
        "linear_probe",
        "top:K",
        "linear_probe_batch_statistics",
    }
    rows = [line.split(" | ") for line in strategies.page().splitlines()[2:]]
    without_source = {row[0].strip("| `") for row in rows if row[2] == " |"}
    assert {row[0].strip("| `") for row in rows if not row[2].strip(" |")} == ours, without_source
    assert all(len(row[1]) > 20 and row[1][0].isupper() for row in rows)
