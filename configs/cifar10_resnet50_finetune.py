"""Fine-tunes an ImageNet ResNet-50 on CIFAR-10 at 224 px.

Command:
    python -m experiments.finetune --config=configs/cifar10_resnet50_finetune.py --workdir=runs/cifar10_resnet50

Needs: CIFAR-10, the weights resnet50.tv_in1k (from the Hugging Face hub, or a local file in --config.init.weights),
and an accelerator.
Result: not yet measured here. Sources: 97.3 to 97.5% (Kumar et al. 2022, Table 1; Grill et al. 2020, Table 3);
TLlib reports 96.6% at 224 px, the best epoch chosen on the test split.
"""

import pathlib

import tl_jax


def get_config() -> tl_jax.Config:
    """Returns ten epochs of full fine-tuning."""
    config = tl_jax.load_config(pathlib.Path(__file__).with_name("cifar10_resnet18_finetune.py"))
    config.model.name = "resnet50"
    config.init.weights = "resnet50.tv_in1k"
    return config
