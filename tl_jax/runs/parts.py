"""What a run is given as Python objects instead of by the names in its config."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tl_jax import augment, data, models
from tl_jax.errors import InputError

# In a config, `own:NAME` stands for an object that is not registered and must be given again to resume the run.
OWN = "own:"


@dataclasses.dataclass(frozen=True)
class Parts:
    """Objects of a run; the config decides where one is not given.

    Attributes:
        source: of the data; None: what `data.name` says.
        model: the network, see `models.Network`, or a function from the number of classes to it; None: what
            `model.name` says.
        objective: the main loss, see `objectives.Objective`.
        optimizer: from a schedule (completed updates -> learning rate) to an optax transformation, such
            as `optax.lion`; takes the place of `optim.name` and its numbers.
        operations: those that `augment.operations` calls `own:NAME=STRENGTH`.
        mixings: those that `augment.mixing` calls so.
    """

    source: data.Source | None = None
    model: models.Network | Callable[[int], models.Network] | None = None
    objective: Any = None
    optimizer: Any = None
    operations: tuple[augment.Operation, ...] = ()
    mixings: tuple[augment.Mixing, ...] = ()

    @property
    def model_name(self) -> str:
        """What a config calls the network that was given: `own:` and the name of its class."""
        return own_name(self.make_model(1))

    def make_model(self, num_classes: int) -> models.Network:
        """Returns the network that was given, for so many classes.

        Raises:
            InputError: if it is no network.
        """
        given: Any = self.model
        if isinstance(given, type) or (callable(given) and not hasattr(given, "apply")):
            given = given(num_classes)
        models.check_module(given)
        return given


NOTHING_GIVEN = Parts()


def own_name(given: Any) -> str:
    """Returns what a config calls an object that is given: `own:` and its name, that of its class if it has none."""
    name = getattr(given, "name", None) or getattr(given, "__name__", None)
    return OWN + (name if isinstance(name, str) else type(given).__name__)


def is_own(name: str) -> bool:
    """Returns whether a name in a config stands for an object that was given."""
    return name.startswith(OWN)


def must_be_given(field: str, name: str, argument: str) -> InputError:
    """Returns the error where a config names an object that was not given.

    Args:
        field: of the config, such as "model.name".
        name: its value, such as "own:MyNet".
        argument: by which it is given, such as "model".
    """
    functions = ("finetune", "load_run", "evaluate") if argument == "model" else ("finetune",)
    calls = " or ".join(f"tl_jax.{function}(..., {argument}=...)" for function in functions)
    return InputError(
        f"{field}={name}: this run was made with {name.removeprefix(OWN)}, an object given in Python; expected "
        f"it again, as {calls}"
    )
