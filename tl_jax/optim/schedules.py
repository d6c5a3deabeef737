"""The learning rate as a function of the number of completed updates."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from tl_jax import errors
from tl_jax.optim._checks import Problems, increasing, is_at_least_0, is_count, is_number

SCHEDULES = ("constant", "step", "cosine", "exponential", "plateau")


def make_schedule(
    name: str,
    learning_rate: float | jax.Array,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    boundaries: Sequence[int] = (),
    decay: float = 0.1,
    decay_steps: float = 1.0,
    final_fraction: float = 0.0,
) -> optax.Schedule:
    """Returns the learning rate of update t (counted from 0), a float32 scalar.

    During warm-up (t < w = `warmup_steps`) it is `learning_rate * (t + 1) / w`: the first update is
    already a real one and update w - 1 has the full rate (`optax.linear_schedule` would waste
    update 0 on a rate of 0). After that:

    - `constant`: `learning_rate`.
    - `plateau`: the same; `transforms.Plateau` then lowers it.
    - `exponential`: `learning_rate * decay**((t - w) / decay_steps)`.
    - `step`: `learning_rate * decay**k`, k the number of `boundaries` at or below t.
    - `cosine`: from `learning_rate` at t = w to `final_fraction * learning_rate` at t =
      `total_steps`, along half a cosine wave.

    Args:
        name: one of `SCHEDULES`.
        learning_rate: the peak, at least 0; an array, such as a traced scalar, is not checked.
        total_steps: updates of the whole run, at least 1.
        warmup_steps: updates of linear warm-up, within [0, `total_steps`].
        boundaries: increasing updates within [1, `total_steps`) at which `step` decays; ignored by
            the others.
        decay: the factor of `step` and `exponential`, within (0, 1]; ignored by the others.
        decay_steps: updates over which `exponential` multiplies by it, above 0; ignored by the others.
        final_fraction: what is left of the rate at the end of `cosine`, within [0, 1]; ignored by
            the others.

    Raises:
        InputError: for an unknown name, or listing every argument out of range.

    Source: cosine, Loshchilov and Hutter 2016 (arXiv:1608.03983), equation 5 without restarts;
    warm-up, Goyal et al. 2017 (arXiv:1706.02677), section 2.2; exponential,
    `keras.optimizers.schedules.ExponentialDecay` without staircase.

    Example:
        >>> schedule = make_schedule("step", 0.5, 100, boundaries=[50])
        >>> float(schedule(49)), round(float(schedule(50)), 3)
        (0.5, 0.05)
    """
    if name not in SCHEDULES:
        raise errors.unknown("schedule", name, SCHEDULES)
    boundaries = list(boundaries)
    _check(
        name,
        learning_rate,
        total_steps,
        warmup_steps,
        boundaries,
        decay,
        decay_steps,
        final_fraction,
    )

    def factor(t: jax.Array) -> jax.Array:
        if name == "step":
            passed = jnp.sum(t >= jnp.asarray(boundaries, jnp.float32))
            return jnp.power(decay, passed.astype(jnp.float32))
        if name == "exponential":
            return jnp.power(decay, (t - warmup_steps) / decay_steps)
        if name == "cosine":
            progress = (t - warmup_steps) / max(total_steps - warmup_steps, 1)
            wave = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
            return final_fraction + (1 - final_fraction) * wave
        return jnp.ones_like(t)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        t = jnp.asarray(count).astype(jnp.float32)
        rate = learning_rate * factor(t)
        if warmup_steps:
            rate = jnp.where(t < warmup_steps, learning_rate * (t + 1) / warmup_steps, rate)
        return rate

    return schedule


def _check(
    name, learning_rate, total_steps, warmup_steps, boundaries, decay, decay_steps, final_fraction
) -> None:
    problems = Problems()
    problems.need(
        is_at_least_0(learning_rate),
        "learning_rate",
        learning_rate,
        "a number of at least 0",
    )
    total_good = is_count(total_steps) and total_steps >= 1
    problems.need(total_good, "total_steps", total_steps, "a whole number of at least 1")
    top = total_steps if total_good else "total_steps"
    problems.need(
        is_count(warmup_steps) and (not total_good or warmup_steps <= total_steps),
        "warmup_steps",
        warmup_steps,
        f"a whole number in [0, {top}]",
    )
    if name == "step":
        inside = all(
            is_count(b) and b >= 1 and (not total_good or b < total_steps) for b in boundaries
        )
        problems.need(
            bool(boundaries) and inside and increasing(boundaries),
            "boundaries",
            boundaries,
            f"one or more increasing whole numbers in [1, {top})",
        )
    if name in ("step", "exponential"):
        problems.need(is_number(decay) and 0 < decay <= 1, "decay", decay, "a number in (0, 1]")
    if name == "exponential":
        good = is_number(decay_steps) and decay_steps > 0
        problems.need(good, "decay_steps", decay_steps, "a number above 0")
    if name == "cosine":
        problems.need(
            is_number(final_fraction) and 0 <= final_fraction <= 1,
            "final_fraction",
            final_fraction,
            "a number in [0, 1]",
        )
    problems.raise_any()
