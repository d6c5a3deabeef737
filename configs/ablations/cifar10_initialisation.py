"""Random weights against the packaged ones on CIFAR-10, by labelled images per class.

Command:
    python -m experiments.ablate --spec=configs/ablations/cifar10_initialisation.py --config.data.data_dir=DIR \
        --workdir=runs/cifar10_initialisation

Needs: CIFAR-10 (prepared by itself where the network allows; see experiments.prepare_data).
Setting: all parameters of a ResNet-20 are trained, 300 updates of 64 images with a learning rate of 0.05; 3 numbers
of labels x 5 seeds.
Result: docs/findings.md.
"""

import pathlib

import tl_jax
from tl_jax.ablation import Spec


def get_spec() -> Spec:
    """Returns random and packaged weights."""
    base = tl_jax.load_config(pathlib.Path(__file__).parent.parent / "few_labels_cifar10.py")
    base.data.batch_size = 64
    base.train.steps, base.optim.warmup_steps = 300, 30
    base.optim.learning_rate = 0.05
    return Spec(
        base,
        variants={"random": "random_init", "packaged": "full_finetune"},
        seeds=(0, 1, 2, 3, 4),
        shots=(10, 100, 1000),
        baseline="random",
    )
