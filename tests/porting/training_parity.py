"""Steps of SGD with momentum here and in PyTorch, from the same weights on the same batches.

The learning rates are such that the comparison means something: float32 rounding is amplified from
step to step, and the faster the larger the rate. On batches of 16, PyTorch's own float32 losses of
resnet20_cifar at rate 0.05 leave its float64 ones by 2e-4 (relative) after one step and by 0.2 after
twenty; those of resnet18 at rate 0.001 change by 1e-3 when the order within the batches is reversed.
The weight decay is large, so that at small rates it moves the losses by far more than the tolerance.
"""

import jax
import numpy as np
import torch
import torch_reference
from fabricate import relative_error
from torch.nn import functional as F

from tl_jax import models, optim, porting, trees
from tl_jax.objectives import losses

NUM_STEPS, BATCH_SIZE, NUM_CLASSES = 20, 16, 10
MOMENTUM = 0.9

# name: (constructor of the PyTorch network, our stem, image size, learning rate, weight decay)
NETWORKS = {
    "resnet20_cifar": (
        lambda: torch_reference.cifar_resnet("resnet20_cifar", NUM_CLASSES),
        None,
        32,
        0.0005,
        0.1,
    ),
    "resnet18": (
        lambda: torch_reference.torchvision_resnet("resnet18", NUM_CLASSES, "cifar"),
        "cifar",
        16,
        0.00005,
        1.0,
    ),
}


def batches(size):
    """Returns images [steps, B, H, W, 3], noise upon a pattern per class, and labels [steps, B]."""
    random = np.random.RandomState(0)
    labels = random.randint(0, NUM_CLASSES, (NUM_STEPS, BATCH_SIZE))
    patterns = random.standard_normal((NUM_CLASSES, size, size, 3))
    images = patterns[labels] + 0.5 * random.standard_normal((NUM_STEPS, BATCH_SIZE, size, size, 3))
    return images.astype(np.float32), labels.astype(np.int32)


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


def train_ours(model, variables, images, labels, learning_rate, weight_decay):
    """Returns the loss of each step and the variables after the last."""
    forward = models.make_forward(model)
    tx = optim.make_optimizer(
        variables["params"],
        optim.make_schedule("constant", learning_rate, NUM_STEPS),
        optim.Rule(
            name="sgd", momentum=MOMENTUM, weight_decay=weight_decay, decay_bias_and_norm=True
        ),
    )

    @jax.jit
    def step(params, batch_stats, opt_state, x, y):
        def loss_fn(params):
            logits, new_stats = forward(params, batch_stats, x, train=True)
            return losses.cross_entropy(logits, y).mean(), new_stats

        (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        return params, batch_stats, opt_state, loss

    params, batch_stats = variables["params"], variables["batch_stats"]
    opt_state, history = tx.init(params), []
    for x, y in zip(images, labels, strict=True):
        params, batch_stats, opt_state, loss = step(params, batch_stats, opt_state, x, y)
        history.append(float(loss))
    return np.array(history), {"params": params, "batch_stats": batch_stats}


def measure(name):
    """Returns the largest relative errors of losses, running statistics and parameters."""
    make, stem, size, learning_rate, weight_decay = NETWORKS[name]
    torch.manual_seed(0)
    net = make()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    model = models.create_model(name, NUM_CLASSES, stem=stem)
    template = jax.eval_shape(
        lambda key: models.init_variables(model, key, (1, size, size, 3)), jax.random.key(0)
    )
    arrays = {n: array.copy() for n, array in torch_reference.state_dict_arrays(net).items()}
    variables, _ = porting.port_state_dict(arrays, template)
    images, labels = batches(size)
    theirs = train_torch(net, images, labels, learning_rate, weight_decay)
    ours, trained = train_ours(model, variables, images, labels, learning_rate, weight_decay)
    expected, _ = porting.port_state_dict(torch_reference.state_dict_arrays(net), template)
    errors = {
        leaf: relative_error(np.asarray(value), np.asarray(trees.flatten(expected)[leaf]))
        for leaf, value in trees.flatten(trained).items()
    }
    return {
        "losses": ours.tolist(),
        "losses_torch": theirs.tolist(),
        "loss_error": float(np.max(np.abs(ours - theirs) / np.abs(theirs))),
        "statistics_error": max(e for leaf, e in errors.items() if leaf.startswith("batch_stats")),
        "parameters_error": max(e for leaf, e in errors.items() if leaf.startswith("params")),
    }
