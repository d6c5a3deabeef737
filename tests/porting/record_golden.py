"""Records what PyTorch computes with the weights of `fabricate`, for machines without it.

python tests/porting/record_golden.py
"""

import json

import torch
import torch_reference
import training_parity
from fabricate import random_images, random_variables
from golden_features import GOLDEN, describe
from sgd import VGGS

from tl_jax import models, porting

# name: (image size, naming of the reference network's state dict)
NETWORKS = {
    "resnet18": (64, "torchvision"),
    "resnet20_cifar": (32, "cifar"),
    "vgg11_bn": (64, "torchvision"),
}


def record_training(name):
    """Returns the losses of twenty steps of a VGG."""
    result = training_parity.measure(name)
    return {"torch": torch.__version__, "losses": result["losses_torch"]}


def record(name):
    size, naming = NETWORKS[name]
    model = models.create_model(name, 10)
    make, features_of = torch_reference.torchvision_resnet, torch_reference.boundary_features
    if naming == "cifar":
        make = torch_reference.cifar_resnet
    elif name.startswith("vgg"):
        make, features_of = torch_reference.torchvision_vgg, torch_reference.vgg_features
    state_dict = porting.export_state_dict(random_variables(model), naming=naming)
    net = torch_reference.load(lambda: make(name, 10), state_dict)
    features = features_of(net, random_images((2, size, size, 3)))
    return {
        "torch": torch.__version__,
        "image_size": size,
        **describe(features),
    }


def main():
    for name in NETWORKS:
        (GOLDEN / f"{name}.json").write_text(json.dumps(record(name), indent=1) + "\n")
        print(f"recorded {name}")
    for name in VGGS:
        (GOLDEN / f"{name}_training.json").write_text(
            json.dumps(record_training(name), indent=1) + "\n"
        )
        print(f"recorded the training of {name}")


if __name__ == "__main__":
    main()
