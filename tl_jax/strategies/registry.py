"""The names of strategies, and what each assigns to the fields of a config."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Sequence

import ml_collections

from tl_jax.config import assigned
from tl_jax.errors import InputError, taken, unknown

# From the config of a run, and what stands after the colon of the name, to assignments.
Assign = Callable[..., tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way to adapt a network, as assignments to fields of a config.

    Attributes:
        name: by which a spec names it.
        assign: `assign(config) -> assignments`, or `assign(config, argument)` where it takes one. The first line of
            its docstring says what is done; a paragraph "Source: ..." says who proposed it.
        argument: what stands after a colon, as GROUP in `surgical:GROUP`; "" for nothing.
    """

    name: str
    assign: Assign
    argument: str = ""

    @property
    def usage(self) -> str:
        """How a spec names it, such as "top:K"."""
        return f"{self.name}:{self.argument}" if self.argument else self.name

    @property
    def summary(self) -> str:
        """What is done, in a sentence."""
        return _paragraphs(self.assign)[0]

    @property
    def source(self) -> str:
        """Who proposed it; "" where nobody in particular did."""
        found = [text for text in _paragraphs(self.assign) if text.startswith("Source: ")]
        return found[0].removeprefix("Source: ") if found else ""


_STRATEGIES: dict[str, Strategy] = {}


def register(strategy: Strategy, *, replace: bool = False) -> None:
    """Makes a strategy available to specs by its name.

    Args:
        strategy: whose name has neither "=" nor ":".
        replace: whether it takes the place of another one of that name.

    Raises:
        InputError: if the name is taken and `replace` is False, or is no name.
    """
    if not strategy.name or set(strategy.name) & set("=:, "):
        raise InputError(
            f"strategy {strategy.name!r}: expected a name without '=', ':', ',' and spaces, such as 'lp_ft'"
        )
    if strategy.name in _STRATEGIES and not replace:
        raise taken("strategy", strategy.name)
    _STRATEGIES[strategy.name] = strategy


def list_strategies() -> list[str]:
    """Returns how specs name the strategies, such as "lp_ft" and "top:K"."""
    return [strategy.usage for strategy in _STRATEGIES.values()]


def is_strategy(text: str) -> bool:
    """Returns whether a text names a strategy rather than assigns a value."""
    return text.partition(":")[0] in _STRATEGIES


def expand(given: str | Sequence[str], config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns the assignments of a variant, the strategies in it replaced by what they assign.

    Args:
        given: the name of a strategy, or assignments and names of strategies, such as
            `("lp_ft", "optim.learning_rate=0.01")`.
        config: of the run, whose length and network decide some of them.

    Raises:
        InputError: if a strategy is unknown, or does not fit the config.

    Example:
        >>> from tl_jax.config import default_config
        >>> expand(("linear_probe", "optim.learning_rate=0.01"), default_config())
        ('freeze.strategy=backbone', 'optim.learning_rate=0.01')
    """
    texts = (given,) if isinstance(given, str) else tuple(given)
    assignments: list[str] = []
    for text in texts:
        assignments += [text] if "=" in text else _assignments(text, config)
    return tuple(assignments)


def with_strategy(
    config: ml_collections.ConfigDict, given: str | Sequence[str]
) -> ml_collections.ConfigDict:
    """Returns a copy of a config with a strategy.

    Args:
        config: of a run.
        given: as of `expand`.

    Raises:
        InputError: as `expand`, or if an assignment makes no sense.

    Example:
        >>> from tl_jax.config import default_config
        >>> with_strategy(default_config(), "linear_probe").freeze.strategy
        'backbone'
    """
    return assigned(copy.deepcopy(config), expand(given, config))


def page() -> str:
    """Returns the table of all strategies in Markdown."""
    lines = ["| strategy | what is done | source |", "|---|---|---|"]
    lines += [
        f"| `{strategy.usage}` | {strategy.summary.rstrip('.')} | {strategy.source.rstrip('.')} |"
        for strategy in _STRATEGIES.values()
    ]
    return "\n".join(lines) + "\n"


def _assignments(text: str, config: ml_collections.ConfigDict) -> tuple[str, ...]:
    name, colon, argument = text.partition(":")
    if name not in _STRATEGIES:
        raise unknown("strategy", text, list_strategies())
    strategy = _STRATEGIES[name]
    if bool(strategy.argument) != bool(argument) or (colon and not argument):
        raise InputError(f"strategy {text!r}: expected {strategy.usage}")
    try:
        return strategy.assign(config, argument) if argument else strategy.assign(config)
    except InputError as error:
        raise InputError(f"strategy {text}: {error}") from error


def _paragraphs(function: Assign) -> list[str]:
    text = inspect.getdoc(function) or ""
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
