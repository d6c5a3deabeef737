"""Runs that train as one program: each is an ordinary run, but for who makes its updates.

Members differ in their seeds and in what `FIELDS` names, train on stored activations, and are otherwise the same to
the field. Each prepares, logs, evaluates, saves and ends as it does alone; where it dispatches updates it waits for
the others, and one program makes those of all: vmapped over the members, on a CPU one member after the other.

M: members; U: updates of a dispatch; B: examples of a batch; D: data sets, one for each seed; N: rows of one.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tl_jax import files, models, objectives
from tl_jax.config import flat
from tl_jax.models import cpu
from tl_jax.parallel import device_dataset, sharding
from tl_jax.parallel.device_dataset import OwnRows, ResidentStep
from tl_jax.runs.members import suffix
from tl_jax.runs.network import make_model
from tl_jax.runs.objective import make_objective
from tl_jax.runs.optimisation import (
    make_partition,
    make_plateau,
    make_schedule,
    make_tx,
    rgn_updates,
)
from tl_jax.runs.parts import is_own
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.setup import Setup
from tl_jax.runs.source_head import own_shapes
from tl_jax.training.state import TrainState
from tl_jax.training.turns import Turns

# What members may differ in, which is then data of the program, and the names that the library gives it.
FIELDS = {
    "optim.learning_rate": "learning_rate",
    "optim.weight_decay": "weight_decay",
    "objective.label_smoothing": "label_smoothing",
    "objective.l2_sp": "l2_sp",
}
_SEEDS = ("seed", "data.seed")


class NotTogether(Exception):
    """These runs have to be made one by one; says why."""


class MakeResident(Protocol):
    """Compiles updates for data on the devices."""

    def __call__(
        self, train_step: Callable, state: Any, images: Any, labels: Any, batch_size: int
    ) -> "Resident":
        """Returns them.

        Args:
            train_step: the pure step.
            state: its shapes.
            images: shape and dtype of the rows of activations.
            labels: likewise.
            batch_size: rows of an update.
        """


@dataclasses.dataclass(frozen=True)
class Resident:
    """Compiled updates on data that are stored on the devices.

    Attributes:
        step: on what `step.put` is given.
        updates: in a dispatch, at most.
        program: the compiled step, for its memory and cost.
    """

    step: ResidentStep
    updates: int
    program: Any


def why_alone(config: ml_collections.ConfigDict) -> str:
    """Returns why a run is not trained in one program with others like it; "" where it may be."""
    fields = flat(config)
    devices = config.parallel.devices or jax.local_device_count()
    for reason, holds in {
        "a head that is solved": config.solver.name,
        "no stored activations": not config.cache.boundary,
        "phases": config.phases,
        "statistics of the training images": config.init.batch_stats == "target",
        "attention that is learned": config.objective.delta_attention,
        "a source to train first": config.init.source,
        "averages": config.average.name,
        "settings fitted to the data": config.train.fit_to_data,
        "a teacher": config.objective.distillation,
        "members of a soup": config.soup.name,
        "own parts": any(is_own(str(fields[name])) for name in ("optim.name", "objective.name")),
        "data not on the device": config.cache.storage not in ("auto", "device")
        or config.data.placement == "host",
        "several devices": config.parallel.mode != "jit" or devices > 1 or jax.process_count() > 1,
    }.items():
        if holds:
            return reason
    if jax.default_backend() == "cpu" and cpu.trains_below_head(_frozen_mask(config)):
        return "convolutions, which for several members are slow on a CPU"
    return ""


def key(config: ml_collections.ConfigDict) -> str:
    """Returns what configs that may train as one program have in common."""
    fields = flat(config)
    shared = {
        name: bool(value) if name in FIELDS else value  # What is 0 is no part of the program.
        for name, value in fields.items()
        if name not in _SEEDS
    }
    return json.dumps(files.plain(shared), sort_keys=True)


def _frozen_mask(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the tree of bools like params, True where frozen; the size of the data's images counts nothing."""
    model = make_model(config, 1)
    side = config.data.image_size or 32
    shapes = jax.eval_shape(
        lambda: models.init_variables(model, jax.random.key(0), (1, side, side, 3))
    )
    own = own_shapes(config, make_objective(config, model), model)
    params = objectives.with_own(shapes["params"], own)
    return make_partition(config, model, params, lambda step: 0.0).frozen_mask


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    """The state of all members; a pytree.

    Attributes:
        members: of each, without what comes before the boundary.
        frozen: params and batch_stats before the boundary, which no step reads: those of one member.
        scalars: {field: float32 [M]}.
    """

    members: tuple[TrainState, ...]
    frozen: dict[str, Any]
    scalars: dict[str, jax.Array]


class Group:
    """Configs with the same `key`, whose runs train as one program."""

    def __init__(self, configs: Sequence[ml_collections.ConfigDict]):
        """Compiles nothing.

        Args:
            configs: of the members, in their order.
        """
        fields = [flat(config) for config in configs]
        self._size = len(configs)
        self._scalars = {
            name: np.array([of[name] for of in fields], np.float32)
            for name in FIELDS
            if len({of[name] for of in fields}) > 1
        }
        seeds = [tuple(of[name] for name in _SEEDS) for of in fields]
        known = list(dict.fromkeys(seeds))
        self._data_set = [known.index(seed) for seed in seeds]
        self._rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._starts = np.zeros(0, np.int64)  # of each data set, among the rows of all
        self._resident: Resident | None = None
        self._refused: Exception | None = None
        self._built_in: tuple[int, tuple[float, ...]] = (
            0,
            (),
        )  # of the data, what the program holds
        self._shared: tuple[Any, Any] | None = None  # frozen and scalars, on the device

    def __len__(self) -> int:
        """Returns M."""
        return self._size

    @property
    def data_sets(self) -> int:
        """D."""
        return max(self._data_set) + 1

    def run(self, jobs: Sequence[Callable[["Member"], Any]]) -> list[Any]:
        """Makes the runs; returns what each returned, or raised: `NotTogether` where they have to be made alone.

        Args:
            jobs: one for each config: the run, given what makes its updates.
        """

        def job(number: int) -> Callable[[Callable[[Any], Any]], Any]:
            def made(ask: Callable[[Any], Any]) -> Any:
                if self._refused is not None:
                    raise self._refused
                return jobs[number](Member(self, number, ask))

            return made

        return Turns[Any](self._serve).run([job(number) for number in range(len(self))])

    def resident(self, setup: Setup, layout: str | None, make: MakeResident) -> Resident:
        """Returns the updates of all members, compiled for the first one that asks.

        Args:
            setup: of a member, on activations.
            layout: of its data on the devices; None for the host.
            make: compiles them.

        Raises:
            NotTogether: if the member's data are not on one device, or not as many as those of the first one, or
                other weights of classes follow from them.
        """
        if layout is None or setup.mesh.size > 1 or setup.cache is None:
            self._refused = NotTogether("the data are not on one device")
            raise self._refused
        images = setup.inputs["train"]
        built_in = len(images), setup.minimised.class_weights
        if self._resident is None:
            self._built_in = built_in
            labels = self.data_sets * len(images)
            rows = labels * setup.order.views, *images.image_shape
            scalars = {name: jnp.asarray(values) for name, values in self._scalars.items()}
            self._shared = sharding.replicate(setup.mesh, (_before(setup), scalars))
            shapes = _State((_own(setup, setup.state_shapes),) * len(self), *self._shared)
            self._resident = make(
                self._step(setup),
                jax.eval_shape(lambda: shapes),
                jax.ShapeDtypeStruct(rows, images.dtype),
                jax.ShapeDtypeStruct((labels,), jnp.int32),
                len(self) * setup.order.batch_size,
            )
        if built_in != self._built_in:
            raise NotTogether(
                f"training examples and weights of classes are {built_in}, those of another seed {self._built_in}"
            )
        return self._resident

    def keep(self, number: int, rows: np.ndarray, labels: np.ndarray) -> None:
        """Takes the data of a member, until those of all are placed."""
        self._rows.setdefault(self._data_set[number], (device_dataset.flat(rows), labels))

    def _step(self, setup: Setup) -> Callable[[_State, dict[str, jax.Array]], tuple[_State, Any]]:
        """Returns the pure step of all members."""

        def step(state: _State, batch: dict[str, jax.Array]):
            def of_member(
                own: TrainState, rows: dict[str, jax.Array], scalars: Any
            ) -> tuple[TrainState, Any]:
                whole = own.replace(
                    params={**state.frozen["params"], **own.params},
                    batch_stats={**state.frozen["batch_stats"], **own.batch_stats},
                )
                update = make_pure_step(_with_scalars(setup, scalars))(axis_name=None)
                new, measured = update(whole, rows)
                return _own(setup, new), measured

            rows = {
                name: leaf.reshape(len(self), -1, *leaf.shape[1:]) for name, leaf in batch.items()
            }
            places = jnp.arange(rows["label"].shape[1], dtype=jnp.int32)
            rows["position"] = jnp.broadcast_to(places, rows["label"].shape)
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *state.members)
            new, measured = _each_member(of_member)(stacked, rows, state.scalars)
            members = tuple(jax.tree.map(lambda leaf, m=m: leaf[m], new) for m in range(len(self)))
            return _State(members, state.frozen, state.scalars), measured

        return step

    def _serve(self, asked: Mapping[int, Any]) -> dict[int, Any]:
        """Makes the updates that members ask for, those of as many updates in one call."""
        assert self._resident is not None
        if self._rows:
            self._place()
        answers: dict[int, Any] = {}
        for count in sorted({len(rows) for _, rows in asked.values()}, reverse=True):
            chosen = {number: of for number, of in asked.items() if len(of[1]) == count}
            answers |= self._updated(chosen)
        return answers

    def _place(self) -> None:
        """Places the data of all members, one after the other; of those that ended before they had any, zeros."""
        assert self._resident is not None
        images, labels = next(iter(self._rows.values()))
        blank = np.zeros_like(images), np.zeros_like(labels)
        parts = [self._rows.get(number, blank) for number in range(self.data_sets)]
        self._starts = np.arange(self.data_sets) * len(images)
        self._rows = {}
        self._resident.step.put(*(np.concatenate(of) for of in zip(*parts, strict=True)))

    def _updated(self, asked: Mapping[int, Any]) -> dict[int, Any]:
        assert self._resident is not None and self._shared is not None
        # Members that have ended, or are elsewhere, are replaced by copies of another.
        first = next(iter(asked))
        states, blocks = [], []
        for number in range(len(self)):
            state, rows = asked.get(number) or (
                jax.tree.map(jnp.copy, asked[first][0]),
                asked[first][1],
            )
            owner = self._data_set[number if number in asked else first]
            states.append(state)
            blocks.append(rows + self._starts[owner])
        state = _State(tuple(states), *self._shared)
        state, measured = self._resident.step(state, np.concatenate(blocks, axis=1))
        self._shared = state.frozen, state.scalars
        return {
            number: (
                state.members[number],
                {name: values[..., number] for name, values in measured.items()},
            )
            for number in asked
        }


class Member:
    """What makes the updates of one run of a group; called as a `device_dataset.ResidentStep` is."""

    def __init__(self, group: Group, number: int, ask: Callable[[Any], Any]):
        """Compiles nothing.

        Args:
            group: of the run.
            number: of the run in it.
            ask: waits for the other members, and returns what the group answers.
        """
        self.group, self._number, self._ask = group, number, ask
        self._setup: Setup | None = None

    def resident(self, setup: Setup, layout: str | None, make: MakeResident) -> Resident:
        """Returns the updates of the group; see `Group.resident`."""
        self._setup = setup
        return self.group.resident(setup, layout, make)

    def put(self, rows: np.ndarray | OwnRows, labels: np.ndarray) -> None:
        """Gives the training activations [N, ...] and their labels."""
        assert isinstance(rows, np.ndarray)  # of one process
        self.group.keep(self._number, rows, labels)

    def __call__(self, state: TrainState, rows: np.ndarray) -> tuple[TrainState, dict[str, Any]]:
        """Makes len(rows) updates, together with the others."""
        assert self._setup is not None
        new, measured = self._ask((_own(self._setup, state), rows))
        params, batch_stats = (
            {**getattr(state, name), **getattr(new, name)} for name in ("params", "batch_stats")
        )
        return new.replace(params=params, batch_stats=batch_stats), measured


def _each_member(of_member: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of one member as one of all, its arguments and results with M in front.

    At once where that is faster. On a CPU, which gains nothing by it, one after the other: members that differ in
    seeds and learning rates then have the weights of their solo runs to the bit, and nothing grows from sums in
    another order at learning rates that are too high.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(of_member)
    return lambda *given: jax.lax.map(lambda of_one: of_member(*of_one), given)


def _own(setup: Setup, state: TrainState) -> TrainState:
    """Returns a state without what comes before the boundary."""
    return state.replace(
        params=suffix(setup, state.params), batch_stats=suffix(setup, state.batch_stats)
    )


def _before(setup: Setup) -> dict[str, Any]:
    """Returns params and batch_stats of what comes before the boundary."""
    return {
        name: {group: of for group, of in tree.items() if group not in suffix(setup, tree)}
        for name, tree in setup.variables.items()
    }


def _with_scalars(setup: Setup, scalars: Mapping[str, jax.Array]) -> Setup:
    """Returns a run in which these fields are data of the program."""
    values = {FIELDS[name]: scalar for name, scalar in scalars.items()}
    config, examples = setup.config, len(setup.splits["train"])
    rate = values.pop("learning_rate", config.optim.learning_rate)
    schedule = make_schedule(config, rate, setup.total_steps, examples)
    regularisation = {name: values[name] for name in values if name != "label_smoothing"}
    strengths = {name: values[name] for name in values if name != "weight_decay"}
    optimisation, minimised = setup.optimisation, setup.minimised
    tx = make_tx(
        config,
        setup.variables["params"],
        schedule,
        optimisation.multipliers,
        optimisation.frozen_mask,
        make_plateau(config, examples),
        rgn_updates(config, examples),
        **regularisation,
    )
    objective = make_objective(
        config, setup.model, class_weights=minimised.class_weights, **strengths
    )
    return dataclasses.replace(
        setup,
        optimisation=dataclasses.replace(optimisation, schedule=schedule, tx=tx),
        minimised=dataclasses.replace(minimised, objective=objective),
    )
