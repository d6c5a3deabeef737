"""The gradient transformation: SGD or AdamW on the trainable leaves, nothing on the frozen ones."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from tl_jax import errors, trees
from tl_jax.errors import InputError
from tl_jax.optim._checks import Problems, is_at_least_0, is_count, is_data, is_number
from tl_jax.optim.relative_gradients import by_relative_gradients

OPTIMIZERS = ("sgd", "adamw")


@dataclasses.dataclass(frozen=True)
class Rule:
    """How gradients become updates, with PyTorch's semantics.

    With g the gradient, w the parameter, d `weight_decay`, lr the learning rate times the leaf's multiplier:

    - `sgd`: g <- g + d w; v <- momentum v + g; w <- w - lr v, or w - lr (g + momentum v) with
      `nesterov`.
    - `adamw`: w <- w - lr (m_hat / (sqrt(v_hat) + eps) + d w), the decay thus scaled by the
      multiplier.

    Attributes:
        name: `sgd` or `adamw`.
        momentum: of `sgd`, within [0, 1); 0 keeps no state.
        nesterov: of `sgd`; needs momentum.
        b1: of `adamw`, within [0, 1).
        b2: of `adamw`, within [0, 1).
        eps: of `adamw`, above 0.
        weight_decay: at least 0; an array, such as a traced scalar, is not checked.
        decay_bias_and_norm: whether weight decay also acts on biases and BatchNorm.
        clip_norm: the largest global norm of the trainable gradient, before weight decay; 0 for no
            clipping.

    Raises:
        InputError: for an unknown name, or listing every value out of range.

    Source: `torch.optim.SGD`, `torch.optim.AdamW` and `torch.nn.utils.clip_grad_norm_` (whose 1e-6
    in the denominator is kept) of PyTorch 2.
    """

    name: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float | jax.Array = 0.0
    decay_bias_and_norm: bool = False
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise errors.unknown("optimizer", self.name, OPTIMIZERS)
        problems = Problems()

        def fraction(label: str) -> None:
            value = getattr(self, label)
            good = is_number(value) and 0 <= value < 1
            problems.need(good, label, value, "a number in [0, 1)")

        if self.name == "sgd":
            fraction("momentum")
            problems.need(
                not self.nesterov or self.momentum != 0,
                "nesterov",
                self.nesterov,
                "False with momentum 0",
            )
        else:
            fraction("b1")
            fraction("b2")
            good = is_number(self.eps) and self.eps > 0
            problems.need(good, "eps", self.eps, "a number above 0")
        at_least_0 = "a number of at least 0"
        problems.need(
            is_at_least_0(self.weight_decay), "weight_decay", self.weight_decay, at_least_0
        )
        good = is_number(self.clip_norm) and self.clip_norm >= 0
        problems.need(good, "clip_norm", self.clip_norm, at_least_0)
        problems.raise_any()


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Lowers the learning rate where the training loss no longer falls; all in the compiled step.

    The loss is averaged over `every` updates. Where that mean has not fallen by a ten-thousandth of the lowest one
    for `patience` means in a row, the rate is multiplied by `factor`, and counting begins anew.

    Attributes:
        factor: within (0, 1).
        patience: means without a new lowest one, at least 1.
        every: updates of a mean, at least 1.

    Raises:
        InputError: listing every value out of range.

    Source: `optax.contrib.reduce_on_plateau`; its threshold is PyTorch's `ReduceLROnPlateau`'s, which is given a loss
    of the caller's, mostly that of validation.
    """

    factor: float = 0.1
    patience: int = 5
    every: int = 1

    def __post_init__(self) -> None:
        problems = Problems()
        good = is_number(self.factor) and 0 < self.factor < 1
        problems.need(good, "factor", self.factor, "a number in (0, 1)")
        for name in ("patience", "every"):
            value = getattr(self, name)
            problems.need(is_count(value) and value >= 1, name, value, "a whole number from 1")
        problems.raise_any()

    def transformation(self) -> optax.GradientTransformationExtraArgs:
        """Returns what scales the updates; its update takes the loss as `value`."""
        return optax.contrib.reduce_on_plateau(
            factor=self.factor, patience=self.patience, rtol=1e-4, accumulation_size=self.every
        )


def plateau_scale(opt_state: Any) -> jax.Array | None:
    """Returns what `Plateau` has multiplied the learning rate by, float32; None where there is none."""
    kind = optax.contrib.ReduceLROnPlateauState
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
    return next((node.scale for node in nodes if isinstance(node, kind)), None)


_SGD = Rule()


def make_optimizer(
    params: trees.Tree,
    schedule: optax.Schedule,
    rule: Rule = _SGD,
    *,
    multipliers: trees.Tree | None = None,
    frozen_mask: trees.Tree | None = None,
    undecayed: trees.Tree | None = None,
    plateau: Plateau | None = None,
    rgn_updates: int = 0,
) -> optax.GradientTransformation:
    """Returns the transformation of gradients into updates.

    Everything happens inside the trainable partition: frozen leaves get no update and no state, do
    not count in the norm that clips, and the compiler drops their backward pass.

    Args:
        params: nested dict of arrays (or of shapes), for its names only.
        schedule: the learning rate as a function of the number of completed updates.
        rule: of the updates.
        multipliers: tree of positive floats like `params`, see `lr_multipliers`; None for 1.
        frozen_mask: tree of Python bools like `params`, True where frozen; None freezes nothing.
        undecayed: tree of bools like `params`, True where weight decay does not act, whatever the rule says;
            an array, such as a traced scalar, decides by its value. None for none.
        plateau: lowers the rate by the loss, which `update` then takes as `value`; None for none.
        rgn_updates: updates after which relative gradient norms multiply the rates anew; 0: never. See
            `by_relative_gradients`.

    Raises:
        InputError: if `multipliers`, `frozen_mask` or `undecayed` are of another tree.
    """
    names = list(trees.flatten(params))
    frozen = _aligned("frozen_mask", frozen_mask, names, False)
    scales = _aligned("multipliers", multipliers, names, 1.0)
    exempt = _aligned("undecayed", undecayed, names, False)
    decays = {leaf: _decay_of(leaf, rule, exempt[leaf]) for leaf in names}

    def trainable(flat: dict[str, Any]) -> Any:
        return trees.unflatten(
            {leaf: optax.MaskedNode() if frozen[leaf] else flat[leaf] for leaf in names}
        )

    decay = optax.identity()
    if is_data(rule.weight_decay) or rule.weight_decay:
        decay = _add_decay(trainable(decays))
    if rule.name == "sgd":
        momentum = rule.momentum
        steps = [decay, optax.trace(momentum, rule.nesterov) if momentum else optax.identity()]
    else:
        steps = [_scale_by_adam(rule.b1, rule.b2, rule.eps), decay]
    tx = optax.chain(
        _clip(rule.clip_norm),
        *steps,
        _scale_leaves(trainable(scales)),
        optax.scale_by_learning_rate(schedule),
        *_plateau(plateau),
    )
    return _only_trainable(_by_relative_gradients(tx, rgn_updates), trees.unflatten(frozen))


def wrap_optimizer(
    tx: optax.GradientTransformation,
    *,
    multipliers: trees.Tree,
    frozen_mask: trees.Tree,
    clip_norm: float = 0.0,
    plateau: Plateau | None = None,
    rgn_updates: int = 0,
) -> optax.GradientTransformation:
    """Returns any transformation of gradients into updates, on what is trained, clipped and scaled.

    Args:
        tx: such as `optax.lion(schedule)`.
        multipliers: tree of positive floats like params, of the updates.
        frozen_mask: tree of Python bools like params, True where frozen.
        clip_norm: the largest global norm of the trainable gradient; 0 for no clipping.
        plateau: see `make_optimizer`.
        rgn_updates: likewise.
    """
    frozen, scales = trees.flatten(frozen_mask), trees.flatten(multipliers)
    trained = {
        leaf: optax.MaskedNode() if frozen[leaf] else scale for leaf, scale in scales.items()
    }
    scaled = _scale_leaves(trees.unflatten(trained))
    chained = optax.chain(_clip(clip_norm), tx, scaled, *_plateau(plateau))
    return _only_trainable(_by_relative_gradients(chained, rgn_updates), frozen_mask)


def _plateau(plateau: Plateau | None) -> list[optax.GradientTransformation]:
    return [] if plateau is None else [plateau.transformation()]


def _by_relative_gradients(
    tx: optax.GradientTransformation, every: int
) -> optax.GradientTransformation:
    return by_relative_gradients(tx, every) if every else tx


def _only_trainable(
    tx: optax.GradientTransformation, frozen_mask: trees.Tree
) -> optax.GradientTransformation:
    """Returns a transformation that sees nothing but what is trained."""
    return optax.transforms.selective_transform(tx, freeze_mask=frozen_mask)


def _decay_of(leaf: str, rule: Rule, exempt: bool | jax.Array) -> float | jax.Array:
    """Returns the weight decay of a leaf."""
    if not (rule.decay_bias_and_norm or _is_kernel(leaf)):
        return 0.0
    if is_data(exempt):
        return jnp.where(exempt, 0.0, rule.weight_decay)
    return 0.0 if exempt else rule.weight_decay


def _clip(clip_norm: float) -> optax.GradientTransformation:
    if not clip_norm:
        return optax.identity()

    def update(updates, params=None):
        del params
        norm = optax.tree.norm(updates).astype(jnp.float32)
        scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), updates)

    return optax.stateless(update)


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
