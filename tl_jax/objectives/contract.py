"""What an objective is: a function of a batch's outputs, and what it needs to see of them."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from tl_jax.errors import InputError, taken, unknown
from tl_jax.objectives.outputs import Outputs
from tl_jax.objectives.parameters import Initialise, merged, params_of

Metrics = dict[str, jax.Array]

# What an objective may ask for besides logits, targets and params of the trained network. `features` are those
# of `boundaries`, in the trained network and in the source. The head of the source is given to what makes an
# objective's parameters (`Start.source_head`), not in a step.
NEEDS = (
    *("source.params", "source.features", "source.logits", "source.head", "source.relationship"),
    "teacher.logits",
)


class Objective(Protocol):
    """A term of what is minimised.

    `objective(outputs) -> (scalar, metrics)`: the float32 value of the term, a mean over the batch where it
    depends on examples, and more float32 scalars for the log by their names. Called inside the compiled
    step. A function will do; one that needs more than logits, targets and params says so in attributes:

    Attributes:
        name: what its value is called in the log.
        needs: of `NEEDS`.
        boundaries: whose features `outputs.features` (and `outputs.source.features`) hold.
        params: parameters of its own, {group: `initialise(key, start)`}, which are trained with those of the network:
            each function returns a nested dict of float32 arrays for a `Start`, and `outputs.own[group]` is what has
            become of it. Their leaves are called "objective/GROUP/..." in fields that name leaves
            (`freeze.patterns`, `optim.lr_multipliers`). The trained network is applied, evaluated and exported
            without them.
    """

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns the value of the term, and metrics."""


@dataclasses.dataclass(frozen=True)
class Own:
    """An objective made of a function, with what it needs.

    Attributes:
        function: `function(outputs) -> (scalar, metrics)`.
        name: of its value in the log, and of the objective in the config.
        needs: of `NEEDS`.
        boundaries: whose features it looks at.
        params: of its own, {group: `initialise(key, start)`}; see `Objective`.

    Example:
        >>> Own(lambda outputs: (-outputs.logits.mean(), {}), name="entropy").name
        'entropy'
    """

    function: Callable[[Outputs], tuple[jax.Array, Metrics]]
    name: str = "objective"
    needs: tuple[str, ...] = ()
    boundaries: tuple[str, ...] = ()
    params: Mapping[str, Initialise] = dataclasses.field(default_factory=dict, hash=False)

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns what the function does."""
        return self.function(outputs)


@dataclasses.dataclass(frozen=True)
class Sum:
    """Objectives that add up, each times a weight.

    Attributes:
        terms: (weight, objective); a weight is a number or a traced scalar. The first is the main one.
    """

    terms: tuple[tuple[float | jax.Array, Objective], ...]

    @property
    def name(self) -> str:
        """The names of the terms, joined."""
        return " + ".join(name_of(term) for _, term in self.terms)

    @property
    def needs(self) -> tuple[str, ...]:
        """All that the terms need."""
        return tuple(dict.fromkeys(need for _, term in self.terms for need in needs_of(term)))

    @property
    def boundaries(self) -> tuple[str, ...]:
        """All boundaries whose features the terms look at."""
        return tuple(dict.fromkeys(name for _, term in self.terms for name in boundaries_of(term)))

    @property
    def params(self) -> dict[str, Initialise]:
        """All parameters that the terms own; InputError where two of one name are not the same."""
        return functools.reduce(merged, (params_of(term) for _, term in self.terms), {})

    def __call__(self, outputs: Outputs) -> tuple[jax.Array, Metrics]:
        """Returns the weighted sum; several terms are in the metrics by their names, without their weights."""
        total: jax.Array | None = None
        metrics: Metrics = {}
        for weight, term in self.terms:
            value, more = evaluate(term, outputs)
            metrics |= more
            if len(self.terms) > 1:
                if name_of(term) in metrics:
                    raise InputError(
                        f"two metrics are called {name_of(term)!r}; expected another name for an own objective"
                    )
                metrics[name_of(term)] = value
            if isinstance(weight, jax.Array) or weight != 1:
                value = weight * value
            total = value if total is None else total + value
        assert total is not None  # one term at least
        return total, metrics


def name_of(objective: Any) -> str:
    """Returns what the value of an objective is called in the log."""
    name = getattr(objective, "name", None) or getattr(objective, "__name__", None)
    return name or type(objective).__name__


def needs_of(objective: Any) -> tuple[str, ...]:
    """Returns what an objective needs.

    Raises:
        InputError: if it is none of `NEEDS`.
    """
    needs = tuple(getattr(objective, "needs", ()))
    for need in needs:
        if need not in NEEDS:
            raise unknown(f"need of objective {name_of(objective)!r}", need, NEEDS)
    return needs


def boundaries_of(objective: Any) -> tuple[str, ...]:
    """Returns the boundaries whose features an objective looks at."""
    return tuple(getattr(objective, "boundaries", ()))


# What a step measures itself, and the log adds.
RESERVED = (
    *("loss", "top1_accuracy", "grad_norm", "learning_rate", "rate_scale"),
    *("seconds", "step", "split"),
)


def evaluate(objective: Objective, outputs: Outputs) -> tuple[jax.Array, Metrics]:
    """Returns the value of an objective and its metrics, having compared them with the contract.

    Raises:
        InputError: if it returns anything but a scalar and a dict of scalars of names that are free.
    """
    returned = objective(outputs)
    name = f"objective {name_of(objective)!r}"
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise InputError(f"{name} returns {_kind(returned)}, expected (scalar, dict of scalars)")
    value, metrics = returned
    for what, found in {"value": value, **metrics}.items():
        if jnp.shape(found) != ():
            raise InputError(
                f"{name}: {what} has shape {list(jnp.shape(found))}, expected a scalar, such as its mean"
            )
    reserved = [metric for metric in metrics if metric in RESERVED]
    if reserved:
        raise InputError(
            f"{name}: {', '.join(reserved)} is measured already; expected another name for the metric"
        )
    return value, metrics


def _kind(returned: Any) -> str:
    shape = getattr(returned, "shape", None)
    return type(returned).__name__ if shape is None else f"an array of shape {list(shape)}"


_REGISTERED: dict[str, Any] = {}


def register(name: str, objective: Objective, *, replace: bool = False) -> None:
    """Makes an objective available to configs as `objective.name`.

    Args:
        name: by which a config names it.
        objective: a function or object as `Objective` describes.
        replace: whether it takes the place of another one of that name, registered before.

    Raises:
        InputError: if the name is taken and `replace` is False, or the objective needs what does not exist.
    """
    if name == CROSS_ENTROPY:
        raise taken("objective", name, ours=True)
    if _REGISTERED.get(name, objective) != objective and not replace:
        raise taken("objective", name)
    needs_of(objective)
    params_of(objective)
    _REGISTERED[name] = objective


def registered(name: str) -> Objective | None:
    """Returns the objective that was registered under a name; None if there is none."""
    return _REGISTERED.get(name)


def list_objectives() -> list[str]:
    """Returns the names that `objective.name` may have."""
    return [CROSS_ENTROPY, *_REGISTERED]


CROSS_ENTROPY = "cross_entropy"


def check_boundaries(objective: Any, known: Iterable[str]) -> None:
    """Raises InputError if an objective looks at features of a boundary that the network does not have."""
    known = list(known)
    for boundary in boundaries_of(objective):
        if boundary not in known:
            raise unknown(f"boundary of objective {name_of(objective)!r}", boundary, known)
