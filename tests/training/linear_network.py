"""Two linear layers, whose updates are computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import freezing, optim
from tl_jax.training import steps
from tl_jax.training.state import TrainState

IMAGES = np.array([[1, 2], [3, 4]], np.uint8).reshape(2, 1, 1, 2)
LABELS = np.array([0, 1], np.int32)


def linear(params, batch_stats, images, *, train, key=None):
    """Logits [B, 2] of images [B, 1, 1, 2]: two linear layers, and a count of the calls in training."""
    hidden = images.reshape(len(images), -1) @ params["backbone"]["kernel"]
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    return logits, {"calls": batch_stats["calls"] + 1} if train else batch_stats


def as_float(key, positions, images):
    del key, positions
    return images.astype(jnp.float32)


def batch_of(images=IMAGES, labels=LABELS):
    return {"image": images, "label": labels, "position": np.arange(len(labels), dtype=np.int32)}


def zero_head(backbone=((1.0, 0.0), (0.0, 1.0))):
    return {
        "backbone": {"kernel": jnp.array(backbone)},
        "head": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)},
    }


def make(params, *, frozen=None, rate=0.1, seed=0, forward=linear, transform=as_float, **options):
    """Returns a step with plain SGD and the state before it."""
    optimizer = {
        name: options.pop(name) for name in ("momentum", "weight_decay") if name in options
    }
    mask = frozen or jax.tree.map(lambda _: False, params)
    rule = optim.Rule(**{"momentum": 0.0, **optimizer})
    tx = optim.make_optimizer(params, lambda step: rate, rule, frozen_mask=mask)
    state = TrainState(
        jnp.int32(0), jnp.int32(seed), params, {"calls": jnp.int32(0)}, tx.init(params)
    )
    return steps.make_train_step(forward, transform, tx, frozen_mask=mask, **options), state


def backbone_frozen(params):
    return freezing.frozen_mask(params, "backbone")
