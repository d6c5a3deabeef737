"""Steps of SGD with momentum here, for comparisons with PyTorch; needs no PyTorch."""

import jax
import numpy as np

from tl_jax import models, optim
from tl_jax.objectives import losses

NUM_STEPS, NUM_CLASSES = 20, 10
MOMENTUM = 0.9
# name: (image size, learning rate, weight decay, batch size); dropout is off. Small rates: with larger ones rounding
# errors flip ReLUs and grow; vgg16 at 1e-5 is 1.3e-4 away after 17 steps under jax 0.10, 1e-6 under 0.12.
VGGS = {"vgg16": (32, 1e-6, 10.0, 4), "vgg16_bn": (32, 1e-6, 10.0, 4)}
# Of both hidden layers, instead of 4096: with these a step is mostly the reading of 500 MB of weights.
HIDDEN_WIDTH = 64


def make_vgg(name):
    """Returns our network, its convolutions as they are."""
    model = models.create_model(name, NUM_CLASSES, dropout=0.0)
    return model.clone(hidden_width=HIDDEN_WIDTH)


def batches(size, batch_size):
    """Returns images [steps, B, H, W, 3], noise upon a pattern per class, and labels [steps, B]."""
    random = np.random.RandomState(0)
    labels = random.randint(0, NUM_CLASSES, (NUM_STEPS, batch_size))
    patterns = random.standard_normal((NUM_CLASSES, size, size, 3))
    images = patterns[labels] + 0.5 * random.standard_normal((NUM_STEPS, batch_size, size, size, 3))
    return images.astype(np.float32), labels.astype(np.int32)


def train_ours(model, variables, images, labels, learning_rate, weight_decay):
    """Returns the loss of each step and the variables after the last."""
    forward = models.make_forward(model)
    # PyTorch's SGD decays every parameter.
    rule = optim.Rule(momentum=MOMENTUM, weight_decay=weight_decay, decay_bias_and_norm=True)
    schedule = optim.make_schedule("constant", learning_rate, NUM_STEPS)
    tx = optim.make_optimizer(variables["params"], schedule, rule)

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
