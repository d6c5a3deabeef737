"""A small network that is made to learn CIFAR-10 in seconds, trained from scratch in PyTorch.

Written from the description of airbench94 in Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"
(arXiv:2404.00498): a VGG-like network whose first layer whitens patches, convolutions that begin as identities, an
alternating flip, a large learning rate for biases. Left out are Lookahead, the bias of the first layer that is frozen
after some epochs, and the flipped and shifted views at test time: the published accuracy is not to be expected.
"""

import dataclasses
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

WIDTHS = (64, 256, 256)
# Per 1024 examples, with the sum of losses in place of their mean; of biases, times BIAS_RATE.
RATE, MOMENTUM, DECAY, BIAS_RATE, SMOOTHING = 11.5, 0.85, 0.0153, 64.0, 0.2
# The rate rises from a fifth of its peak, which it has after a quarter of the updates, and falls to a fourteenth.
RISE_FROM, PEAK_AT, FALL_TO = 0.2, 0.23, 0.07
SHIFT = 2  # pixels
_PATCHES_FROM = 5000  # images
_EVAL_BATCH = 1000


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How it is trained.

    Attributes:
        epochs: of training.
        batch_size: B; the last, smaller batch of an epoch is left out.
        flip: whether every other epoch shows the mirrored image.
    """

    epochs: int
    batch_size: int
    flip: bool = True


class Block(nn.Module):
    """Two convolutions, the first with a max-pool."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.conv2 = _convolution(inputs, outputs), _convolution(outputs, outputs)
        self.norm1, self.norm2 = _norm(outputs), _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the features, half as high and wide."""
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Network(nn.Module):
    """Whitening, three blocks, a max-pool of what is left, a head without bias."""

    def __init__(self, patches: torch.Tensor, num_classes: int):
        """Takes patches [N, 3, 2, 2] of normalised images, from whose covariance the first layer follows."""
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.data[:] = _whitening(patches)
        self.whiten.weight.requires_grad = False
        widths = (24, *WIDTHS)
        self.blocks = nn.Sequential(*(Block(*pair) for pair in zip(widths, WIDTHS, strict=False)))
        self.head = nn.Linear(WIDTHS[-1], num_classes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, K]."""
        x = self.blocks(F.gelu(self.whiten(x)))
        return self.head(F.adaptive_max_pool2d(x, 1).flatten(1)) / 9


def train(splits: dict[str, Any], recipe: Recipe, device: str, began: float) -> dict[str, Any]:
    """Returns the accuracy on `validation` after each epoch, with times, and that on `test` at the end.

    Args:
        splits: `train`, `validation` and `test` of `tl_jax.data`.
        recipe: of the training.
        device: "cuda" or "cpu".
        began: when its process did, on the clock of `time.perf_counter`.
    """
    torch.manual_seed(0)
    mean = torch.from_numpy(splits["train"].images.mean((0, 1, 2), dtype=np.float64)).float()
    std = torch.from_numpy(splits["train"].images.std((0, 1, 2), dtype=np.float64)).float()
    placed = {name: _placed(split, device, mean, std) for name, split in splits.items()}
    images, labels = placed["train"]
    patches = images[:_PATCHES_FROM].unfold(2, 2, 1).unfold(3, 2, 1)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 2, 2).float()
    net = Network(patches, len(splits["train"].class_names)).to(device)
    net = net.to(memory_format=torch.channels_last)
    size = min(recipe.batch_size, len(images))
    steps = recipe.epochs * (len(images) // size)
    optimizer, schedule = _optimizer(net, size, steps)
    warm_up = time.perf_counter()
    with _half_precision(device):
        saved = {name: value.clone() for name, value in net.state_dict().items()}
        F.cross_entropy(net(images[:size]), labels[:size]).backward()
        net.load_state_dict(saved)
    net.zero_grad(set_to_none=True)
    _wait(device)
    training = time.perf_counter()
    mirrored = torch.rand(len(images), device=device) < 0.5
    curve = []
    for epoch in range(recipe.epochs):
        net.train()
        shown = _augmented(images, mirrored ^ bool(epoch % 2) if recipe.flip else None)
        order = torch.randperm(len(images), device=device)
        for rows in order[: len(order) // size * size].split(size):
            with _half_precision(device):
                logits = net(shown[rows]).float()
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=SMOOTHING)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        accuracy = _accuracy(net, *placed["validation"], device)
        now = time.perf_counter()
        times = {"seconds_from_start": now - began, "seconds_of_training": now - training}
        curve.append({"epoch": epoch + 1, "accuracy": accuracy, **times})
    return {
        "curve": curve,
        "warm_up_seconds": training - warm_up,
        "validation_top1": curve[-1]["accuracy"],
        "test_top1": _accuracy(net, *placed["test"], device),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    made = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    # As many channels as there are inputs pass through as they are.
    nn.init.dirac_(made.weight.data[:inputs])
    return made


def _norm(channels: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    made.weight.requires_grad = False  # Scales are not trained, biases are.
    return made


def _whitening(patches: torch.Tensor) -> torch.Tensor:
    """Returns the eigenvectors of the patches' covariance, each divided by its deviation, and their negatives."""
    flat = patches.flatten(1).double()
    flat = flat - flat.mean(0)
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    scaled = (vectors / torch.sqrt(values + 5e-4)).T.reshape(-1, *patches.shape[1:])
    return torch.cat([scaled, -scaled]).to(patches.dtype)


def _optimizer(net: Network, batch_size: int, steps: int) -> tuple[Any, Any]:
    per_example = RATE / (1024 * (1 + 1 / (1 - MOMENTUM)))
    rate = per_example * batch_size  # of the mean of losses
    decay = DECAY / RATE
    trained = [(name, value) for name, value in net.named_parameters() if value.requires_grad]
    biases = [value for name, value in trained if name.endswith("bias")]
    others = [value for name, value in trained if not name.endswith("bias")]
    groups = [
        {"params": biases, "lr": rate * BIAS_RATE, "weight_decay": decay / BIAS_RATE},
        {"params": others, "lr": rate, "weight_decay": decay},
    ]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True)
    points = [0.0, PEAK_AT * steps, float(steps)]
    shares = [RISE_FROM, 1.0, FALL_TO]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: float(np.interp(step, points, shares))
    )
    return optimizer, schedule


def _placed(split: Any, device: str, mean: torch.Tensor, std: torch.Tensor) -> tuple:
    """Returns normalised images [N, 3, H, W], channels last, and labels [N]."""
    images = torch.from_numpy(np.ascontiguousarray(split.images)).to(device).permute(0, 3, 1, 2)
    mean, std = (value.to(device).view(1, 3, 1, 1) for value in (mean, std))
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return ((images - mean) / std).to(dtype), torch.from_numpy(split.labels.copy()).long().to(
        device
    )


def _augmented(images: torch.Tensor, mirrored: torch.Tensor | None) -> torch.Tensor:
    """Returns the images shifted by up to `SHIFT` pixels, those of `mirrored` turned from left to right."""
    if mirrored is not None:
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    padded = F.pad(images, (SHIFT,) * 4, mode="reflect")
    size = images.shape[-2:]
    shifts = torch.randint(0, 2 * SHIFT + 1, (2, len(images)), device=images.device)
    shown = torch.empty_like(images)
    for down in range(2 * SHIFT + 1):
        for right in range(2 * SHIFT + 1):
            rows = (shifts[0] == down) & (shifts[1] == right)
            shown[rows] = padded[rows, :, down : down + size[0], right : right + size[1]]
    return shown


@torch.inference_mode()
def _accuracy(net: Network, images: torch.Tensor, labels: torch.Tensor, device: str) -> float:
    net.eval()
    correct = 0
    for batch, expected in zip(images.split(_EVAL_BATCH), labels.split(_EVAL_BATCH), strict=True):
        with _half_precision(device):
            correct += int((net(batch).argmax(1) == expected).sum())
    return correct / len(labels)


def _half_precision(device: str) -> torch.autocast:
    """Returns bfloat16 on accelerators; on CPUs, where it is slow, nothing changes."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
