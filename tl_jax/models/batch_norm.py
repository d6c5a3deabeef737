"""Batch normalisation with PyTorch's numbers in Flax's words, freezable one module at a time.

Shapes: C channels; n values per channel, all axes but the last together.
"""

import functools
from collections.abc import Callable

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

    With `rows`, each group of so many consecutive examples is normalised by statistics of its own (Ghost Batch
    Normalization), and the running ones take the mean over the groups of each group's mean and unbiased variance: one
    update a step, where the source makes one for each group.

    Statistics are stored in float32, and computed and applied in it whatever narrower dtype the input has. Where
    running ones come after a convolution, its kernel is scaled in their place, in float32, and a bias in the
    convolution's dtype is left: a compiler for GPUs can make one call of that and the ReLU after it.

    Attributes:
        dtype: the dtype of the output.
        axis_name: named axis over which batch statistics are averaged, of `pmap`, or of `shard_map` with
            `check_vma=False`; None under `jit`, where the batch seen is already the global one. With `rows`, only the
            running statistics are averaged over it.
        rows: examples of a group; 0 for one group, the whole batch.
        stoch_norm: in training, the probability with which a channel is normalised by the running statistics, as
            they are before this batch counts, instead of those of the batch (Stochastic Normalization); drawn anew
            for each batch, from the rng `dropout`. Modules whose statistics `norm_policy` keeps draw nothing.
        frozen_norms: names of the modules to which `norm_policy` applies; the name of this one is
            its path, such as "stage1/block0/bn1".
        norm_policy: what a module in `frozen_norms` does in training: "frozen" (running statistics,
            left untouched), "batch_stats_no_update" (statistics of the batch, running ones left
            untouched) or "update" (as if it were not frozen).
        momentum: the weight of the old running statistics.
        epsilon: added to the variance.
        scale_init: initialiser of `scale`.

    Raises:
        InputError: in training, if there is a single value per channel, whose variance is unknown, or `rows` does
            not divide the batch.

    Source: Ioffe and Szegedy 2015, algorithm 1; conventions of `torch.nn.BatchNorm2d`. Groups: Hoffer et al. 2017
    (arXiv:1705.08741), algorithm 1. Stochastic Normalization: Kou et al. 2020 (NeurIPS); its code, `StochNorm2d` of
    thuml/Transfer-Learning-Library, has the probability of the other branch, 0.5 as well.
    """

    dtype: jnp.dtype = jnp.dtype("float32")
    axis_name: str | None = None
    rows: int = 0
    stoch_norm: float = 0.0
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
        check_rows(self.rows, len(x))
        groups = len(x) // self.rows if self.rows else 1
        count = x.size // x.shape[-1] // groups
        # A replica has whole groups: only statistics of the whole batch are those of several replicas.
        group_axis = None if self.rows else self.axis_name
        if group_axis is not None:
            count *= jax.lax.axis_size(group_axis)
        if count < 2:
            raise InputError(
                f"BatchNorm {name}: one value per channel in training (input {x.shape}); expected "
                "two or more: use larger batches, groups or images (data.batch_size, model.batch_norm_rows, "
                "data.image_size), or freeze it with norm_policy 'frozen' (freeze.strategy, freeze.batch_norm)"
            )
        normalise = functools.partial(_normalised_by_batch, self.epsilon, group_axis, self.rows)
        y, mean, var = normalise(x, scale, bias, running_mean.value)
        if self.rows:
            mean, var = _averaged(self.axis_name, mean.mean(0), var.mean(0))
        if self.stoch_norm and policy == "update" and not self.is_initializing():
            factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            running = (_wide(x) - running_mean.value) * factor + bias
            chosen = jax.random.bernoulli(self.make_rng("dropout"), self.stoch_norm, shape)
            y = jnp.where(chosen, running, y)
        mean, var = (jax.lax.stop_gradient(values).astype(jnp.float32) for values in (mean, var))
        if policy == "update" and not self.is_initializing():
            keep, take = self.momentum, 1.0 - self.momentum
            running_mean.value = keep * running_mean.value + take * mean
            running_var.value = keep * running_var.value + take * (count / (count - 1)) * var
        return y.astype(self.dtype)


def check_rows(rows: int, size: int, origin: str = "in a batch") -> None:
    """Raises InputError unless `size` examples split into groups of `rows`, or `rows` is 0; names the nearest.

    Args:
        rows: of a group.
        size: examples that BatchNorm sees at once.
        origin: why it sees so many, for the message.
    """
    if rows and (rows < 0 or size % rows):
        fitting = [number for number in range(1, size + 1) if size % number == 0]
        near = sorted(sorted(fitting, key=lambda number: abs(number - rows))[:3])
        raise InputError(
            f"batch_norm_rows={rows}: {size} examples {origin} do not split into groups of that many; nearest: "
            f"{', '.join(map(str, near))}, or 0 for all rows of the global batch"
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _normalised_by_batch(
    epsilon: float,
    axis_name: str | None,
    rows: int,
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

    With `rows`, mean and variance are those of each of G groups, [G, C].

    Source of the derivative: Ioffe and Szegedy 2015, section 3, simplified.
    """
    return _forward(epsilon, axis_name, rows, x, scale, bias, shift)[0]


def _forward(epsilon, axis_name, rows, x, scale, bias, shift):
    values = _wide(x)
    centred = values - shift
    moments = (_by_group(jnp.mean, rows, value) for value in (centred, jnp.square(centred)))
    mean, mean_of_squares = _averaged(axis_name, *moments)
    var = jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)
    mean, var = checkpoint_name((mean + shift, var), STATISTICS_NAME)
    centred = values - _of_rows(rows, x, mean)
    y = centred * _of_rows(rows, x, scale * jax.lax.rsqrt(var + epsilon)) + bias
    return (y, mean, var), (x, scale, shift, mean, var)


def _backward(epsilon, axis_name, rows, saved, cotangents):
    x, scale, shift, mean, var = saved
    grad = cotangents[0]
    inverse = jax.lax.rsqrt(var + epsilon)
    normalised = (_wide(x) - _of_rows(rows, x, mean)) * _of_rows(rows, x, inverse)
    bias_grad = _by_group(jnp.sum, rows, grad)
    scale_grad = _by_group(jnp.sum, rows, grad * normalised)
    count = x.size // mean.size
    along_bias, along_scale = _averaged(axis_name, bias_grad / count, scale_grad / count)
    along_bias, along_scale, factor = (
        _of_rows(rows, x, value) for value in (along_bias, along_scale, scale * inverse)
    )
    x_grad = factor * (grad - along_bias - normalised * along_scale)
    if rows:
        scale_grad, bias_grad = scale_grad.sum(0), bias_grad.sum(0)
    return x_grad.astype(x.dtype), scale_grad, bias_grad, jnp.zeros_like(shift)


_normalised_by_batch.defvjp(_forward, _backward)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _by_group(reduce: Callable[..., jax.Array], rows: int, values: jax.Array) -> jax.Array:
    """Returns the sum or mean of `values` [B, ..., C] for each group, [B / rows, C]; [C] without groups.

    Each row is reduced by itself first: if groups are spread unevenly over devices, XLA's partitioner would gather
    activations that are reshaped to groups, and compute with all of them on every device.
    """
    if not rows:
        return reduce(values, tuple(range(values.ndim - 1)))
    by_row = reduce(values, tuple(range(1, values.ndim - 1)))
    return reduce(by_row.reshape(-1, rows, by_row.shape[-1]), 1)


def _of_rows(rows: int, x: jax.Array, values: jax.Array) -> jax.Array:
    """Returns the values of groups [B / rows, C] for each row of `x`, [B, 1, ..., C]; without groups, as they are."""
    if not rows:
        return values
    return jnp.repeat(values, rows, 0).reshape(len(x), *[1] * (x.ndim - 2), x.shape[-1])


def _averaged(axis_name: str | None, *values: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the means over all replicas where there is an axis."""
    return values if axis_name is None else jax.lax.pmean(values, axis_name)
