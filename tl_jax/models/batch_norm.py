"""Batch normalisation with PyTorch's numbers in Flax's words, freezable one module at a time."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from tl_jax.errors import InputError

# What `jax.checkpoint` policies know the statistics of a batch by.
STATISTICS_NAME = "batch_statistics"

NORM_POLICIES = ("frozen", "batch_stats_no_update", "update")


class BatchNorm(nn.Module):
    """Normalises each channel to `scale * (x - mean) / sqrt(var + epsilon) + bias`.

    In training, `mean` and `var` are the (biased) statistics of the batch, over all axes but the
    last, and the running ones become `momentum * running + (1 - momentum) * batch`, where the
    running variance takes the unbiased estimate `var * n / (n - 1)` with n values per channel. In
    inference they are the running ones. Flax's momentum 0.9 is PyTorch's 0.1; Flax's own BatchNorm
    keeps the biased variance, so its running statistics drift from PyTorch's.

    Statistics are computed, stored and applied in float32 whatever the dtype of the input.

    Attributes:
        dtype: the dtype of the output.
        axis_name: named axis (of `pmap` or `shard_map`) over which batch statistics are averaged;
            None under `jit`, where the batch seen is already the global one.
        frozen_norms: names of the modules to which `norm_policy` applies; the name of this one is
            its path, such as "stage1/block0/bn1".
        norm_policy: what a module in `frozen_norms` does in training: "frozen" (running statistics,
            left untouched), "batch_stats_no_update" (statistics of the batch, running ones left
            untouched) or "update" (as if it were not frozen).
        momentum: the weight of the old running statistics.
        epsilon: added to the variance.
        scale_init: initialiser of `scale`.

    Raises:
        InputError: in training, if there is a single value per channel, whose variance is unknown.

    Source: Ioffe and Szegedy 2015, algorithm 1; conventions of `torch.nn.BatchNorm2d`.
    """

    dtype: jnp.dtype = jnp.dtype("float32")
    axis_name: str | None = None
    frozen_norms: frozenset[str] = frozenset()
    norm_policy: str = "frozen"
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the normalised `x` [..., C]."""
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)

        name = "/".join(self.path)
        policy = self.norm_policy if name in self.frozen_norms else "update"
        x = x.astype(jnp.float32)
        if not train or policy == "frozen":
            mean, var = running_mean.value, running_var.value
        else:
            mean, var, count = _batch_statistics(x, running_mean.value, self.axis_name, name)
            mean, var = checkpoint_name((mean, var), STATISTICS_NAME)
            if policy == "update" and not self.is_initializing():
                keep, take = self.momentum, 1.0 - self.momentum
                running_mean.value = keep * running_mean.value + take * mean
                running_var.value = keep * running_var.value + take * (count / (count - 1)) * var

        def per_channel(values):
            return values.reshape((1,) * (x.ndim - 1) + shape)

        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        y = (x - per_channel(mean)) * per_channel(factor) + per_channel(bias)
        return y.astype(self.dtype)


def _batch_statistics(x, shift, axis_name, name):
    """Returns mean and biased variance [C] of `x` [..., C], and the number of values per channel.

    One pass gives both, as E[d] and E[d²] - E[d]² of d = x - shift: shifting by the running mean
    keeps the difference of squares accurate for channels whose mean is large against their spread.
    """
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    shift = jax.lax.stop_gradient(shift)
    centred = x - shift.reshape((1,) * len(axes) + shift.shape)
    mean = centred.mean(axes)
    mean_of_squares = jnp.square(centred).mean(axes)
    if axis_name is not None:
        mean, mean_of_squares = jax.lax.pmean((mean, mean_of_squares), axis_name)
        count *= jax.lax.axis_size(axis_name)
    if count < 2:
        raise InputError(
            f"BatchNorm {name}: one value per channel in training (input {x.shape}); expected "
            "two or more: use larger batches or images (data.batch_size, data.image_size), or freeze it "
            "with norm_policy 'frozen' (freeze.strategy, freeze.batch_norm)"
        )
    var = jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)
    return mean + shift, var, count
