"""What `config.solver` says: which strengths are tried, whether the rest of the config fits, what of it counts."""

from typing import Any

import ml_collections

from tl_jax import models, trees
from tl_jax.config import default_config, flat, without_updates
from tl_jax.errors import InputError
from tl_jax.parallel import sharding
from tl_jax.runs.parts import is_own
from tl_jax.training import logistic
from tl_jax.training.solvers import PENALISED, SOLVERS

# What a solver fills: one dense layer.
_HEAD = ("head/bias", "head/kernel")


def strengths_of(config: ml_collections.ConfigDict) -> tuple[float, ...]:
    """Returns the L2 strengths that are tried; () for a solver without any.

    Where the config gives none, they are those of the linear probe: 45 from 1e-6 to 1e5, for ridge regression, too.

    Source: Kornblith et al. 2019 (arXiv:1805.08974), appendix A. Bertinetto et al. 2019 (arXiv:1805.08136) learn
    the strength of ridge regression over many tasks, and give no grid.
    """
    if config.solver.name not in PENALISED:
        return ()
    grid = default_config().probe
    given = tuple(map(float, config.solver.strengths))
    return given or logistic.strength_grid(grid.least, grid.most, grid.count)


def described(config: ml_collections.ConfigDict) -> str:
    """Returns what finds the head, in words, such as "ridge regression, 45 L2 strengths"."""
    count = len(strengths_of(config))
    tried = f", {count} L2 strength{'s' if count > 1 else ''}" if count else ""
    return SOLVERS[config.solver.name] + tried


def run_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config that a solved run is put together from: that of a run which makes no updates."""
    plain = without_updates(config)
    plain.data.batch_size = sharding.make_mesh(config.parallel.devices).size
    return plain


def check_no_phases(config: ml_collections.ConfigDict) -> None:
    """Raises InputError if a run without updates has phases."""
    if config.solver.name and config.phases:
        raise InputError(
            f"phases={tuple(map(tuple, config.phases))}: solver.name={config.solver.name} makes no updates; expected "
            "phases=()"
        )


def check_solver(
    config: ml_collections.ConfigDict, model: Any, params: dict[str, Any], frozen_mask: Any
) -> None:
    """Looks at what can be judged without data and weights.

    Args:
        config: of the run.
        model: the Linen module.
        params: its shapes.
        frozen_mask: tree of bools like `params`, True where frozen.

    Raises:
        InputError: if there is no solver and strengths all the same, or listing what a solved head cannot go with.
    """
    section = config.solver
    if not section.name:
        if section.strengths:
            raise InputError(
                f"solver.strengths={tuple(section.strengths)} without solver.name has no effect; expected (), or "
                f"one of {', '.join(PENALISED)}"
            )
        return
    problems = [
        *_problems_of_strengths(config),
        *_problems_of_other_fields(config),
        *_problems_of_head(config, model, params, frozen_mask),
    ]
    if problems:
        raise InputError("\n".join(problems))


def _problems_of_strengths(config: ml_collections.ConfigDict) -> list[str]:
    name, given = config.solver.name, tuple(config.solver.strengths)
    if name not in PENALISED:
        if not given:
            return []
        return [f"solver.strengths={given}: solver.name={name} has no strength; expected ()"]
    if len(set(given)) < len(given):
        return [f"solver.strengths={given}: one is there twice"]
    held_out = config.data.validation_split or config.data.validation_fraction
    if len(given) == 1 or held_out:
        return []
    return [
        f"solver.strengths={given}: {len(strengths_of(config))} strengths to choose from, and nothing is held out; "
        "expected data.validation_fraction above 0, data.validation_split, or one strength, such as (1.0,)"
    ]


def _problems_of_other_fields(config: ml_collections.ConfigDict) -> list[str]:
    given = f"solver.name={config.solver.name}"
    problems = []
    if is_own(config.optim.name):
        problems.append(
            f"optim.name={config.optim.name}: {given} makes no updates, and an optimizer that is given would do "
            "nothing; expected none"
        )
    if config.data.order == "balanced":
        problems.append(
            f"data.order=balanced: {given} sees all training images once, whatever their classes; expected shuffled"
        )
    if config.train.eval_statistics != "running":
        problems.append(
            f"train.eval_statistics={config.train.eval_statistics}: {given} is fitted to features that are computed "
            "with running statistics; expected running"
        )
    if config.freeze.batch_norm != "frozen":
        problems.append(
            f"freeze.batch_norm={config.freeze.batch_norm}: {given} makes no updates in which BatchNorm could move; "
            "expected frozen"
        )
    fields, defaults = flat(config), flat(default_config())
    changed = [
        f"{name}={fields[name]!r}"
        for name in fields
        if name.startswith("objective.") and fields[name] != defaults[name]
    ]
    if changed:
        minimises = (
            "minimises cross-entropy with an L2 strength"
            if config.solver.name == "lbfgs"
            else "has an objective of its own"
        )
        problems.append(f"{', '.join(changed)}: {given} {minimises}; expected the defaults")
    return problems


def _problems_of_head(
    config: ml_collections.ConfigDict, model: Any, params: dict[str, Any], frozen_mask: Any
) -> list[str]:
    given = f"solver.name={config.solver.name}"
    name = config.model.name
    if getattr(model, "classifier", "") == "hidden":
        return [
            f"{given}: {name} has hidden layers before its head, and a solver finds one dense layer; expected "
            "model.classifier=pooled (experiments.probe takes hidden layers as they come with the weights)"
        ]
    shapes = {leaf: value.shape for leaf, value in trees.flatten({"head": params["head"]}).items()}
    last = models.before_head(model)[-1]
    width = models.boundary_shapes(model, config.data.image_size or 32)[last]
    if (
        tuple(sorted(shapes)) != _HEAD
        or len(width) != 1
        or shapes["head/kernel"] != (*width, *shapes["head/bias"])
    ):
        return [
            f"{given}: the head of {name} has {', '.join(sorted(shapes))} on features {list(width)} after {last}; "
            "expected one dense layer: head/kernel [features, classes], head/bias [classes]"
        ]
    frozen = trees.flatten(frozen_mask)
    trained = sorted(leaf for leaf in frozen if not frozen[leaf])
    if tuple(trained) == _HEAD:
        return []
    others = [leaf for leaf in trained if leaf not in _HEAD]
    problem = (
        f"trains {len(others)} leaves of the backbone, such as {others[0]}"
        if others
        else f"freezes {', '.join(leaf for leaf in _HEAD if frozen[leaf])}"
    )
    patterns = tuple(config.freeze.patterns)
    strategy = f"freeze.strategy={config.freeze.strategy}"
    strategy += f" with freeze.patterns={patterns}" if patterns else ""
    expected = "freeze.strategy=backbone" + (" and no freeze.patterns" if patterns else "")
    return [f"{given} finds the head alone, and {strategy} {problem}; expected {expected}"]
