"""Steps of SGD with momentum here and in PyTorch, from the same weights on the same batches."""

import jax
import numpy as np
import torch
import torch_reference
from fabricate import relative_error
from torch.nn import functional as F

from tl_jax import losses, models, optim, porting, trees

NUM_STEPS, BATCH_SIZE, NUM_CLASSES = 20, 16, 10
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 5e-4

# name: (constructor of the PyTorch network, our stem, image size)
NETWORKS = {
    "resnet20_cifar": (
        lambda: torch_reference.cifar_resnet("resnet20_cifar", NUM_CLASSES),
        None,
        32,
    ),
    "resnet18": (
        lambda: torch_reference.torchvision_resnet("resnet18", NUM_CLASSES, "cifar"),
        "cifar",
        16,
    ),
}


def batches(size):
    """Returns images [steps, B, H, W, 3] whose brightness tells the label, and labels [steps, B]."""
    random = np.random.RandomState(0)
    labels = random.randint(0, NUM_CLASSES, (NUM_STEPS, BATCH_SIZE))
    images = random.standard_normal((NUM_STEPS, BATCH_SIZE, size, size, 3))
    images += (labels[..., None, None, None] - 4.5) / 4.5
    return images.astype(np.float32), labels.astype(np.int32)


def train_torch(net, images, labels):
    """Returns the loss of each step; `net` is trained."""
    optimizer = torch.optim.SGD(
        net.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
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


def train_ours(model, variables, images, labels):
    """Returns the loss of each step and the variables after the last."""
    forward = models.make_forward(model)
    tx = optim.make_optimizer(
        variables["params"],
        optim.make_schedule("constant", LEARNING_RATE, NUM_STEPS),
        name="sgd",
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        # PyTorch's SGD decays every parameter.
        decay_bias_and_norm=True,
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
    make, stem, size = NETWORKS[name]
    torch.manual_seed(0)
    net = make()
    model = models.create_model(name, NUM_CLASSES, stem=stem)
    template = jax.eval_shape(
        lambda key: models.init_variables(model, key, (1, size, size, 3)), jax.random.key(0)
    )
    arrays = {n: array.copy() for n, array in torch_reference.state_dict_arrays(net).items()}
    variables, _ = porting.port_state_dict(arrays, template)
    images, labels = batches(size)
    theirs = train_torch(net, images, labels)
    ours, trained = train_ours(model, variables, images, labels)
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
