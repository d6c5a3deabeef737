"""Batch normalisation with PyTorch's numbers in Flax's words, freezable one module at a time.

Shapes: C channels; n values per channel, all axes but the last together.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from tl_jax.errors import InputError
from tl_jax.models.convolution import Convolution

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

    Statistics are stored in float32, and computed and applied in it whatever narrower dtype the input has. Where
    running ones come after a convolution, its kernel is scaled in their place, in float32, and a bias in the
    convolution's dtype is left: a compiler for GPUs can make one call of that and the ReLU after it.

    Attributes:
        dtype: the dtype of the output.
        axis_name: named axis over which batch statistics are averaged, of `pmap`, or of `shard_map` with
            `check_vma=False`; None under `jit`, where the batch seen is already the global one.
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
    def __call__(
        self, x: jax.Array, train: bool, convolution: Convolution | None = None
    ) -> jax.Array:
        """Returns the normalised `x` [..., C] or, where there is a convolution, the normalised `convolution(x)`."""
        shape = (x.shape[-1] if convolution is None else convolution.features,)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)

        name = "/".join(self.path)
        policy = self.norm_policy if name in self.frozen_norms else "update"
        if not train or policy == "frozen":
            factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            if convolution is not None:
                y = convolution(x, factor, bias - running_mean.value * factor)
            else:
                y = (_wide(x) - running_mean.value) * factor + bias
            return y.astype(self.dtype)

        x = x if convolution is None else convolution(x)
        count = x.size // x.shape[-1]
        if self.axis_name is not None:
            count *= jax.lax.axis_size(self.axis_name)
        if count < 2:
            raise InputError(
                f"BatchNorm {name}: one value per channel in training (input {x.shape}); expected "
                "two or more: use larger batches or images (data.batch_size, data.image_size), or freeze it "
                "with norm_policy 'frozen' (freeze.strategy, freeze.batch_norm)"
            )
        normalise = functools.partial(_normalised_by_batch, self.epsilon, self.axis_name)
        y, *statistics = normalise(x, scale, bias, running_mean.value)
        mean, var = (jax.lax.stop_gradient(values).astype(jnp.float32) for values in statistics)
        if policy == "update" and not self.is_initializing():
            keep, take = self.momentum, 1.0 - self.momentum
            running_mean.value = keep * running_mean.value + take * mean
            running_var.value = keep * running_var.value + take * (count / (count - 1)) * var
        return y.astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _normalised_by_batch(
    epsilon: float,
    axis_name: str | None,
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    shift: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the normalised `x` in float32 (or wider) [..., C], and the mean and the biased variance [C].

    One pass gives both, as E[d] and E[d²] - E[d]² of d = x - shift: shifting by the running mean keeps the
    difference of squares accurate for channels whose mean is large against their spread. The derivative takes
    two sums, which are the gradients of bias and scale (that which JAX derives takes three); it is that of the
    normalised values alone, the statistics count as constants.

    Source of the derivative: Ioffe and Szegedy 2015, section 3, simplified.
    """
    return _forward(epsilon, axis_name, x, scale, bias, shift)[0]


def _forward(epsilon, axis_name, x, scale, bias, shift):
    values = _wide(x)
    centred = values - shift
    mean, mean_of_squares = _means(axis_name, centred, jnp.square(centred))
    var = jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)
    mean, var = checkpoint_name((mean + shift, var), STATISTICS_NAME)
    y = (values - mean) * (scale * jax.lax.rsqrt(var + epsilon)) + bias
    return (y, mean, var), (x, scale, shift, mean, var)


def _backward(epsilon, axis_name, saved, cotangents):
    x, scale, shift, mean, var = saved
    grad = cotangents[0]
    inverse = jax.lax.rsqrt(var + epsilon)
    normalised = (_wide(x) - mean) * inverse
    axes = tuple(range(x.ndim - 1))
    bias_grad, scale_grad = grad.sum(axes), (grad * normalised).sum(axes)
    count = x.size // x.shape[-1]
    along_bias, along_scale = bias_grad / count, scale_grad / count
    if axis_name is not None:
        along_bias, along_scale = jax.lax.pmean((along_bias, along_scale), axis_name)
    x_grad = (scale * inverse) * (grad - along_bias - normalised * along_scale)
    return x_grad.astype(x.dtype), scale_grad, bias_grad, jnp.zeros_like(shift)


_normalised_by_batch.defvjp(_forward, _backward)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _means(axis_name: str | None, *values: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the means [C] of arrays [..., C], over all replicas where there is an axis."""
    means = tuple(value.mean(tuple(range(value.ndim - 1))) for value in values)
    return means if axis_name is None else jax.lax.pmean(means, axis_name)
