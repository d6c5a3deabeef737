"""The members of a sweep: what is swept, how each starts and steps, and how many train at once."""

import copy
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tl_jax import models, objectives, porting, trees
from tl_jax.models import cpu
from tl_jax.parallel import memory, placement
from tl_jax.runs import weights
from tl_jax.runs.objective import Minimised, make_objective, make_passes, reference_variables
from tl_jax.runs.optimisation import make_plateau, make_schedule, make_tx, rgn_updates
from tl_jax.runs.pure_step import gradient_options
from tl_jax.runs.setup import Setup
from tl_jax.runs.source_head import own_params
from tl_jax.training import steps, vmapped
from tl_jax.training.state import TrainState

# What `sweep.NAME` holds values of.
FIELDS = {
    "learning_rate": "optim.learning_rate",
    "weight_decay": "optim.weight_decay",
    "label_smoothing": "objective.label_smoothing",
    "l2_sp": "objective.l2_sp",
}

# A dispatch then still answers soon when the sweep is asked to stop.
_MOST_UPDATES = 256


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is swept.

    Attributes:
        values: {name in `FIELDS`: its values}, one value for those that are not swept.
        seeds: of order and initialisation.
        patience: evaluations without a new best after which a member stops; 0 for never.
        width: members at once; 0 for as many as memory holds.
        test: whose test accuracy is measured: "chosen", the seeds of the chosen combination, or "all".
    """

    values: dict[str, tuple[float, ...]]
    seeds: tuple[int, ...]
    patience: int
    width: int
    test: str

    def __len__(self) -> int:
        """Returns the number of members."""
        return len(self.seeds) * len(self.combinations)

    @property
    def combinations(self) -> list[dict[str, float]]:
        """Every combination of values, the last field changing fastest."""
        rows = itertools.product(*self.values.values())
        return [dict(zip(self.values, row, strict=True)) for row in rows]

    @property
    def swept(self) -> list[str]:
        """The fields that are data of the program; one at least."""
        several = [name for name, values in self.values.items() if len(values) > 1]
        return several or ["learning_rate"]

    @property
    def fixed(self) -> dict[str, float]:
        """The values of the others, constants of the program."""
        return {name: self.values[name][0] for name in self.values if name not in self.swept}


def start(setup: Setup, grid: Grid, seed: int) -> tuple[TrainState, dict[str, Any]]:
    """Returns where the members of a seed start: the state of the suffix, and all variables."""
    config = copy.deepcopy(setup.config)
    config.seed = seed
    class_names = setup.splits["train"].class_names
    size = setup.preprocessing.image_size
    variables = weights.make_initial(config, setup.model, class_names, size).variables
    own = own_params(
        config,
        setup.minimised.objective,
        setup.model,
        num_classes=len(class_names),
        image_size=size,
        source_head=setup.minimised.source_head,
    )
    params = suffix(setup, objectives.with_own(variables["params"], own))
    scalars = {name: jnp.float32(grid.values[name][0]) for name in grid.swept}
    state = TrainState(
        step=jnp.int32(0),
        seed=jnp.int32(seed),
        params=params,
        batch_stats=suffix(setup, variables["batch_stats"]),
        opt_state=jax.jit(_tx(setup, grid, params, scalars).init)(params),
        references=reference_variables(
            _minimised(setup, grid, scalars),
            variables,
            setup.model,
            setup.boundary,
            None if setup.relationship is None else setup.relationship.probabilities,
        ),
    )
    return state, variables


def suffix(setup: Setup, tree: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a tree like params that comes after the boundary, what objectives own with it."""
    after = setup.model.boundaries[models.segment(setup.model, setup.boundary, None)[0] :]
    return {group: tree[group] for group in (*after, objectives.GROUP) if group in tree}


def frozen_resets(setup: Setup) -> list[str]:
    """Returns the leaves before the boundary that `init.reset` draws anew, in the order of the tree."""
    stored = {
        collection: {name: tree[name] for name in tree if name not in suffix(setup, tree)}
        for collection, tree in setup.initial.variables.items()
    }
    names = trees.flatten(setup.initial.variables)
    drawn = porting.reset_rules(names, "keep", tuple(setup.config.init.reset))
    return [leaf.partition("/")[2] for leaf in trees.flatten(stored) if leaf in drawn]


def train(
    setup: Setup,
    grid: Grid,
    states: list[TrainState],
    *,
    show: Callable[[int, int, int], None] | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> vmapped.Results | None:
    """Trains all members on the activations of `setup`; None if stopped on request.

    Args:
        setup: with activations; see `activation_cache.use`.
        grid: what is swept.
        states: one per seed, see `start`.
        show: see `vmapped.train`.
        stop_requested: likewise.
    """
    split = setup.inputs["train"]
    stored = split.activations
    inputs = jax.device_put(stored.reshape(-1, *stored.shape[2:]))
    # Rows of all views, as the order counts them.
    labels = jax.device_put(np.repeat(split.labels, setup.order.views))
    held_out = setup.inputs["validation"]
    validation = held_out.gather(np.arange(len(held_out)))
    mask = suffix(setup, setup.optimisation.frozen_mask)
    # The convolutions of several members are one grouped convolution.
    alone = cpu.slow_in_loops(mask, grouped=True, platform=jax.local_devices()[0].platform)
    schedule = vmapped.Schedule(
        setup.total_steps,
        setup.intervals.eval_every,
        grid.patience,
        1 if alone else setup.config.train.updates_per_dispatch or _MOST_UPDATES,
        grid.width or (1 if alone else _width(setup, grid, states[0], (inputs, validation))),
        setup.compilation,
    )
    forward = models.make_forward(setup.model, start=setup.boundary)
    orders = {seed: dataclasses.replace(setup.order, seed=seed) for seed in grid.seeds}
    data = vmapped.Data(
        (inputs, labels),
        lambda seed, step: orders[seed].rows(step),
        (validation, held_out.labels),
        setup.evaluator.rows(held_out),
    )
    return vmapped.train(
        make_train_step(setup, grid, states[0].params),
        steps.make_eval_step(forward, _as_float32),
        states,
        {name: np.array([of[name] for of in grid.combinations]) for name in grid.swept},
        data,
        schedule,
        show=show,
        stop_requested=stop_requested,
    )


def make_train_step(
    setup: Setup, grid: Grid, params: dict[str, Any]
) -> Callable[[dict[str, jax.Array]], vmapped.TrainStep]:
    """Returns what makes the training step of a member from its scalars.

    Args:
        setup: with activations.
        grid: what is swept.
        params: of the suffix, for its names.
    """

    def make_step(scalars: dict[str, jax.Array]) -> vmapped.TrainStep:
        minimised = _minimised(setup, grid, scalars)
        passes = make_passes(
            minimised,
            setup.model,
            setup.preprocessing,
            start=setup.boundary,
            prefix=None,
            frozen_norms=setup.optimisation.frozen_norms,
            norm_policy=setup.config.freeze.batch_norm,
        )
        return steps.make_train_step(
            passes,
            lambda key, position, stored: _as_float32(stored),
            _tx(setup, grid, params, scalars),
            frozen_mask=suffix(setup, setup.optimisation.frozen_mask),
            objective=minimised.objective,
            gradient=gradient_options(setup.config),
            mixing=setup.mixing,
        )

    return make_step


def _minimised(setup: Setup, grid: Grid, scalars: dict[str, jax.Array]) -> Minimised:
    """Returns what a member minimises, its strengths data of the program where they are swept."""
    values = grid.fixed | scalars
    strengths = {name: values[name] for name in ("label_smoothing", "l2_sp")}
    class_weights = setup.minimised.class_weights
    objective = make_objective(setup.config, setup.model, class_weights=class_weights, **strengths)
    return dataclasses.replace(setup.minimised, objective=objective)


def _tx(setup: Setup, grid: Grid, params: dict[str, Any], scalars: dict[str, jax.Array]):
    values = grid.fixed | scalars
    schedule = make_schedule(
        setup.config, values["learning_rate"], setup.total_steps, len(setup.splits["train"])
    )
    return make_tx(
        setup.config,
        params,
        schedule,
        suffix(setup, setup.optimisation.multipliers),
        suffix(setup, setup.optimisation.frozen_mask),
        make_plateau(setup.config, len(setup.splits["train"])),
        rgn_updates(setup.config, len(setup.splits["train"])),
        weight_decay=values["weight_decay"],
        l2_sp=values["l2_sp"],
    )


def _width(setup: Setup, grid: Grid, state: TrainState, shared: Any) -> int:
    """Returns how many members fit, from the memory that the compiled steps of one of them take."""
    inputs = shared[0]
    size = setup.config.data.batch_size
    batch = {
        "image": jax.ShapeDtypeStruct((size, *inputs.shape[1:]), inputs.dtype),
        "label": jax.ShapeDtypeStruct((size,), np.int32),
        "position": jax.ShapeDtypeStruct((size,), np.int32),
    }
    scalars = {name: jnp.float32(grid.values[name][0]) for name in grid.swept}
    step = make_train_step(setup, grid, state.params)
    program = setup.compilation.jit(lambda s, state, batch: step(s)(state, batch)).lower(
        scalars, state, batch
    )
    eval_size = setup.evaluator.rows(setup.inputs["validation"])
    masked = {
        name: jax.ShapeDtypeStruct((eval_size, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in (batch | {"mask": jax.ShapeDtypeStruct((size,), bool)}).items()
    }
    forward = models.make_forward(setup.model, start=setup.boundary)
    evaluation = setup.compilation.jit(steps.make_eval_step(forward, _as_float32)).lower(
        state.params, state.batch_stats, masked
    )
    temporary = max(memory.temporary_bytes(one.compile()) for one in (program, evaluation))
    # The training activations are there already.
    return vmapped.members_that_fit(
        placement.room_for_members(),
        memory.tree_bytes(shared[1:]),
        vmapped.member_bytes(state, temporary),
        len(grid),
    )


def _as_float32(stored: jax.Array) -> jax.Array:
    return stored.astype(jnp.float32)
