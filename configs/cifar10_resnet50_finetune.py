"""Fine-tunes an ImageNet ResNet-50 on CIFAR-10 at 224 px.

Command:
    python -m experiments.finetune --config=configs/cifar10_resnet50_finetune.py --workdir=runs/cifar10_resnet50

Needs: CIFAR-10, the weights resnet50.tv_in1k (from the Hugging Face hub, or a local file in --config.init.weights),
and an accelerator.
Result: not yet measured here. Sources: 97.3 to 97.5% (Kumar et al. 2022, Table 1; Grill et al. 2020, Table 3);
TLlib reports 96.6% at 224 px, the best epoch chosen on the test split.
"""

import ml_collections

from configs import cifar10_resnet18_finetune


def get_config() -> ml_collections.ConfigDict:
    """Returns ten epochs of full fine-tuning."""
    config = cifar10_resnet18_finetune.get_config()
    config.model.name = "resnet50"
    config.init.weights = "resnet50.tv_in1k"
    return config
