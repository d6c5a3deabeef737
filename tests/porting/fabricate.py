"""Deterministic weights and images, the same on every machine and with every NumPy."""

import jax
import numpy as np

from tl_jax import models, trees

# Values drawn for a kernel, at most; the hidden layers of VGG have a hundred times as many.
_DRAWN = 9_999_991


def random_variables(model, seed=0):
    """Returns {"params", "batch_stats"} with every leaf random, running statistics too.

    `RandomState` is frozen by NumPy's compatibility policy (NEP 19); `default_rng` is not. The last
    BatchNorm of a block is scaled down, or activations would double from block to block.
    """
    shapes = jax.eval_shape(
        lambda key: models.init_variables(model, key, (1, 32, 32, 3)), jax.random.key(0)
    )
    flat = trees.flatten(shapes)
    last = {}
    for name in flat:
        if "/bn" in name and "/block" in name and name.endswith("/scale"):
            block = name.rsplit("/", 2)[0]
            last[block] = max(last.get(block, ""), name)
    random = np.random.RandomState(seed)
    leaves = {
        name: _leaf(random, name, flat[name].shape, name in last.values()) for name in sorted(flat)
    }
    return {"params": {}, "batch_stats": {}} | trees.unflatten(leaves)


def _leaf(random, name, shape, is_last):
    leaf = name.rsplit("/", 1)[1]
    if leaf == "kernel":
        # Uniform with the variance 2 / fan-in of He et al.; much quicker to draw than normal.
        bound = np.sqrt(6 / np.prod(shape[:-1]))
        # The period of a large kernel is a prime, so that no two rows or columns are the same.
        values = random.uniform(-bound, bound, min(_DRAWN, np.prod(shape)))
        values = np.resize(values, shape)
    elif leaf == "scale":
        values = random.uniform(0.5, 1.5, shape) * (0.3 if is_last else 1.0)
    elif leaf == "var":
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = random.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def random_images(shape, seed=1):
    """Returns float32 images [B, H, W, 3] from a standard normal distribution."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def boundary_features(model, variables, images):
    """Returns {boundary: array} of the network in inference, compiled once."""

    @jax.jit
    def run(variables, x):
        features, start = {}, None
        for boundary in model.boundaries:
            x = model.apply(variables, x, train=False, start=start, stop=boundary)
            features[boundary], start = x, boundary
        return features

    return {name: np.asarray(value) for name, value in run(variables, images).items()}


def relative_error(ours, reference):
    """Returns max |ours - reference| / max |reference|; shapes must agree."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return float(np.max(np.abs(ours - reference)) / np.max(np.abs(reference)))
