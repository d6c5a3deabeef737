"""Learning rate, weight decay and seed of a linear probe on all of CIFAR-10: 64 members in one program.

Command:
    python -m experiments.sweep --config=configs/cifar10_sweep.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_sweep

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Result: see docs/benchmarks.md, where benchmarks/sweep.py compares this with ordinary runs.
"""

import ml_collections

from configs import cifar10_linear_probe


def get_config() -> ml_collections.ConfigDict:
    """Returns the linear probe; `sweep` holds the values of what is swept."""
    config = cifar10_linear_probe.get_config()
    config.sweep = ml_collections.ConfigDict()
    config.sweep.learning_rate = (0.003, 0.01, 0.03, 0.1)  # empty: the config's own, of optim
    config.sweep.weight_decay = (0.0, 1e-4, 1e-3, 1e-2)
    config.sweep.label_smoothing = ()
    config.sweep.l2_sp = ()
    config.sweep.seed = (0, 1, 2, 3)  # order and initialisation; empty: the config's own
    config.sweep.patience = 0  # evaluations without a new best; 0: none stops early
    config.sweep.width = 0  # members at once; 0: as many as memory holds
    config.sweep.test = (
        "chosen"  # members whose test accuracy is measured: of the "chosen" combination, or "all"
    )
    return config
