"""Records what PyTorch computes with the weights of `fabricate`, for machines without it.

python tests/porting/record_golden.py
"""

import json
from pathlib import Path

import torch
import torch_reference
from fabricate import random_images, random_variables

from tl_jax import models, porting

GOLDEN = Path(__file__).parent / "golden"
# name: (image size, naming of the reference network's state dict)
NETWORKS = {"resnet18": (64, "torchvision"), "resnet20_cifar": (32, "cifar")}


def record(name):
    size, naming = NETWORKS[name]
    model = models.create_model(name, 10)
    make = torch_reference.cifar_resnet if naming == "cifar" else torch_reference.torchvision_resnet
    state_dict = porting.export_state_dict(random_variables(model), naming=naming)
    net = torch_reference.load(lambda: make(name, 10), state_dict)
    features = torch_reference.boundary_features(net, random_images((2, size, size, 3)))
    return {
        "torch": torch.__version__,
        "image_size": size,
        "boundaries": {
            boundary: {
                "shape": list(array.shape),
                "mean": float(array.mean(dtype="float64")),
                "std": float(array.std(dtype="float64")),
                "max": float(abs(array).max()),
                "first": array.reshape(-1)[:8].tolist(),
            }
            for boundary, array in features.items()
        },
        "logits": features["head"].tolist(),
    }


def main():
    for name in NETWORKS:
        (GOLDEN / f"{name}.json").write_text(json.dumps(record(name), indent=1) + "\n")
        print(f"recorded {name}")


if __name__ == "__main__":
    main()
