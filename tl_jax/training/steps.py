"""The pure training and evaluation steps.

B: images in the global batch; K: classes. A batch is a dict of `image` uint8 [B, H, W, C], `label` int32 [B],
`position` int32 [B] (the row's place in the global batch), in training `index` int32 [B] (its place in the split)
and, in evaluation, `mask` bool [B].
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tl_jax import objectives, optim
from tl_jax.errors import InputError
from tl_jax.models import cpu
from tl_jax.models.taps import LOGITS
from tl_jax.objectives import Outputs, Reference
from tl_jax.training import metrics, sharpness
from tl_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Forward = Callable[..., tuple[Any, dict[str, Any]]]
Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
Transform = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

# Folded into an update's key for dropout and mixing; positions in the batch, which key augmentation, stay far below.
_DROPOUT = 2**31 - 1
_MIXING = 2**31 - 2
# Folded into the seed's key for what is drawn once for each image; numbers of updates stay far below.
_ONCE = 2**31 - 3

# A metric: what `optim.Plateau` has multiplied the learning rate by.
RATE_SCALE = "rate_scale"


def check_accumulation(batch_size: int, accumulation: int, num_devices: int = 1) -> None:
    """Raises InputError unless each of `accumulation` microbatches spreads evenly over the devices."""
    if accumulation < 1 or batch_size % (accumulation * num_devices):
        fitting = [k for k in range(1, batch_size + 1) if batch_size % (k * num_devices) == 0]
        near = sorted(fitting, key=lambda k: abs(k - accumulation))[:3]
        raise InputError(
            f"accumulation={accumulation}: a batch of {batch_size} on {num_devices} devices does not split "
            f"into that many equal microbatches; nearest: {', '.join(map(str, near)) or 'none'}"
        )


@dataclasses.dataclass(frozen=True)
class Once:
    """A transform that is given a key of the seed alone, and places in the split in place of those in the batch.

    An image is then changed alike in every epoch.
    """

    transform: Transform


@dataclasses.dataclass(frozen=True)
class Passes:
    """The networks of a training step.

    Attributes:
        forward: `(params, batch_stats, inputs, *, train, key) -> (outputs, new batch_stats)`, where outputs
            are float32 logits [B, K], or {boundary: features} with the logits under "logits".
        shared: `(params, batch_stats, images) -> (inputs of forward, {boundary: features})`: a frozen prefix
            that is computed once for the trained network and its source, with the features in it that
            objectives look at; None where `forward` takes the images.
        references: `(variables, images, inputs, features) -> {"source": Reference, "teacher": Reference}`,
            each where it is needed; variables are `state.references`, the others as `shared` gives them.
        groups: of the network's params that `forward` reads, which objectives see; None for all.
    """

    forward: Forward
    shared: Callable[[Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]] | None = None
    references: Callable[..., dict[str, Reference]] = lambda *_: {}
    groups: frozenset[str] | None = None


@dataclasses.dataclass(frozen=True)
class GradientOptions:
    """How the gradient of a batch is taken.

    Attributes:
        accumulation: microbatches whose mean gradient makes one update. Microbatch `j` holds the rows
            `j, j + accumulation, ...`, so that it stays spread over all devices; BatchNorm sees one microbatch at a
            time and updates its running statistics after each.
        sam_rho: radius of sharpness-aware minimisation, of each microbatch; 0: none. See `sharpness.aware`.
    """

    accumulation: int = 1
    sam_rho: float = 0.0


_ONE_GRADIENT = GradientOptions()


def update_key(seed: jax.Array | int, step: jax.Array | int) -> jax.Array:
    """Returns the random key of the update after `step` completed ones."""
    return jax.random.fold_in(jax.random.key(seed), step)


def network_input(
    seed: jax.Array | int,
    step: jax.Array | int,
    batch: Batch,
    transform: Transform | Once,
    mixing: Mix | None = None,
) -> dict[str, jax.Array]:
    """Returns what an update shows to the network: `image`, and `label` or, of mixed images, `target`.

    Args:
        seed: of the run.
        step: completed updates.
        batch: with `image`, `label`, `position` and, where images are changed once, `index`.
        transform: see `make_train_step`.
        mixing: likewise.
    """
    key = update_key(seed, step)
    if isinstance(transform, Once):
        once = jax.random.fold_in(jax.random.key(seed), _ONCE)
        images = transform.transform(once, batch["index"], batch["image"])
    else:
        images = transform(key, batch["position"], batch["image"])
    if mixing is None:
        return {"image": images, "label": batch["label"]}
    mixed, targets = mixing(jax.random.fold_in(key, _MIXING), images, batch["label"])
    return {"image": mixed, "target": targets}


def make_train_step(
    passes: Passes | Forward,
    transform: Transform | Once,
    tx: optax.GradientTransformation,
    *,
    frozen_mask: dict[str, Any],
    objective: objectives.Objective | None = None,
    gradient: GradientOptions = _ONE_GRADIENT,
    mixing: Mix | None = None,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the pure `train_step(state, batch) -> (state, metrics)`.

    The randomness of update `t` is `fold_in(key(state.seed), t)`. Frozen leaves are returned as they came,
    bit for bit; that their gradients are never used lets the compiler drop the backward pass below
    the lowest trainable leaf.

    Args:
        passes: the networks, or the forward pass where no objective needs more.
        transform: `(key, position, image) -> float32 [B, S, S, 3]`, augmentation and normalisation; see `Once`.
        tx: any gradient transformation; gives frozen leaves no state.
        frozen_mask: tree of bools like params, True where frozen.
        objective: what is minimised; None: cross-entropy.
        gradient: how the gradient of a batch is taken.
        mixing: `(key, images, labels) -> (images, targets float32 [B, K])`, of the whole batch before it is
            split; its key is that of the update with 2**31 - 2 folded in. See `augment.mixing.make_mixing`.
        axis_name: the mapped axis to average over (pmap); None where arrays are global (jit).

    Metrics: `loss` (mean of the objective, all terms included), `top1_accuracy` in [0, 1] (of mixed targets the
    most probable class counts), `grad_norm` (global norm of the trainable gradient before clipping), `rate_scale`
    where `tx` has a plateau, and those of the objective.
    """
    if not isinstance(passes, Passes):
        passes = Passes(passes)
    minimised = objectives.CrossEntropy() if objective is None else objective
    tx = optax.with_extra_args_support(tx)

    def loss_fn(params, batch_stats, inputs, shared, rows, references, key):
        network = objectives.of_network(params)
        computed, batch_stats = passes.forward(network, batch_stats, inputs, train=True, key=key)
        computed = computed if isinstance(computed, dict) else {LOGITS: computed}
        features = {**shared, **computed}
        outputs = Outputs(
            logits=features[LOGITS],
            labels=rows.get("label"),
            soft_targets=rows.get("target"),
            features=features,
            params=_visible(network, passes.groups),
            own=objectives.of_objectives(params),
            source=references.get("source"),
            teacher=references.get("teacher"),
        )
        loss, measured = objectives.evaluate(minimised, outputs)
        measured = {**measured, "loss": loss, "top1_accuracy": outputs.accuracy()}
        return loss, (batch_stats, measured)

    def gradients(state, batch_stats, rows, key):
        inputs = rows["image"]
        shared: dict[str, jax.Array] = {}
        if passes.shared is not None:
            network = objectives.of_network(state.params)
            inputs, shared = passes.shared(network, batch_stats, rows["image"])
        references = passes.references(state.references, rows["image"], inputs, shared)
        (_, (batch_stats, measured)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, batch_stats, inputs, shared, rows, references, key
        )
        return grads, batch_stats, measured

    if gradient.sam_rho:
        gradients = sharpness.aware(gradients, gradient.sam_rho, frozen_mask, axis_name)
    accumulation = gradient.accumulation

    def accumulated(state, batch_stats, rows, key):
        def split(rows):
            return jnp.moveaxis(rows.reshape(-1, accumulation, *rows.shape[1:]), 1, 0)

        def add(carry, microbatch):
            batch_stats, total = carry
            grads, batch_stats, measured = gradients(state, batch_stats, *microbatch)
            return (batch_stats, jax.tree.map(jnp.add, total, (grads, measured))), None

        microbatches = jax.tree.map(split, rows), jax.random.split(key, accumulation)
        first = jax.tree.map(lambda leaf: leaf[0], microbatches)
        shapes = jax.eval_shape(gradients, state, batch_stats, *first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[2]))
        (batch_stats, total), _ = jax.lax.scan(
            add, (batch_stats, zeros), microbatches, unroll=cpu.unrolled()
        )
        grads, measured = jax.tree.map(lambda leaf: leaf / accumulation, total)
        return grads, batch_stats, measured

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = update_key(state.seed, state.step)
        rows = network_input(state.seed, state.step, batch, transform, mixing)
        dropout = jax.random.fold_in(key, _DROPOUT)
        if axis_name is not None:
            # Each device sees its rows alone, and would drop the same units of all of them.
            dropout = jax.random.fold_in(dropout, jax.lax.axis_index(axis_name))
        compute = gradients if accumulation == 1 else accumulated
        grads, batch_stats, measured = compute(state, state.batch_stats, rows, dropout)
        if axis_name is not None:
            grads, measured = jax.lax.pmean((grads, measured), axis_name)
        updates, opt_state = tx.update(grads, state.opt_state, state.params, value=measured["loss"])
        scale = optim.plateau_scale(opt_state)
        if scale is not None:
            measured = {**measured, RATE_SCALE: scale}
        params = jax.tree.map(
            lambda frozen, leaf, update: leaf if frozen else leaf + update,
            frozen_mask,
            state.params,
            updates,
        )
        new = state.replace(
            step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state
        )
        return new, {**measured, "grad_norm": sharpness.norm_of_trainable(grads, frozen_mask)}

    return train_step


def _visible(params: dict[str, Any], groups: frozenset[str] | None) -> dict[str, Any]:
    if groups is None:
        return params
    return {group: tree for group, tree in params.items() if group in groups}


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


def make_counting_step(eval_step: Callable) -> Callable:
    """Returns `eval_step` with `metrics.class_counts` among its sums."""

    def counting_step(params, batch_stats, batch):
        sums, logits = eval_step(params, batch_stats, batch)
        return {**sums, **metrics.class_counts(logits, batch["label"], batch["mask"])}, logits

    return counting_step
