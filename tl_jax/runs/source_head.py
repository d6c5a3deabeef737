"""The head of the weights, over the classes of the source, and what else objectives own, at the start of a run."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tl_jax import models, objectives, porting, trees
from tl_jax.config import FIELDS
from tl_jax.errors import InputError
from tl_jax.runs import weights

_HEAD_NEEDS = ("source.head", "source.relationship")
# Folded into the key of a run for what objectives own; the network's parameters are drawn from that key itself.
_OWN = 2**31 - 4


@dataclasses.dataclass(frozen=True)
class SourceHead:
    """The head of the weights that a run starts from.

    Attributes:
        params: {"kernel": float32 [F, S], "bias": float32 [S]}.
        class_names: S of them; the numbers 0 to S - 1 where the weights do not say.
    """

    params: dict[str, np.ndarray]
    class_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Relationship:
    """What was learned of the classes of the source and of the data; see `relationship`.

    Attributes:
        probabilities: p(y_s | y_t), float32 [K, S].
        facts: what `relationship.json` says of it.
    """

    probabilities: np.ndarray
    facts: dict[str, Any]


def needs_head(config: ml_collections.ConfigDict, needs: Sequence[str]) -> bool:
    """Returns whether the head of the weights is asked for, though a fresh one takes its place."""
    is_fresh = config.init.head == "reset" and "source.logits" in needs
    return is_fresh or any(need in _HEAD_NEEDS for need in needs)


def check_source_head(
    config: ml_collections.ConfigDict, objective: objectives.Objective, model: Any
) -> None:
    """Looks at whether an objective can have the head of the weights, without reading them.

    Args:
        config: of the run, or of a phase.
        objective: what it minimises.
        model: the Linen module.

    Raises:
        InputError: if there are no weights with a head, the head is kept as the run's own, or it is not one dense
            layer of pooled features.
    """
    needs = objectives.needs_of(objective)
    if not needs_head(config, needs):
        return
    which = [need for need in needs if need in _HEAD_NEEDS or need == "source.logits"]
    asked = f"objective {objectives.name_of(objective)} needs {which[0]}"
    given = config.init.weights
    if config.init.head != "reset":
        raise InputError(
            f"{asked}, a head over the classes of the source beside a new one, but init.head={config.init.head} goes "
            "on with that head itself; expected init.head=reset"
        )
    if not given and not config.init.source:
        raise InputError(
            f"{asked}, the head of the weights, but init.weights='' starts at random; expected weights with a head"
        )
    if given in models.list_pretrained() and not models.get_pretrained(given).num_classes:
        names = models.list_pretrained(f"{models.get_pretrained(given).model}.*")
        with_head = [name for name in names if models.get_pretrained(name).num_classes]
        raise InputError(
            f"{asked}, but init.weights={given} has no head; choose from {', '.join(with_head) or 'none'}"
        )
    if jax.process_count() > 1 and "source.relationship" in needs:
        raise InputError(
            f"{asked}, which is learned in one process, not in {jax.process_count()}; expected one"
        )
    try:
        models.dense_head(model, config.data.image_size or 32)
    except InputError as error:
        raise InputError(f"{asked}: {error}") from error


def check_reaches_network(config: ml_collections.ConfigDict, frozen_mask: trees.Tree) -> None:
    """Raises InputError where terms on the source's head cannot change what the network computes."""
    section = config.objective
    given = [f"objective.{name}={section[name]}" for name in ("co_tuning", "lwf") if section[name]]
    backbone = {
        name: leaf for name, leaf in frozen_mask.items() if name not in ("head", objectives.GROUP)
    }
    if given and all(trees.flatten(backbone).values()):
        raise InputError(
            f"{', '.join(given)} with freeze.strategy={config.freeze.strategy}: all before the head is frozen, so "
            "that the head of the source changes nothing but itself: no effect; expected 0, or a stage that is "
            "trained"
        )


def check_effects(phases: Sequence[ml_collections.ConfigDict], given: Any) -> None:
    """Raises InputError for values of what no phase uses.

    Args:
        phases: configs of all phases.
        given: an own objective.
    """
    last = phases[-1].objective
    mains = [given, *(objectives.registered(phase.objective.name) for phase in phases)]
    related = any(phase.objective.co_tuning for phase in phases) or any(
        "source.relationship" in objectives.needs_of(main) for main in mains if main is not None
    )
    forgetting = any(phase.objective.lwf for phase in phases)
    problems = []
    for name, used, term in (
        ("relationship", related, "co_tuning"),
        ("source_temperature", related, "co_tuning"),
        ("lwf_temperature", forgetting, "lwf"),
    ):
        default = FIELDS[f"objective.{name}"].default
        values = {phase.objective[name] for phase in phases} - {default}
        if values and not used:
            problems.append(
                f"objective.{name}={min(values)} without objective.{term} has no effect; expected a weight above 0 "
                f"(objective.{term}={last[term]:g}), or {default}"
            )
    if problems:
        raise InputError("\n".join(problems))


def read_source_head(
    config: ml_collections.ConfigDict, objective: Any, model: Any, image_size: int
) -> SourceHead | None:
    """Returns the head of the weights where an objective asks for it, else None; see `check_source_head`.

    Raises:
        InputError: if the weights have none, or one that is not one dense layer of the network's features.
    """
    if not needs_head(config, objectives.needs_of(objective)):
        return None
    source = weights.find(config)
    try:
        head = porting.load_head(source, model, image_size=image_size)
    except InputError as error:
        raise InputError(
            f"objective {objectives.name_of(objective)} needs the head of init.weights={config.init.weights}: {error}"
        ) from error
    count = head["kernel"].shape[1]
    names = weights.class_names_of_weights(source)
    return SourceHead(head, tuple(names) if len(names) == count else tuple(map(str, range(count))))


def own_params(
    config: ml_collections.ConfigDict,
    objective: Any,
    model: Any,
    *,
    num_classes: int,
    image_size: int,
    source_head: SourceHead | None,
) -> dict[str, Any]:
    """Returns the parameters that an objective owns at the start of a run, {group: tree}; {} for none.

    Args:
        config: of the run, whose seed draws them.
        objective: what it minimises.
        model: the Linen module.
        num_classes: of the data.
        image_size: side of the network's input in pixels.
        source_head: of the weights; None where nothing asks for it.
    """
    if not objectives.params_of(objective):
        return {}
    key = jax.random.fold_in(jax.random.key(config.seed), _OWN)
    start = objectives.Start(
        num_classes,
        dict(models.boundary_shapes(model, image_size)),
        None if source_head is None else source_head.params,
    )
    return objectives.init_params(objective, key, start)


def own_shapes(config: ml_collections.ConfigDict, objective: Any, model: Any) -> dict[str, Any]:
    """Returns the names of what an objective owns, as a tree of shapes, before data and weights are known.

    Args:
        config: of the run.
        objective: what it minimises.
        model: the Linen module.
    """
    if not objectives.params_of(objective):
        return {}
    side = config.data.image_size or 32
    shapes = dict(models.boundary_shapes(model, side))
    count = shapes[models.before_head(model)[-1]][-1]

    def init(key: jax.Array) -> dict[str, Any]:
        head = {"kernel": jnp.zeros((count, 1)), "bias": jnp.zeros(1)}
        return objectives.init_params(objective, key, objectives.Start(1, shapes, head))

    return jax.eval_shape(init, jax.random.key(0))
