"""The linear probe of `benchmarks.linear_probe` in PyTorch, written in two ways.

    python -m benchmarks.linear_probe_torch --data_dir=DIR --form=tutorial --epochs=2
    python -m benchmarks.linear_probe_torch --data_dir=DIR --form=features_once --epochs=10

`tutorial`, as PyTorch's transfer learning tutorial writes it: a `Dataset` of images that a transform turns into
normalised tensors one by one, a `DataLoader` with two workers, the pretrained network with `requires_grad = False`
and a new last layer, SGD over that layer's parameters. Unlike in the tutorial the backbone is in eval mode while the
layer is trained, or its BatchNorm would drift and the result would be another one.

`features_once`, as one who knows PyTorch writes it: the images of all splits are normalised in batches and passed
once through the backbone (channels-last, inference mode), and the layer is trained on the features in memory,
without a `DataLoader`.

Both have the same data, initial layer, batch size, optimizer, schedule and number of epochs, and evaluate alike: the
validation images after every epoch, the test images once, at the end.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from benchmarks import record
from tl_jax import data, models

sys.path.insert(0, str(record.REPOSITORY / "tests" / "porting"))
import torch_reference
from safetensors.torch import load_file

BATCH_SIZE, LEARNING_RATE, MOMENTUM = 128, 0.1, 0.9
FEATURES_BATCH_SIZE = 500
WEIGHTS = "resnet20_cifar.tin32"
FORMS = ("tutorial", "features_once")

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--form", choices=FORMS, default="tutorial")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train_split", default="train", help="tfds notation")
    parser.add_argument("--cache_dir", default="~/.cache/tl_jax/decoded", help="of decoded images")
    args = parser.parse_args()
    splits = data.load_splits(
        "tfds:cifar10",
        data.Selection(train=args.train_split, validation_fraction=0.1),
        data.Decoding(cache_dir=pathlib.Path(args.cache_dir).expanduser()),
        data_dir=args.data_dir,
    )
    print(json.dumps(probe(splits, args.form, args.epochs)))


def probe(splits: dict[str, Any], form: str, epochs: int, *, shuffle: bool = True) -> dict:
    """Returns times and accuracies of one probe.

    Args:
        splits: `train`, `validation` and `test` of `tl_jax.data`.
        form: of `FORMS`.
        epochs: of training.
        shuffle: whether each epoch draws another order; without, both forms see the same batches.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone, head = make_network(len(splits["train"].class_names))
    backbone, head = backbone.to(device), head.to(device)
    began = time.perf_counter()
    batches: dict[str, Callable[[], Batches]]
    if form == "tutorial":
        loaders = {name: make_loader(split, name, shuffle) for name, split in splits.items()}
        batches = {name: lambda loader=loader: loader for name, loader in loaders.items()}

        def predict(images):
            return head(backbone(images.to(device)))

    else:
        features = {name: extract(backbone, split, device) for name, split in splits.items()}
        batches = {
            name: lambda name=name: draw(*features[name], shuffle=shuffle and name == "train")
            for name in splits
        }
        predict = head
    prepared = time.perf_counter() - began
    steps = -(-len(splits["train"].labels) // BATCH_SIZE)
    seconds, accuracies = train(head, predict, batches, epochs, steps)
    return {
        "form": form,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device,
        "epochs": epochs,
        "seconds_before_training": prepared,
        "seconds_per_epoch": sum(seconds) / len(seconds),
        "validation_top1": accuracies[-1],
        "test_top1": accuracy(predict, batches["test"]()),
        "weight_norm": float(head.weight.detach().norm()),
    }


def train(head, predict, batches, epochs: int, steps: int) -> tuple[list[float], list[float]]:
    """Returns the seconds and the validation accuracy of each epoch; `head` is trained."""
    optimizer = torch.optim.SGD(head.parameters(), LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    seconds, accuracies = [], []
    for _ in range(epochs):
        began = time.perf_counter()
        for inputs, labels in batches["train"]():
            logits = predict(inputs)
            loss = nn.functional.cross_entropy(logits, labels.to(logits.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        accuracies.append(accuracy(predict, batches["validation"]()))
        seconds.append(time.perf_counter() - began)
    return seconds, accuracies


@torch.no_grad()
def accuracy(predict: Callable[[torch.Tensor], torch.Tensor], batches: Batches) -> float:
    """Returns the share of images whose largest logit is that of their label."""
    correct = total = 0
    for inputs, labels in batches:
        correct += int((predict(inputs).argmax(1).cpu() == labels.cpu()).sum())
        total += len(labels)
    return correct / total


@torch.inference_mode()
def _features(backbone, split, device: str) -> torch.Tensor:
    mean, std = (value.to(device) for value in _normalisation())
    parts = []
    for start in range(0, len(split.labels), FEATURES_BATCH_SIZE):
        # A view of NHWC memory in the order NCHW is what PyTorch calls channels-last.
        images = torch.from_numpy(split.images[start : start + FEATURES_BATCH_SIZE]).to(device)
        parts.append(backbone((images.permute(0, 3, 1, 2).float() / 255 - mean) / std))
    return torch.cat(parts)


def extract(backbone: nn.Module, split, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the pooled features float32 [N, C] and the labels int64 [N] of a split."""
    features = _features(backbone.to(memory_format=torch.channels_last), split, device)
    # Cloned: autograd refuses tensors that were made in inference mode.
    return features.clone(), torch.from_numpy(split.labels.copy()).long().to(device)


def draw(features: torch.Tensor, labels: torch.Tensor, shuffle: bool) -> Iterator[tuple]:
    """Yields one epoch of batches, the last one as small as it comes."""
    order = torch.randperm(len(labels)) if shuffle else torch.arange(len(labels))
    for rows in order.to(labels.device).split(BATCH_SIZE):
        yield features[rows], labels[rows]


class Images(torch.utils.data.Dataset):
    """Images as normalised tensors, each transformed when it is asked for."""

    def __init__(self, split):
        self.images, self.labels = split.images, split.labels
        self.mean, self.std = _normalisation()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.from_numpy(self.images[index].copy()).permute(2, 0, 1).float() / 255
        return (image - self.mean) / self.std, int(self.labels[index])


def make_loader(split, name: str, shuffle: bool) -> torch.utils.data.DataLoader:
    """Returns the loader of a split; `train` is shuffled."""
    # A last batch of one image is as good as any here: the network is in eval mode.
    return torch.utils.data.DataLoader(
        Images(split), batch_size=BATCH_SIZE, shuffle=shuffle and name == "train", num_workers=2
    )


def make_network(num_classes: int) -> tuple[nn.Module, nn.Module]:
    """Returns the frozen backbone in eval mode, without its last layer, and a new layer."""
    net = torch_reference.cifar_resnet("resnet20_cifar", 200)
    tensors = load_file(record.REPOSITORY / "tl_jax/weights/resnet20_cifar_tin32.safetensors")
    net.load_state_dict(tensors)
    for parameter in net.parameters():
        parameter.requires_grad = False
    torch.manual_seed(0)
    head = nn.Linear(net.linear.in_features, num_classes)
    net.linear = nn.Identity()
    return net.eval(), head


def _normalisation() -> tuple[torch.Tensor, torch.Tensor]:
    known = models.get_pretrained(WEIGHTS)
    return torch.tensor(known.mean)[:, None, None], torch.tensor(known.std)[:, None, None]


if __name__ == "__main__":
    main()
