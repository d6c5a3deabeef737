"""The strategies of the literature on photos of flowers, with 10 labelled images per class.

Command:
    python -m experiments.ablate --spec=configs/ablations/flowers_strategies.py --config.data.data_dir=DIR \
        --workdir=runs/flowers_strategies

Needs: flowers128.zip, or other photos in class folders, in data.data_dir.
Setting: as configs/ablations/cifar10_strategies.py, at 32 x 32 pixels; 5 seeds.
Result: docs/findings.md.
"""

import pathlib

import tl_jax
from tl_jax import ablation
from tl_jax.ablation import Spec


def get_spec() -> Spec:
    """Returns the strategies of the spec of CIFAR-10, on flowers."""
    here = pathlib.Path(__file__)
    base = tl_jax.load_config(here.parent.parent / "few_labels_flowers.py")
    spec = ablation.load_spec(here.with_name("cifar10_strategies.py"))
    return Spec(base, spec.variants, spec.seeds, spec.baseline, shots=(10,), tune=spec.tune)
