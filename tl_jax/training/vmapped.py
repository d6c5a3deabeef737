"""Many runs as one program: seeds times combinations of hyperparameters, the examples shared.

A member is one run. Members of one seed see the same batches, so a batch is not repeated for each of
them: the linear layer of K members is one product of [B, F] and [F, K * classes].

Shapes: S seeds, K combinations, N examples, B examples of a batch, U updates of a dispatch, E
evaluations. Leaves of what belongs to members start with [S, K].
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import objectives
from tl_jax.compilation import PLAIN, Compilation
from tl_jax.errors import InputError
from tl_jax.models import cpu
from tl_jax.training.state import TrainState
from tl_jax.training.steps import Batch

Scalars = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Scalars]]
EvalStep = Callable[[dict[str, Any], dict[str, Any], Batch], tuple[Scalars, jax.Array]]

# Dispatches that the host may be ahead of the device: bounds the index blocks held there.
_IN_FLIGHT = 4


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long members train, in updates, how many of them at once, and by what kind of programs.

    Attributes:
        total_steps: at least 1.
        eval_every: between evaluations; 0 for one at the end only. There is always one at the end.
        patience: evaluations without a new best after which a member stops; 0 for never.
        updates_per_dispatch: at most so many in one call of the compiled program. One keeps them out of
            a loop, in which XLA for CPU runs the backward pass of convolutions many times slower.
        width: members that train at once; those left over follow in groups of the same size.
        compilation: of the programs.
    """

    total_steps: int
    eval_every: int = 0
    patience: int = 0
    updates_per_dispatch: int = 1
    width: int = 1
    compilation: Compilation = PLAIN

    def __post_init__(self) -> None:
        least = {"total_steps": 1, "eval_every": 0, "patience": 0, "updates_per_dispatch": 1}
        least["width"] = 1
        lines = [
            f"{name} is {getattr(self, name)!r}, expected a whole number of at least {bound}"
            for name, bound in least.items()
            if not isinstance(getattr(self, name), int) or getattr(self, name) < bound
        ]
        if lines:
            raise InputError("\n".join(lines))

    def evaluations(self) -> Iterator[tuple[int, int]]:
        """Yields (first update, number of updates) of the stretch before each evaluation."""
        every = self.eval_every or self.total_steps
        for start in range(0, self.total_steps, every):
            yield start, min(every, self.total_steps - start)


@dataclasses.dataclass(frozen=True)
class Data:
    """What all members read; nothing of it is copied for each of them.

    Attributes:
        examples: inputs [N, ...] and int32 labels [N], placed on the device.
        batch_rows: (seed, step) -> the rows of `examples` that make the batch of that update: [B].
        validation: inputs and int32 labels, on the host or the device.
        eval_batch_size: validation examples at once.
    """

    examples: tuple[jax.Array, jax.Array]
    batch_rows: Callable[[int, int], np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    eval_batch_size: int = 500


@dataclasses.dataclass(frozen=True)
class Results:
    """The result of every member; arrays of the host.

    Attributes:
        params: leaves [S, K, ...], of the evaluation with the best validation top-1, the first of equals.
        batch_stats: likewise.
        best_step: int [S, K], the updates behind them; 0 where a member was not finite before its first
            evaluation, its params are then the initial ones.
        best_top1: float [S, K], their validation top-1 in [0, 1]; 0 where best_step is 0.
        stopped_at: int [S, K], the updates that the member took.
        diverged: bool [S, K], whether loss or gradient was not finite; such a member stops at the next
            evaluation.
        steps: int [E], the updates before each evaluation.
        history: float [E, S, K] arrays `validation_top1`, `validation_loss` and `train_loss` (mean since
            the evaluation before); NaN after a member has stopped.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    best_step: np.ndarray
    best_top1: np.ndarray
    stopped_at: np.ndarray
    diverged: np.ndarray
    steps: np.ndarray
    history: dict[str, np.ndarray]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Members:
    """All that changes while a group of members trains; every leaf starts with [S, K]."""

    state: TrainState
    best: dict[str, Any]  # params and batch_stats
    best_correct: jax.Array
    best_step: jax.Array
    waited: jax.Array  # evaluations since the best one
    stopped: jax.Array
    finite: jax.Array
    loss: jax.Array  # summed since the last evaluation


def members_that_fit(budget: int, shared: int, per_member: int, members: int) -> int:
    """Returns how many members may train at once, at least 1 and at most `members`.

    Args:
        budget: available memory in bytes.
        shared: bytes that all members share: examples of both splits, and one batch.
        per_member: bytes of one: state, best weights, gradients, activations; see `member_bytes`.
        members: how many there are.

    Raises:
        InputError: if not even one fits.

    Example:
        >>> members_that_fit(100, 40, 7, 64)
        8
    """
    room = budget - shared
    if room < per_member:
        raise InputError(
            f"a sweep needs {shared:,} bytes for the examples and {per_member:,} for a member, "
            f"{budget:,} are available: take a boundary with smaller activations (cache.boundary), or a "
            "smaller batch (data.batch_size)"
        )
    return min(members, room // max(1, per_member))


def member_bytes(state: TrainState, temporary: int) -> int:
    """Returns the bytes of one member.

    Args:
        state: its state, or the shapes of it; the best weights are held beside it.
        temporary: what its update needs beside its state, gradients and activations; see
            `memory.temporary_bytes`.
    """
    held = jax.tree.leaves((state, state.params, state.batch_stats))
    return temporary + sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in held)


def group_shape(seeds: int, combinations: int, width: int) -> tuple[int, int]:
    """Returns how many seeds and combinations train at once, at most `width` members.

    Whole rows of combinations come first, since they share their batches; groups are as equal as they
    can be, so that little is padded.

    Example:
        >>> group_shape(4, 16, 64), group_shape(4, 16, 40), group_shape(4, 16, 10)
        ((4, 16), (2, 16), (1, 8))
    """
    if width < 1:
        raise InputError(f"width is {width}, expected at least 1 member")
    rows = _even(seeds, max(1, width // combinations))
    return rows, _even(combinations, min(width, combinations))


def train(
    make_train_step: Callable[[Scalars], TrainStep],
    eval_step: EvalStep,
    states: Sequence[TrainState],
    hyperparameters: Mapping[str, np.ndarray],
    data: Data,
    schedule: Schedule,
    *,
    show: Callable[[int, int, int], None] | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Results | None:
    """Trains every combination from every seed; each member as if it ran alone.

    Equal up to float32 rounding: the layers of several members are one product or one grouped convolution,
    whose sums have another order. Rounding errors stay small (1e-6 of the largest value after 12 updates of a
    linear layer, 1e-5 of two residual stages) as long as the optimizer does not divide by them: AdamW with
    the usual eps of 1e-8 makes updates of full size from gradients that are nothing but rounding error.

    Args:
        make_train_step: called inside the compiled program with a member's scalars; returns the step of
            an ordinary run, such as `steps.make_train_step` makes with them.
        eval_step: from `steps.make_eval_step`.
        states: one per seed, before the first update; `state.seed` is the seed.
        hyperparameters: {name: float [K]}.
        data: examples of both splits, and the order of batches.
        schedule: lengths, and members at once.
        show: receives (group, groups, updates of it so far) after each evaluation.
        stop_requested: asked after each evaluation.

    Returns:
        The results of the members, or None if stopped on request.
    """
    names = sorted(hyperparameters)
    num_seeds, num_combinations = len(states), len(hyperparameters[names[0]])
    rows, columns = group_shape(num_seeds, num_combinations, schedule.width)
    group = _Group(make_train_step, eval_step, schedule, data)
    corners = [
        (top, left)
        for top in range(0, num_seeds, rows)
        for left in range(0, num_combinations, columns)
    ]
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for number, (top, left) in enumerate(corners):
        # The last ones are padded with copies of the last member, so that all groups are one program.
        chosen = np.minimum(np.arange(left, left + columns), num_combinations - 1)
        own = [states[min(top + row, num_seeds - 1)] for row in range(rows)]
        scalars = {name: np.asarray(hyperparameters[name], np.float32)[chosen] for name in names}
        progress = None if show is None else lambda step, n=number: show(n, len(corners), step)
        result = group.train(own, scalars, progress, stop_requested)
        if result is None:
            return None
        found[top, left] = _without_padding(
            result, min(rows, num_seeds - top), min(columns, num_combinations - left)
        )
    return _assemble(found, schedule, len(data.validation[1]))


class _Group:
    """The compiled programs that every group of members runs."""

    def __init__(self, make_train_step, eval_step, schedule: Schedule, data: Data):
        self._schedule = schedule
        self._data = data
        self._validation = _chunks(*data.validation, data.eval_batch_size)

        def member_update(members, scalars, batch):
            new, measured = make_train_step(scalars)(members.state, batch)
            finite = jnp.isfinite(measured["loss"]) & jnp.isfinite(measured["grad_norm"])
            moved = dataclasses.replace(
                members,
                state=new,
                finite=members.finite & finite,
                loss=members.loss + measured["loss"],
            )
            return _select(members.stopped, members, moved)

        of_a_seed = jax.vmap(member_update, in_axes=(0, 0, None))
        of_all = jax.vmap(of_a_seed, in_axes=(0, None, 0))
        # The rows of a batch are gathered once for all members of its seed.
        gather = jax.vmap(_gather, in_axes=(None, 0))

        def update_once(members, scalars, examples, rows):
            return of_all(members, scalars, gather(examples, rows[0]))

        def update_often(members, scalars, examples, rows, count):
            def body(turn, members):
                return of_all(members, scalars, gather(examples, rows[turn]))

            if cpu.in_use():
                return jax.lax.fori_loop(0, count, body, members)
            return _masked_loop(len(rows), count, body, members)

        def member_sums(params, batch_stats, batch):
            return eval_step(params, batch_stats, batch)[0]

        measure = jax.vmap(jax.vmap(member_sums, in_axes=(0, 0, None)), in_axes=(0, 0, None))

        def evaluate(members, validation, updates):
            params = objectives.of_network(members.state.params)
            batch_stats = members.state.batch_stats

            def add(total, chunk):
                return jax.tree.map(jnp.add, total, measure(params, batch_stats, chunk)), None

            first = jax.tree.map(lambda rows: rows[0], validation)
            shapes = jax.eval_shape(measure, params, batch_stats, first)
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            sums, _ = jax.lax.scan(add, zeros, validation)
            return _judge(members, sums, updates, schedule.patience)

        compilation = schedule.compilation
        if schedule.updates_per_dispatch == 1:
            self._update = compilation.jit(update_once, donate_argnums=0)
        else:
            self._update = compilation.jit(update_often, donate_argnums=0)
        self._evaluate = compilation.jit(evaluate, donate_argnums=0)

    def train(self, states, scalars, progress, stop_requested):
        """Returns the members' end and the records of every evaluation; None if stopped on request."""
        members = _start(states, len(next(iter(scalars.values()))))
        scalars = jax.device_put(scalars)
        seeds = [int(state.seed) for state in states]
        records: list[dict[str, jax.Array]] = []
        done: collections.deque[jax.Array] = collections.deque()
        for start, length in self._schedule.evaluations():
            for block, count in self._blocks(seeds, start, length):
                extra = () if self._schedule.updates_per_dispatch == 1 else (np.int32(count),)
                members = self._update(members, scalars, self._data.examples, block, *extra)
                done.append(members.loss.sum())
                if len(done) > _IN_FLIGHT:
                    jax.block_until_ready(done.popleft())
            members, record = self._evaluate(members, self._validation, np.float32(length))
            if progress is not None:
                progress(start + length)
            if stop_requested():
                return None
            # Of the evaluation before, so that the device need not wait for the answer: what stopped
            # members are put through meanwhile changes nothing.
            finished = bool(records) and not np.any(records[-1]["going_on"])
            records.append(record)
            if finished:
                break
        return jax.device_get((members, records))

    def _blocks(self, seeds, start, length):
        """Yields (rows int32 [U, S, B], how many of the U count) of a stretch of updates."""
        most = min(self._schedule.updates_per_dispatch, self._longest())
        for first in range(start, start + length, most):
            count = min(most, start + length - first)
            # Seed by seed, since the order of an epoch is worked out once for neighbouring updates.
            by_seed = [
                np.stack([self._data.batch_rows(seed, first + turn) for turn in range(count)])
                for seed in seeds
            ]
            block = np.stack(by_seed, axis=1).astype(np.int32)
            padding = np.zeros((most - count, *block.shape[1:]), np.int32)
            yield np.concatenate([block, padding]), count

    def _longest(self) -> int:
        return self._schedule.eval_every or self._schedule.total_steps


def _masked_loop(length: int, count: jax.Array, body: Callable, value: Any) -> Any:
    """Returns what `lax.fori_loop(0, count, body, value)` does, in `length` turns; those from `count` on do nothing.

    On a GPU the host waits for the condition of each turn of a loop whose number of turns is data.
    """

    def turn(value, number):
        new = body(number, value)
        return jax.tree.map(lambda one, old: jnp.where(number < count, one, old), new, value), None

    return jax.lax.scan(turn, value, jnp.arange(length, dtype=jnp.int32))[0]


def _even(total: int, most: int) -> int:
    """Returns the size of the fewest groups of at most `most` that hold `total`, as equal as can be."""
    groups = -(-total // min(most, total))
    return -(-total // groups)


def _start(states: Sequence[TrainState], combinations: int) -> _Members:
    stacked = jax.tree.map(
        lambda *leaves: jnp.repeat(jnp.stack(leaves)[:, None], combinations, axis=1), *states
    )
    shape = (len(states), combinations)
    return _Members(
        state=stacked,
        # Copied: both are donated.
        best=jax.tree.map(jnp.copy, {"params": stacked.params, "batch_stats": stacked.batch_stats}),
        best_correct=jnp.full(shape, -1, jnp.int32),
        best_step=jnp.zeros(shape, jnp.int32),
        waited=jnp.zeros(shape, jnp.int32),
        stopped=jnp.zeros(shape, bool),
        finite=jnp.ones(shape, bool),
        loss=jnp.zeros(shape, jnp.float32),
    )


def _gather(examples: tuple[jax.Array, jax.Array], rows: jax.Array) -> Batch:
    inputs, labels = examples
    return {
        "image": inputs[rows],
        "label": labels[rows],
        "position": jnp.arange(rows.shape[0], dtype=jnp.int32),
    }


def _chunks(inputs, labels, size: int) -> Batch:
    """Returns the split as equal chunks [C, size, ...], the last one padded and masked."""
    examples = len(labels)
    size = min(size, examples)
    padding = -examples % size

    def chunked(rows):
        rows = jnp.pad(jnp.asarray(rows), [(0, padding), *[(0, 0)] * (rows.ndim - 1)])
        return rows.reshape(-1, size, *rows.shape[1:])

    mask = np.arange(examples + padding) < examples
    return {
        "image": chunked(inputs),
        "label": chunked(np.asarray(labels, np.int32)),
        "mask": jnp.asarray(mask.reshape(-1, size)),
    }


def _select(condition: jax.Array, yes: Any, no: Any) -> Any:
    """Returns `yes` where the members' `condition` holds, else `no`, leaf by leaf."""

    def chosen(a, b):
        return jnp.where(
            condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b
        )

    return jax.tree.map(chosen, yes, no)


def _judge(
    members: _Members, sums: Scalars, updates: jax.Array, patience: int
) -> tuple[_Members, Scalars]:
    """Returns the members after an evaluation, and its record."""
    going_on = ~members.stopped
    better = going_on & members.finite & (sums["correct"] > members.best_correct)
    now = {"params": members.state.params, "batch_stats": members.state.batch_stats}
    waited = jnp.where(better, 0, members.waited + 1)
    stopped = members.stopped | ~members.finite
    if patience:
        stopped |= waited >= patience
    record = {
        "ran": going_on,
        "going_on": ~stopped,
        "correct": sums["correct"],
        "validation_loss": sums["loss_sum"] / sums["examples"],
        "train_loss": members.loss / updates,
    }
    judged = dataclasses.replace(
        members,
        best=_select(better, now, members.best),
        best_correct=jnp.where(better, sums["correct"], members.best_correct),
        best_step=jnp.where(better, members.state.step, members.best_step),
        waited=waited,
        stopped=stopped,
        loss=jnp.zeros_like(members.loss),
    )
    return judged, record


def _without_padding(
    result: tuple[_Members, list[dict[str, np.ndarray]]], rows: int, columns: int
) -> dict[str, Any]:
    members, records = jax.tree.map(lambda leaf: np.asarray(leaf)[:rows, :columns], result)
    return {"members": members, "records": records}


def _assemble(
    found: dict[tuple[int, int], dict[str, Any]], schedule: Schedule, examples: int
) -> Results:
    """Returns the groups, put together by the place of their first member."""

    def together(parts: dict[tuple[int, int], np.ndarray], axis: int) -> np.ndarray:
        tops = sorted({top for top, _ in parts})
        lines = [
            np.concatenate([parts[key] for key in sorted(parts) if key[0] == top], axis + 1)
            for top in tops
        ]
        return np.concatenate(lines, axis)

    places = list(found)

    def of_members(part: Callable[[_Members], Any]) -> Any:
        trees = [part(found[place]["members"]) for place in places]
        return jax.tree.map(
            lambda *leaves: together(dict(zip(places, leaves, strict=True)), 0), *trees
        )

    steps = np.array([start + length for start, length in schedule.evaluations()])

    def of_records(name: str) -> np.ndarray:
        parts = {}
        for place in places:
            records = found[place]["records"]
            shape = (len(steps), *records[0][name].shape)
            values = np.full(shape, np.nan)
            for turn, record in enumerate(records):
                values[turn] = np.where(record["ran"], record[name], np.nan)
            parts[place] = values
        return together(parts, 1)

    correct = of_members(lambda members: members.best_correct)
    return Results(
        params=of_members(lambda members: members.best["params"]),
        batch_stats=of_members(lambda members: members.best["batch_stats"]),
        best_step=of_members(lambda members: members.best_step),
        best_top1=np.maximum(correct, 0) / examples,
        stopped_at=of_members(lambda members: members.state.step),
        diverged=~of_members(lambda members: members.finite),
        steps=steps,
        history={
            "validation_top1": of_records("correct") / examples,
            "validation_loss": of_records("validation_loss"),
            "train_loss": of_records("train_loss"),
        },
    )
