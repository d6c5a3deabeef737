"""Names of strategies: what they expand to, what is refused, and one that a user registers."""

import re

import pytest

from tl_jax import strategies
from tl_jax.ablation import Spec, cells
from tl_jax.config import default_config
from tl_jax.errors import InputError
from tl_jax.strategies import Strategy, registry


@pytest.fixture
def own(monkeypatch):
    """Registers strategies `own` and `own_of:NUMBER` for one test."""
    monkeypatch.setattr(registry, "_STRATEGIES", dict(registry._STRATEGIES))

    def own(config):
        """Doubles the rate.

        More about it.

        Source: Nobody 2026, section 1.
        """
        return (f"optim.learning_rate={2 * config.optim.learning_rate}",)

    def own_of(config, number):
        """Sets the momentum."""
        return (f"optim.momentum={number}",)

    strategies.register(Strategy("own", own))
    strategies.register(Strategy("own_of", own_of, "NUMBER"))


def make_spec(variants, **arguments):
    base = default_config(data__name="digits", train__steps=10)
    return Spec(base, variants, (0,), **arguments)


def test_names_expand_where_they_are(own):
    config = default_config(optim__learning_rate=0.2)
    assert strategies.expand("own", config) == ("optim.learning_rate=0.4",)
    given = ("train.steps=3", "own_of:0.5", "own", "seed=1")
    assert strategies.expand(given, config) == (
        "train.steps=3",
        "optim.momentum=0.5",
        "optim.learning_rate=0.4",
        "seed=1",
    )
    assert strategies.expand((), config) == ()


def test_a_config_with_a_strategy_is_a_copy(own):
    config = default_config(optim__learning_rate=0.2)
    changed = strategies.with_strategy(config, ("own", "own_of:0.5"))
    assert (changed.optim.learning_rate, changed.optim.momentum) == (0.4, 0.5)
    assert (config.optim.learning_rate, config.optim.momentum) == (0.2, 0.9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lpft", "unknown strategy 'lpft'; nearest: lp_ft"),
        ("top", "strategy 'top': expected top:K"),
        ("top:", "strategy 'top:': expected top:K"),
        ("lp_ft:2", "strategy 'lp_ft:2': expected lp_ft"),
        ("lp_ft:", "strategy 'lp_ft:': expected lp_ft"),
        ("lp_ft", "strategy lp_ft: train.steps=0, train.epochs=0.0: a strategy of several phases"),
        (("seed=1", "mixupp"), "unknown strategy 'mixupp'; nearest: mixup"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        strategies.expand(given, default_config())


@pytest.mark.parametrize("name", ["", "a=b", "a:b", "a,b", "a b"])
def test_a_name_that_a_spec_could_not_give(name):
    with pytest.raises(InputError, match=rf"^strategy {re.escape(repr(name))}: expected a name"):
        strategies.register(Strategy(name, lambda config: ()))


def test_a_name_that_is_taken(own):
    other = Strategy("own", lambda config: ("seed=7",))
    with pytest.raises(InputError, match="a strategy 'own' is registered already"):
        strategies.register(other)
    strategies.register(other, replace=True)
    assert strategies.expand("own", default_config()) == ("seed=7",)


def test_the_list_and_the_table_say_how_they_are_used(own):
    assert strategies.list_strategies()[-2:] == ["own", "own_of:NUMBER"]
    assert [strategies.is_strategy(text) for text in ("own_of:1", "own", "seed=1", "owns")] == [
        True,
        True,
        False,
        False,
    ]
    assert strategies.page().splitlines()[-2:] == [
        "| `own` | Doubles the rate | Nobody 2026, section 1 |",
        "| `own_of:NUMBER` | Sets the momentum |  |",
    ]


def test_a_spec_takes_them_with_what_its_trials_set(own):
    made = make_spec(
        {"own": "own", "both": ("own", "own_of:0.25")}, tune={"optim.weight_decay": (0.0, 1e-4)}
    )
    rate = made.base.optim.learning_rate
    found = [cell for cell in cells.expand(made) if cell.variant == "both"]
    assert {cell.config.optim.learning_rate for cell in found} == {2 * rate}
    assert {cell.config.optim.momentum for cell in found} == {0.25}
    assert {cell.config.optim.weight_decay for cell in found} == {0.0, 1e-4}


def test_phases_divide_the_length_of_a_trial():
    made = make_spec({"lp_ft": "lp_ft"}, tune={"train.steps": (10, 20)})
    phases = [cell.config.phases for cell in cells.expand(made)]
    assert [["train.steps=5" in phase for phase in two] for two in phases] == [
        [True, True],
        [False, False],
    ]
    assert all("train.steps=10" in phase for phase in phases[1])


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"a": ("own", "optim.learning_rate=1")}, "variant a sets optim.learning_rate twice"),
        ({"a": ("owns",)}, "unknown strategy of variant a 'owns'; nearest: own"),
        ({"a": ("optim.momentum",)}, "variant a: 'optim.momentum': expected FIELD=VALUE"),
        ({"a": "own=1"}, "variant a is 'own=1': assignments go into a tuple, ('own=1',)"),
        ({"a": ("own_of",)}, "variant a: strategy 'own_of': expected own_of:NUMBER"),
        ({"a": ("own_of:x",)}, "variant a: optim.momentum=x: expected a number"),
    ],
)
def test_a_spec_says_what_does_not_fit(own, variants, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        make_spec(variants)
