"""The strategies of the literature on CIFAR-10, with 10 and with 100 labelled images per class.

Command:
    python -m experiments.ablate --spec=configs/ablations/cifar10_strategies.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_strategies

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Setting: the packaged ResNet-20; every strategy has 100 updates of 32 images (each member of a soup, teacher and
student of self_distillation; bit_hyperrule has 500) and hyper-parameters as published, the learning rate chosen by
validation; 2 numbers of labels x 5 seeds.
Result: docs/findings.md.
"""

import pathlib

import tl_jax
from tl_jax.ablation import Spec

STRATEGIES = (
    "full_finetune",
    "random_init",
    "linear_probe",
    "linear_probe_lbfgs",
    "ridge",
    "nearest_class_mean",
    "lp_ft",
    "gradual_unfreezing",
    "discriminative_rates",
    "top:2",
    "surgical:stage1",
    "auto_rgn",
    "batch_norm_only",
    "bias_only",
    "linear_probe_batch_statistics",
    "adabn",
    "residual_adapters",
    "low_rank_adapters",
    "l2_sp",
    "delta",
    "bss",
    "stoch_norm",
    "co_tuning",
    "lwf",
    "self_distillation",
    "ema",
    "swa",
    "wise_ft",
    "uniform_soup",
    "greedy_soup",
    "sam",
    "mixup",
    "cutmix",
    "bit_hyperrule",
)


def get_spec() -> Spec:
    """Returns every strategy, beside full fine-tuning."""
    base = tl_jax.load_config(pathlib.Path(__file__).parent.parent / "few_labels_cifar10.py")
    return Spec(
        base,
        variants={name.replace(":", "_"): name for name in STRATEGIES},
        seeds=(0, 1, 2, 3, 4),
        shots=(10, 100),
        tune={"optim.learning_rate": (0.01, 0.05)},
        baseline="full_finetune",
    )
