"""Learning rate, weight decay and seed of a linear probe on all of CIFAR-10: 64 members in one program.

Command:
    python -m experiments.sweep --config=configs/cifar10_sweep.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_sweep

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Result: see docs/benchmarks.md, where benchmarks/sweep.py compares this with ordinary runs.
"""

import pathlib

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns the linear probe; `sweep` holds the values of what is swept."""
    config = tl_jax.load_config(pathlib.Path(__file__).with_name("cifar10_linear_probe.py"))
    config.sweep.learning_rate = (0.003, 0.01, 0.03, 0.1)
    config.sweep.weight_decay = (0.0, 1e-4, 1e-3, 1e-2)
    config.sweep.seed = (0, 1, 2, 3)
    return config
