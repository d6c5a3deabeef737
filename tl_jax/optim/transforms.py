"""The gradient transformation: SGD or AdamW on the trainable leaves, nothing on the frozen ones."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tl_jax import errors, trees
from tl_jax.errors import InputError
from tl_jax.optim._checks import Problems, is_at_least_0, is_data, is_number

OPTIMIZERS = ("sgd", "adamw")


class GradNormState(NamedTuple):
    """Holds the global norm of the last gradient of the trainable leaves, before clipping."""

    norm: jax.Array


class StartState(NamedTuple):
    """Holds the trainable leaves outside the head as they were at the start: where L2-SP pulls to."""

    start: Any


def grad_norm(opt_state: Any) -> jax.Array:
    """Returns the float32 norm of the last gradient of the trainable leaves, before clipping.

    Args:
        opt_state: a state made by `make_optimizer`'s transformation; 0 before the first update.
    """
    found = [
        node
        for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, GradNormState))
        if isinstance(node, GradNormState)
    ]
    if len(found) != 1:
        raise ValueError(f"the optimizer state holds {len(found)} gradient norms, expected 1")
    return found[0].norm


def make_optimizer(
    params: trees.Tree,
    schedule: optax.Schedule,
    *,
    name: str = "sgd",
    momentum: float = 0.9,
    nesterov: bool = False,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float | jax.Array = 0.0,
    l2_sp: float | jax.Array = 0.0,
    decay_bias_and_norm: bool = False,
    clip_norm: float = 0.0,
    multipliers: trees.Tree | None = None,
    frozen_mask: trees.Tree | None = None,
) -> optax.GradientTransformation:
    """Returns the transformation of gradients into updates, with PyTorch's semantics.

    With g the gradient, w the parameter, d `weight_decay`, lr the schedule's rate times the leaf's
    multiplier:

    - `sgd`: g <- g + d w; v <- momentum v + g; w <- w - lr v, or w - lr (g + momentum v) with
      `nesterov`.
    - `adamw`: w <- w - lr (m_hat / (sqrt(v_hat) + eps) + d w), the decay thus scaled by the
      multiplier.

    With `l2_sp` above 0, `l2_sp * (w - w0)` takes the place of d w in every trainable leaf outside the
    head, biases and BatchNorm included; w0 is what `init` was given, and is in its state. The head,
    which has no pretrained values to stay near, keeps its weight decay.

    Everything happens inside the trainable partition: frozen leaves get no update and no state, do
    not count in the norm that clips, and the compiler drops their backward pass.

    Args:
        params: nested dict of arrays (or of shapes), for its names only.
        schedule: the learning rate as a function of the number of completed updates.
        name: `sgd` or `adamw`.
        momentum: of `sgd`, within [0, 1); 0 keeps no state.
        nesterov: of `sgd`; needs momentum.
        b1: of `adamw`, within [0, 1).
        b2: of `adamw`, within [0, 1).
        eps: of `adamw`, above 0.
        weight_decay: at least 0; an array, such as a traced scalar, is not checked.
        l2_sp: strength of the pull to the start, at least 0; an array is not checked, and its program
            holds both the pull and the decay and takes one of them by its value.
        decay_bias_and_norm: whether weight decay also acts on biases and BatchNorm.
        clip_norm: the largest global norm of the trainable gradient, before weight decay; 0 for no
            clipping.
        multipliers: tree of positive floats like `params`, see `lr_multipliers`; None for 1.
        frozen_mask: tree of Python bools like `params`, True where frozen; None freezes nothing.

    Raises:
        InputError: for an unknown name, or listing every argument out of range.

    Source: `torch.optim.SGD`, `torch.optim.AdamW` and `torch.nn.utils.clip_grad_norm_` (whose 1e-6
    in the denominator is kept) of PyTorch 2; L2-SP, Li, Grandvalet and Davoine 2018
    (arXiv:1802.01483), equation 3.
    """
    if name not in OPTIMIZERS:
        raise errors.unknown("optimizer", name, OPTIMIZERS)
    _check(name, momentum, nesterov, b1, b2, eps, weight_decay, l2_sp, clip_norm)
    names = list(trees.flatten(params))
    frozen = _aligned("frozen_mask", frozen_mask, names, False)
    scales = _aligned("multipliers", multipliers, names, 1.0)
    decays = {
        leaf: weight_decay if decay_bias_and_norm or _is_kernel(leaf) else 0.0 for leaf in names
    }

    def trainable(flat: dict[str, Any]) -> Any:
        return trees.unflatten(
            {leaf: optax.MaskedNode() if frozen[leaf] else flat[leaf] for leaf in names}
        )

    decay = optax.identity()
    if is_data(weight_decay) or weight_decay:
        decay = _add_decay(trainable(decays))
    if is_data(l2_sp) or l2_sp:
        pulled = {leaf: leaf.split("/", 1)[0] != "head" for leaf in names}
        decay = _pull_to_start(trainable(pulled), l2_sp, trainable(decays))
    if name == "sgd":
        rule = optax.trace(momentum, nesterov) if momentum else optax.identity()
        steps = [decay, rule]
    else:
        steps = [_scale_by_adam(b1, b2, eps), decay]
    tx = optax.chain(
        _record_and_clip(clip_norm),
        *steps,
        _scale_leaves(trainable(scales)),
        optax.scale_by_learning_rate(schedule),
    )
    return optax.transforms.selective_transform(tx, freeze_mask=trees.unflatten(frozen))


def _record_and_clip(clip_norm: float) -> optax.GradientTransformation:
    def init(params):
        del params
        return GradNormState(jnp.zeros((), jnp.float32))

    def update(updates, state, params=None):
        del state, params
        norm = optax.tree.norm(updates).astype(jnp.float32)
        if clip_norm:
            scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
            updates = jax.tree.map(lambda g: g * scale.astype(g.dtype), updates)
        return updates, GradNormState(norm)

    return optax.GradientTransformation(init, update)


def _scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Returns Adam's m_hat / (sqrt(v_hat) + eps), with bias corrections exact to float32.

    `optax.scale_by_adam` takes 1 - b2**t from a rounded b2, 1.3e-5 away from PyTorch's at t = 1.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)
        scale1, scale2 = _bias_correction(b1, count), _bias_correction(b2, count)
        updates = jax.tree.map(lambda m, v: m / scale1 / (jnp.sqrt(v / scale2) + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _bias_correction(decay: float, count: jax.Array) -> jax.Array:
    """Returns 1 - decay**count as float32."""
    log_decay = math.log(decay) if decay else -math.inf
    return -jnp.expm1(count.astype(jnp.float32) * log_decay)


def _add_decay(decays: Any) -> optax.GradientTransformation:
    def update(updates, params):
        return jax.tree.map(_decayed, updates, decays, params)

    return optax.stateless(update)


def _decayed(g: jax.Array, decay: float | jax.Array, w: jax.Array) -> jax.Array:
    return g + decay * w if is_data(decay) or decay else g


def _pull_to_start(
    pulled: Any, l2_sp: float | jax.Array, decays: Any
) -> optax.GradientTransformation:
    """Returns L2-SP on the leaves for which `pulled` is True, weight decay on the others."""

    def init(params):
        # Copied: the training step donates params and state, and no buffer can be donated twice.
        return StartState(
            jax.tree.map(
                lambda w, pull: jnp.copy(w) if pull else optax.MaskedNode(), params, pulled
            )
        )

    def regularised(g, w, pull, decay, start):
        if not pull:
            return _decayed(g, decay, w)
        toward = g + l2_sp * (w - start)
        return jnp.where(l2_sp > 0, toward, _decayed(g, decay, w)) if is_data(l2_sp) else toward

    def update(updates, state, params=None):
        return jax.tree.map(regularised, updates, params, pulled, decays, state.start), state

    return optax.GradientTransformation(init, update)


def _scale_leaves(scales: Any) -> optax.GradientTransformation:
    if all(scale == 1 for scale in jax.tree.leaves(scales)):
        return optax.identity()

    def update(updates, params=None):
        del params
        return jax.tree.map(lambda g, scale: g if scale == 1 else g * scale, updates, scales)

    return optax.stateless(update)


def _is_kernel(name: str) -> bool:
    return name.rsplit("/", 1)[-1] not in ("bias", "scale")


def _aligned(kind: str, tree: trees.Tree | None, names: list[str], default: Any) -> dict[str, Any]:
    if tree is None:
        return dict.fromkeys(names, default)
    flat = trees.flatten(tree)
    lines = [f"{name}: missing" for name in names if name not in flat]
    lines += [f"{name}: not expected" for name in flat if name not in set(names)]
    if lines:
        raise InputError("\n".join([f"{kind} does not have the leaves of params", *sorted(lines)]))
    return flat


def _check(name, momentum, nesterov, b1, b2, eps, weight_decay, l2_sp, clip_norm) -> None:
    problems = Problems()

    def fraction(label, value):
        good = is_number(value) and 0 <= value < 1
        problems.need(good, label, value, "a number in [0, 1)")

    def at_least_0(label, value):
        problems.need(is_at_least_0(value), label, value, "a number of at least 0")

    if name == "sgd":
        fraction("momentum", momentum)
        problems.need(not nesterov or momentum != 0, "nesterov", nesterov, "False with momentum 0")
    else:
        fraction("b1", b1)
        fraction("b2", b2)
        problems.need(is_number(eps) and eps > 0, "eps", eps, "a number above 0")
    at_least_0("weight_decay", weight_decay)
    at_least_0("l2_sp", l2_sp)
    problems.need(
        is_number(clip_norm) and clip_norm >= 0, "clip_norm", clip_norm, "a number of at least 0"
    )
    problems.raise_any()
