"""The parts of a run that decide its numbers, each as text that is equal where the part is.

Nothing is compiled and no update is made: steps are lowered, and every activation is the number of its view. But for
the relationship of classes, for which the training images pass through the source network.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import features, trees
from tl_jax.compilation import PLAIN, Compilation
from tl_jax.parallel import device_dataset, sharding
from tl_jax.runs import activation_cache, dispatch, relationship, selection, solver
from tl_jax.runs.pure_step import make_pure_step
from tl_jax.runs.setup import Setup, prepare_phases

_UPDATES = 8


def parts_of(config) -> dict[str, str]:
    """Returns the parts of the run that `config` describes, by name; of phases, what differs among them.

    step: the lowered training step, on images or on stored activations, at the precision that it is given.
    evaluation: the lowered evaluation step, likewise.
    schedule: the learning rate of every update.
    order: the rows that the first updates read.
    train, validation, test: pixels, labels and class names of the split.
    start: the variables before the first update, what objectives own among them.
    references: the variables of the frozen networks that objectives look at, and the relationship of their classes.
    draws: the seed from which every update draws its random numbers.
    prefix: all that stored activations depend on, and their shape and type.
    solver: what finds the head in place of updates, and the strengths that it tries.
    selection: the metric on validation that chooses the best step, and whether more or less is better.
    plan: when the run logs, evaluates, saves and ends.
    dispatch: where its data are stored, on how many devices, and how many updates go at once.
    """
    with nothing_compiled() as seen:
        phases = [_parts_of_phase(setup, seen) for setup in prepare_phases(config)]
    return {name: "\n".join(dict.fromkeys(one[name] for one in phases)) for name in phases[0]}


def _parts_of_phase(setup: Setup, seen: "_Seen") -> dict[str, str]:
    setup = activation_cache.use(relationship.use(setup))
    # The first one is made for images, and used by all phases without activations.
    evaluate, compilation = seen.evaluations[0 if setup.cache is None else -1]
    dispatched = seen.dispatched(setup)
    state = jax.eval_shape(setup.initial_state_on_host)
    updates = np.arange(setup.total_steps - setup.first_step)
    first = range(setup.first_step, setup.first_step + _UPDATES)
    splits = {name: _split(setup, name) for name in ("train", "validation", "test")}
    return splits | {
        "step": _step(setup, state, seen.compilations[-1]),
        "evaluation": _lowered(
            compilation,
            evaluate,
            *state.network.values(),
            _batch(setup, setup.evaluator.batch_size, label=jnp.int32, mask=bool),
        ),
        "schedule": str(np.asarray(jax.vmap(setup.optimisation.schedule)(updates)).tolist()),
        "order": str([setup.order.rows(step).tolist() for step in first]),
        "start": _digest(trees.flatten(setup.variables)),
        "draws": str(_seed(setup)),
        "references": _digest(trees.flatten(_references(setup))),
        "prefix": json.dumps(seen.facts, sort_keys=True) + _stored(setup),
        "solver": f"{setup.config.solver.name} {solver.strengths_of(setup.config)}",
        "selection": str(selection.metric_and_mode(setup.config)),
        "plan": str(dataclasses.asdict(setup.intervals)),
        "dispatch": dispatched,
    }


def _seed(setup: Setup) -> int:
    with jax.disable_jit():  # no program for the optimizer's state
        return int(setup.initial_state_on_host().seed)


def _references(setup: Setup) -> dict[str, Any]:
    with jax.disable_jit():
        return setup.initial_state_on_host().references


def _step(setup: Setup, state: Any, compilation: Compilation) -> str:
    batch = _batch(
        setup, setup.order.batch_size, label=jnp.int32, position=jnp.int32, index=jnp.int32
    )
    return _lowered(compilation, make_pure_step(setup)(axis_name=None), state, batch)


def _batch(setup: Setup, size: int, **columns: Any) -> dict[str, jax.ShapeDtypeStruct]:
    split = setup.inputs["train"]
    dtype = getattr(split, "dtype", np.uint8)
    return {
        "image": jax.ShapeDtypeStruct((size, *split.image_shape), dtype),
        **{name: jax.ShapeDtypeStruct((size,), kind) for name, kind in columns.items()},
    }


def _lowered(compilation: Compilation, step: Callable, *arguments: Any) -> str:
    return compilation.jit(step, keep_unused=True).lower(*arguments).as_text()


def _split(setup: Setup, name: str) -> str:
    if name not in setup.splits:
        return ""
    split = setup.splits[name]
    images = split.gather(np.arange(len(split)))
    return _digest({"images": images, "labels": split.labels}) + str(split.class_names)


def _stored(setup: Setup) -> str:
    if setup.cache is None:
        return ""
    split = setup.inputs["train"]
    return f"{setup.boundary} {split.activations.shape} {split.dtype}"


def _digest(leaves: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, leaf in sorted(leaves.items()):
        array = np.asarray(leaf)
        digest.update(f"{name} {array.shape} {array.dtype}".encode() + array.tobytes())
    return digest.hexdigest()


class _Seen:
    """What passed by while a run was put together."""

    def __init__(self) -> None:
        self.evaluations: list[tuple[Callable, Compilation]] = []
        self.compilations: list[Compilation] = []
        self.facts: list[dict[str, str]] = []
        self.programs: list[str] = []

    def dispatched(self, setup: Setup) -> str:
        self.programs.clear()
        plan = dispatch.make(setup)
        return f"{plan.data}, {plan.updates} updates; programs: {', '.join(self.programs)}"


class _Program:
    """Stands for a traced, a lowered and a compiled program, of a million operations."""

    jaxpr = jax.make_jaxpr(lambda x: x + 1)(np.zeros(10**6, np.float32))

    def lower(self) -> "_Program":
        return self

    def memory_analysis(self) -> None:
        return None

    def compile(self, compiler_options: Any = None) -> "_Program":
        return self


@contextlib.contextmanager
def nothing_compiled() -> Iterator[_Seen]:
    """Leaves out all compilation; gives what passes by.

    The activations of view v of V of example e of the stored split are e * V + v.
    """
    seen = _Seen()
    facts, compiled_eval_step = features.facts_of_program, sharding.compile_eval_step

    def compile_eval_step(step, mesh, compilation=PLAIN, split=False):
        seen.evaluations.append((step, compilation))
        return compiled_eval_step(step, mesh, compilation, split)

    def recorded_facts(*arguments, **options):
        seen.facts.append(facts(*arguments, **options))
        return seen.facts[-1]

    def numbered(prefix, batches, batch_size, out, **options):
        views = np.arange(out.shape[1])
        for number, batch in enumerate(batches):
            room = out[number * batch_size : (number + 1) * batch_size]
            numbers = batch["example"][: len(room), None] * len(views) + views
            room[:] = numbers.reshape(*numbers.shape, *[1] * (out.ndim - 2))
        return True

    class Streamed(sharding.StreamedStep):
        def __init__(self, make_step, mesh, mode="jit", compilation=PLAIN):
            super().__init__(make_step, mesh, mode, compilation)
            seen.compilations.append(compilation)
            seen.programs.append(f"streamed by {mode} over {mesh.size}")

        def lower(self, state, batch):
            return _Program()

    class Resident(device_dataset.ResidentStep):
        def __init__(self, *arguments, compilation=PLAIN, **options):
            super().__init__(*arguments, compilation=compilation, **options)
            seen.compilations.append(compilation)

        def trace(self, state, count, batch_size, images, labels):
            seen.programs.append(f"{count} updates over {self._mesh.size}")
            return _Program()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "compile_eval_step", compile_eval_step)
        patch.setattr(sharding, "StreamedStep", Streamed)
        patch.setattr(device_dataset, "ResidentStep", Resident)
        patch.setattr(features, "facts_of_program", recorded_facts)
        patch.setattr(features, "compute", numbered)
        yield seen
