"""What only updates look at, and what makes a run without updates the run that it is."""

from fnmatch import fnmatch

import pytest

from tl_jax.config import (
    FIELDS,
    ONLY_OF_UPDATES,
    default_config,
    flat,
    identity_of,
    without_updates,
)


def is_of_updates(name):
    return any(fnmatch(name, known) for known in ONLY_OF_UPDATES)


def test_every_entry_is_a_field_or_a_section():
    for known in ONLY_OF_UPDATES:
        assert any(fnmatch(name, known) for name in FIELDS), known


def test_they_say_nothing_in_the_plain_config_and_all_others_stay():
    config = default_config(
        augment__crop_padding=2,
        augment__operations=("rotation=15",),
        optim__learning_rate=0.3,
        average__name="ema",
        train__epochs=7.0,
        train__select_by="loss",
        data__batch_size=33,
        data__seed=5,
        cache__boundary="auto",
        cache__dtype="bfloat16",
        solver__name="ridge",
        seed=4,
    )
    before, after = flat(config), flat(without_updates(config))
    defaults = flat(default_config())
    for name in before:
        if not is_of_updates(name):
            assert after[name] == before[name], name
        elif name not in ("augment.crop_padding", "augment.flip", "train.steps"):
            assert after[name] == defaults[name], name
    assert (after["augment.crop_padding"], after["augment.flip"]) == (0, False)
    assert (after["train.steps"], after["train.epochs"]) == (1, 0.0)
    assert flat(config) == before  # a copy was changed


@pytest.mark.parametrize("name", ["ridge", ""])
def test_what_makes_it_the_same_run(name):
    identity = identity_of(default_config(solver__name=name))
    ignored = set(ONLY_OF_UPDATES) <= set(identity.without_effect)
    assert ignored == bool(name)
    assert identity.extendable == (() if name else ("train.steps", "train.epochs"))


def test_of_other_commands_the_solver_changes_nothing():
    """Which refuse it, or do not look at it."""
    found = identity_of(default_config(solver__name="ridge"), "sweep")
    assert found.without_effect == identity_of(default_config(), "sweep").without_effect
