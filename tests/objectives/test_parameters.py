"""Parameters that objectives own: how they are made, told apart from the network's, and refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tl_jax import objectives
from tl_jax.errors import InputError
from tl_jax.objectives import Own

START = objectives.Start(num_classes=4, features={"pool": (3,)})


def zero(outputs):
    return outputs.logits.mean(), {}


def noise(key, start):
    return {"kernel": jax.random.normal(key, (*start.features["pool"], start.num_classes))}


def one(key, start):
    del key, start
    return {"value": jnp.ones(())}


def test_each_group_has_a_key_of_its_own_name():
    alone = Own(zero, params={"map": noise})
    both = Own(zero, params={"other": noise, "map": noise})
    key = jax.random.key(1)
    (found, others) = (objectives.init_params(of, key, START) for of in (alone, both))
    np.testing.assert_array_equal(found["map"]["kernel"], others["map"]["kernel"])
    assert not np.array_equal(others["map"]["kernel"], others["other"]["kernel"])
    assert found["map"]["kernel"].shape == (3, 4)
    again = objectives.init_params(alone, jax.random.key(2), START)
    assert not np.array_equal(found["map"]["kernel"], again["map"]["kernel"])


def test_objectives_without_parameters_own_none():
    for objective in (zero, Own(zero), objectives.CrossEntropy(), objectives.Delta(("pool",))):
        assert objectives.params_of(objective) == {}
        assert objectives.init_params(objective, jax.random.key(0), START) == {}


def test_arrays_are_copied():
    """A step donates its state: what it was made of has to stay."""
    given = {"value": jnp.ones(3)}
    made = objectives.init_params(
        Own(zero, params={"own": lambda *_: given}), jax.random.key(0), START
    )
    made["own"]["value"].delete()
    assert given["value"].sum() == 3


def test_params_of_the_network_and_of_objectives():
    params = {"stem": {"kernel": 1}, "head": {"kernel": 2}}
    assert objectives.with_own(params, {}) == params
    whole = objectives.with_own(params, {"temperature": {"value": 3}})
    assert list(whole) == ["stem", "head", "objective"]
    assert objectives.of_network(whole) == params
    assert objectives.of_objectives(whole) == {"temperature": {"value": 3}}
    assert objectives.of_objectives(params) == {}


def test_terms_of_one_name_made_in_two_ways_are_refused():
    terms = [Own(zero, params={"value": one}), Own(zero, params={"value": noise})]
    with pytest.raises(InputError, match="two objectives own parameters called 'value'"):
        objectives.params_of(objectives.Sum(tuple((1.0, term) for term in terms)))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (jnp.ones(3), "there are none"),
        ({}, "there are none"),
        ({"value": 1.0}, "value is none"),
        ({"inner": {"value": jnp.ones(3, jnp.int32)}}, "inner/value is none"),
    ],
)
def test_what_is_no_tree_of_float32_is_refused(made, said):
    with pytest.raises(InputError, match=f"objective parameters 'own': {said}; expected a nested"):
        objectives.init_params(Own(zero, params={"own": lambda *_: made}), jax.random.key(0), START)


@pytest.mark.parametrize("name", ["", "a/b", 3])
def test_names_that_cannot_be_those_of_leaves(name):
    with pytest.raises(InputError, match="expected a name without '/'"):
        objectives.params_of(Own(zero, params={name: one}))
