"""Steps of SGD with momentum here and in PyTorch, from the same weights on the same batches.

The learning rates are such that the comparison means something: float32 rounding is amplified from
step to step, and the faster the larger the rate. On batches of 16, PyTorch's own float32 losses of
resnet20_cifar at rate 0.05 leave its float64 ones by 2e-4 (relative) after one step and by 0.2 after
twenty; those of resnet18 at rate 0.001 change by 1e-3 when the order within the batches is reversed.
The weight decay is large, so that at small rates it moves the losses by far more than the tolerance.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import torch
import torch_reference
from fabricate import random_variables, relative_error
from sgd import HIDDEN_WIDTH, MOMENTUM, NUM_CLASSES, VGGS, batches, make_vgg, train_ours
from torch.nn import functional as F

from tl_jax import models, porting, trees


@dataclasses.dataclass(frozen=True)
class Network:
    """One comparison.

    Attributes:
        make: constructs the PyTorch network.
        options: of our network.
        size: of the images, in pixels.
        learning_rate, weight_decay, batch_size: of SGD.
    """

    make: Callable[[], torch.nn.Module]
    options: dict[str, object]
    size: int
    learning_rate: float
    weight_decay: float
    batch_size: int = 16


def _resnet20():
    return torch_reference.cifar_resnet("resnet20_cifar", NUM_CLASSES)


def _resnet18():
    return torch_reference.torchvision_resnet("resnet18", NUM_CLASSES, "cifar")


def _vgg(name):
    def make():
        return torch_reference.torchvision_vgg(name, NUM_CLASSES, hidden_width=HIDDEN_WIDTH)

    return make


NETWORKS = {
    "resnet20_cifar": Network(_resnet20, {}, 32, 0.0005, 0.1),
    # Batches of 16 take twice as long.
    "resnet18": Network(_resnet18, {"stem": "cifar"}, 16, 0.00005, 1.0, 8),
    **{name: Network(_vgg(name), {}, *run) for name, run in VGGS.items()},
}


def train_torch(net, images, labels, learning_rate, weight_decay):
    """Returns the loss of each step; `net` is trained."""
    optimizer = torch.optim.SGD(
        net.parameters(), learning_rate, momentum=MOMENTUM, weight_decay=weight_decay
    )
    net.train()
    history = []
    for x, y in zip(images, labels, strict=True):
        loss = F.cross_entropy(
            net(torch.from_numpy(x).permute(0, 3, 1, 2)), torch.from_numpy(y).long()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return np.array(history)


def measure(name):
    """Returns the largest relative errors of losses, running statistics and parameters.

    VGGs start from the weights of `fabricate`, so that `record_golden.py` can record their losses.
    """
    network = NETWORKS[name]
    size, rates = network.size, (network.learning_rate, network.weight_decay)
    torch.manual_seed(0)
    vgg = name in VGGS
    model = make_vgg(name) if vgg else models.create_model(name, NUM_CLASSES, **network.options)
    template = jax.eval_shape(
        lambda key: models.init_variables(model, key, (1, size, size, 3)), jax.random.key(0)
    )
    if vgg:
        variables = random_variables(model)
        net = torch_reference.load(network.make, porting.export_state_dict(variables))
    else:
        net = network.make()
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
        arrays = {n: array.copy() for n, array in torch_reference.state_dict_arrays(net).items()}
        variables, _ = porting.port_state_dict(arrays, template)
    images, labels = batches(size, network.batch_size)
    ours, trained = train_ours(model, variables, images, labels, *rates)
    theirs = train_torch(net, images, labels, *rates)
    expected, _ = porting.port_state_dict(torch_reference.state_dict_arrays(net), template)
    errors = {
        leaf: relative_error(np.asarray(value), np.asarray(trees.flatten(expected)[leaf]))
        for leaf, value in trees.flatten(trained).items()
    }
    statistics = [error for leaf, error in errors.items() if leaf.startswith("batch_stats")]
    return {
        "losses": ours.tolist(),
        "losses_torch": theirs.tolist(),
        "loss_error": float(np.max(np.abs(ours - theirs) / np.abs(theirs))),
        "statistics_error": max(statistics, default=0.0),
        "parameters_error": max(e for leaf, e in errors.items() if leaf.startswith("params")),
    }
