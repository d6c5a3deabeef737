"""The linear probe of `linear_probe.py` in PyTorch, as its transfer learning tutorial writes it.

A `Dataset` of images that a transform turns into normalised tensors one by one, a `DataLoader` with two workers,
the pretrained network with `requires_grad = False` and a new last layer, SGD over that layer's parameters, a
pass over the validation images after every epoch and one over the test images at the end. Unlike in the
tutorial the backbone is in eval mode while the layer is trained, or its BatchNorm would drift and the result
would be another one.

    python benchmarks/linear_probe_torch.py --data_dir=DIR --epochs=2 --out=FILE
"""

import argparse
import json
import pathlib
import sys
import time

import torch
from safetensors.torch import load_file
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "porting"))
import torch_reference

from tl_jax import data, models

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
BATCH_SIZE, LEARNING_RATE = 128, 0.1
WEIGHTS = "resnet20_cifar.tin32"


def main() -> None:
    """Writes one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    splits = data.load_splits(
        "tfds:cifar10", data_dir=args.data_dir, validation_fraction=0.1, cache_dir=decoded_images()
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = make_network().to(device)
    loaders = {name: make_loader(split, name == "train") for name, split in splits.items()}
    optimizer = torch.optim.SGD(
        net.linear.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, args.epochs * len(loaders["train"])
    )
    began, seconds, accuracies = time.perf_counter(), [], []
    for _ in range(args.epochs):
        for images, labels in loaders["train"]:
            loss = nn.functional.cross_entropy(net(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        accuracies.append(accuracy(net, loaders["validation"], device))
        seconds.append(time.perf_counter() - began - sum(seconds))
    result = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device,
        "epochs": args.epochs,
        "seconds_per_epoch": sum(seconds) / len(seconds),
        "validation_top1": accuracies[-1],
        "test_top1": accuracy(net, loaders["test"], device),
    }
    args.out.write_text(json.dumps(result, indent=1))


class Images(torch.utils.data.Dataset):
    """Images as normalised tensors, each transformed when it is asked for."""

    def __init__(self, split):
        known = models.get_pretrained(WEIGHTS)
        self.images, self.labels = split.images, split.labels
        self.mean = torch.tensor(known.mean)[:, None, None]
        self.std = torch.tensor(known.std)[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.from_numpy(self.images[index].copy()).permute(2, 0, 1).float() / 255
        return (image - self.mean) / self.std, int(self.labels[index])


def make_loader(split, shuffle: bool) -> torch.utils.data.DataLoader:
    # A last batch of one image is as good as any here: the network is in eval mode.
    return torch.utils.data.DataLoader(
        Images(split), batch_size=BATCH_SIZE, shuffle=shuffle, num_workers=2
    )


def make_network() -> nn.Module:
    net = torch_reference.cifar_resnet("resnet20_cifar", 200)
    tensors = load_file(REPOSITORY / "tl_jax/weights/resnet20_cifar_tin32.safetensors")
    net.load_state_dict(tensors)
    for parameter in net.parameters():
        parameter.requires_grad = False
    net.linear = nn.Linear(net.linear.in_features, 10)
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, loader: torch.utils.data.DataLoader, device: str) -> float:
    correct = 0
    for images, labels in loader:
        correct += int((net(images.to(device)).argmax(1).cpu() == labels).sum())
    return correct / len(loader.dataset)


def decoded_images() -> pathlib.Path:
    return pathlib.Path.home() / ".cache" / "tl_jax" / "decoded"


if __name__ == "__main__":
    main()
