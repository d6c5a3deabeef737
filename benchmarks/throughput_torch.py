"""The PyTorch sides of `benchmarks.throughput`: eager, and through `torch.compile`.

Written as PyTorch's documentation advises: channels-last, frozen parts with requires_grad_(False) and their BatchNorm
in eval mode, a fused SGD over the trainable parameters only, gradients set to None, inference_mode for the forward
pass. Nothing below the lowest trainable layer requires a gradient, so autograd records nothing there and
torch.no_grad would change nothing. `torch.compile` takes forward and loss, and by itself backward, in one graph.
"""

import contextlib
import sys
from typing import Any

import numpy as np
import torch

from benchmarks import record
from benchmarks.networks import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Network
from benchmarks.throughput_sides import Side
from tl_jax import porting
from tl_jax.augment import preprocessing

sys.path.insert(0, str(record.REPOSITORY / "tests" / "porting"))
import torch_reference


def configure(threads: int, tf32: bool) -> dict[str, Any]:
    """Sets PyTorch's threads and precision; returns the facts to be recorded."""
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    return {
        "torch_threads": torch.get_num_threads(),
        "torch_device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def make(
    network: Network,
    mode: str,
    variables: dict[str, Any],
    batch: dict[str, np.ndarray],
    precision: str,
    compile_mode: str = "",
) -> Side:
    """Returns PyTorch's side, from the weights of ours; eager without `compile_mode`."""
    state_dict = porting.export_state_dict(variables, naming=naming(network))
    return make_with(network, mode, state_dict, batch, precision, compile_mode)


def make_with(
    network: Network,
    mode: str,
    state_dict: dict[str, np.ndarray],
    batch: dict[str, np.ndarray],
    precision: str,
    compile_mode: str = "",
) -> Side:
    """Returns PyTorch's side, from weights under the names of `naming`; eager without `compile_mode`."""
    torch._dynamo.reset()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = torch_reference.load(lambda: _make_network(network), state_dict)
    net = net.to(device, memory_format=torch.channels_last)
    spec = preprocessing.Preprocessing(network.image_size)
    mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)
    # A view of NHWC memory in the order NCHW is what PyTorch calls channels-last.
    images = torch.from_numpy(batch["image"]).to(device).permute(0, 3, 1, 2)
    labels = torch.from_numpy(batch["label"]).long().to(device)

    def autocast():
        if precision == "bfloat16":
            return torch.autocast(device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def infer(images):
        with autocast():
            return net((images.float() / 255 - mean) / std).float()

    def loss_of(images, labels):
        return torch.nn.functional.cross_entropy(infer(images), labels)

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        logits = infer(images).cpu().numpy()
    options = {} if compile_mode in ("", "default") else {"mode": compile_mode}
    if mode == "forward":
        run = torch.compile(infer, **options) if compile_mode else infer

        def forward():
            with torch.inference_mode():
                return run(images)

        return Side(logits, forward, wait, _mean)

    net.train()
    for part in _frozen_parts(network, mode, net):
        part.eval()
        part.requires_grad_(False)
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(
        trainable, LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
    )
    compute_loss = torch.compile(loss_of, **options) if compile_mode else loss_of

    def update():
        optimizer.zero_grad(set_to_none=True)
        loss = compute_loss(images, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Side(logits, update, wait, _mean)


def _mean(value: torch.Tensor) -> float:
    return float(value.float().mean())


def _make_network(network: Network) -> torch.nn.Module:
    if network.model.endswith("_cifar"):
        return torch_reference.cifar_resnet(network.model, network.num_classes)
    if network.model.startswith("vgg"):
        # A width given, its dropout is off: the usual one.
        return torch_reference.torchvision_vgg(
            network.model, network.num_classes, hidden_width=4096
        )
    return torch_reference.torchvision_resnet(
        network.model, network.num_classes, network.stem or "imagenet"
    )


def naming(network: Network) -> str:
    """Returns the naming of the network's state dict, see `porting.export_state_dict`."""
    return "cifar" if network.model.endswith("_cifar") else "torchvision"


def _frozen_parts(network: Network, mode: str, net: torch.nn.Module) -> list[torch.nn.Module]:
    if mode == "full":
        return []
    head = net.fc if hasattr(net, "fc") else net.linear
    late = ["conv1", "bn1", *(f"layer{number}" for number in range(1, network.late + 1))]
    return [
        part
        for name, part in net.named_children()
        if part is not head and (mode == "frozen_backbone" or name in late)
    ]
