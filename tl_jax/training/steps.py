"""The pure training and evaluation steps.

B: images in the global batch; K: classes. A batch is a dict of `image` uint8 [B, H, W, C], `label` int32 [B],
`position` int32 [B] (the row's place in the global batch) and, in evaluation, `mask` bool [B].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tl_jax import optim
from tl_jax.errors import InputError
from tl_jax.models import cpu
from tl_jax.objectives import losses
from tl_jax.training import metrics
from tl_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Forward = Callable[..., tuple[jax.Array, dict[str, Any]]]
Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

# Folded into an update's key for dropout and mixing; positions in the batch, which key augmentation, stay far below.
_DROPOUT = 2**31 - 1
_MIXING = 2**31 - 2


def check_accumulation(batch_size: int, accumulation: int, num_devices: int = 1) -> None:
    """Raises InputError unless each of `accumulation` microbatches spreads evenly over the devices."""
    if accumulation < 1 or batch_size % (accumulation * num_devices):
        fitting = [k for k in range(1, batch_size + 1) if batch_size % (k * num_devices) == 0]
        near = sorted(fitting, key=lambda k: abs(k - accumulation))[:3]
        raise InputError(
            f"accumulation={accumulation}: a batch of {batch_size} on {num_devices} devices does not split "
            f"into that many equal microbatches; nearest: {', '.join(map(str, near)) or 'none'}"
        )


def make_train_step(
    forward: Forward,
    transform: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    tx: optax.GradientTransformation,
    *,
    frozen_mask: dict[str, Any],
    label_smoothing: float | jax.Array = 0.0,
    accumulation: int = 1,
    mixing: Mix | None = None,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the pure `train_step(state, batch) -> (state, metrics)`.

    The randomness of update `t` is `fold_in(key(state.seed), t)`. Frozen leaves are returned as they came,
    bit for bit; that their gradients are never used lets the compiler drop the backward pass below
    the lowest trainable leaf.

    Args:
        forward: `(params, batch_stats, inputs, *, train, key) -> (logits float32 [B, K], new batch_stats)`.
        transform: `(key, position, image) -> float32 [B, S, S, 3]`, augmentation and normalisation.
        tx: the gradient transformation; gives frozen leaves no state.
        frozen_mask: tree of bools like params, True where frozen.
        label_smoothing: in [0, 1); a traced scalar is not checked.
        accumulation: microbatches whose mean gradient makes one update. Microbatch `j` holds the rows
            `j, j + accumulation, ...`, so that it stays spread over all devices; BatchNorm sees one
            microbatch at a time and updates its running statistics after each.
        mixing: `(key, images, labels) -> (images, targets float32 [B, K])`, of the whole batch before it is
            split; its key is that of the update with 2**31 - 2 folded in. See `augment.mixing.make_mixing`.
        axis_name: the mapped axis to average over (pmap); None where arrays are global (jit).

    Metrics: `loss` (mean training loss, smoothing included), `top1_accuracy` in [0, 1] (of mixed targets the
    most probable class counts), `grad_norm` (global norm of the trainable gradient before clipping).
    """

    def loss_fn(params, batch_stats, images, labels, key):
        logits, batch_stats = forward(params, batch_stats, images, train=True, key=key)
        cross_entropy = losses.cross_entropy if mixing is None else losses.soft_cross_entropy
        loss = cross_entropy(logits, labels, label_smoothing).mean()
        labels = labels if mixing is None else labels.argmax(-1)
        accuracy = (logits.argmax(-1) == labels).astype(jnp.float32).mean()
        return loss, (batch_stats, {"loss": loss, "top1_accuracy": accuracy})

    def gradients(params, batch_stats, images, labels, key):
        (_, (batch_stats, measured)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params, batch_stats, images, labels, key
        )
        return grads, batch_stats, measured

    def accumulated(params, batch_stats, images, labels, key):
        def split_rows(rows):
            return jnp.moveaxis(rows.reshape(-1, accumulation, *rows.shape[1:]), 1, 0)

        def add(carry, rows):
            batch_stats, total = carry
            grads, batch_stats, measured = gradients(params, batch_stats, *rows)
            return (batch_stats, jax.tree.map(jnp.add, total, (grads, measured))), None

        shapes = jax.eval_shape(
            gradients, params, batch_stats, *(split_rows(r)[0] for r in (images, labels)), key
        )
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[2]))
        (batch_stats, total), _ = jax.lax.scan(
            add,
            (batch_stats, zeros),
            (split_rows(images), split_rows(labels), jax.random.split(key, accumulation)),
            unroll=cpu.unrolled(),
        )
        grads, measured = jax.tree.map(lambda leaf: leaf / accumulation, total)
        return grads, batch_stats, measured

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        images, labels = transform(key, batch["position"], batch["image"]), batch["label"]
        if mixing is not None:
            images, labels = mixing(jax.random.fold_in(key, _MIXING), images, labels)
        dropout_key = jax.random.fold_in(key, _DROPOUT)
        compute = gradients if accumulation == 1 else accumulated
        grads, batch_stats, measured = compute(
            state.params, state.batch_stats, images, labels, dropout_key
        )
        if axis_name is not None:
            grads, measured = jax.lax.pmean((grads, measured), axis_name)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = jax.tree.map(
            lambda frozen, leaf, update: leaf if frozen else leaf + update,
            frozen_mask,
            state.params,
            updates,
        )
        return (
            TrainState(state.step + 1, state.seed, params, batch_stats, opt_state),
            {**measured, "grad_norm": optim.grad_norm(opt_state)},
        )

    return train_step


def make_eval_step(
    forward: Forward, transform: Callable[[jax.Array], jax.Array]
) -> Callable[[dict[str, Any], dict[str, Any], Batch], tuple[dict[str, jax.Array], jax.Array]]:
    """Returns the pure `eval_step(params, batch_stats, batch) -> (sums, logits float32 [B, K])`.

    `sums` are those of `metrics.batch_sums`: rows whose mask is False count nothing.
    """

    def eval_step(params, batch_stats, batch):
        logits, _ = forward(params, batch_stats, transform(batch["image"]), train=False)
        return metrics.batch_sums(logits, batch["label"], batch["mask"]), logits

    return eval_step
