"""How much is told."""

import pytest

from tl_jax import console


def test_levels_are_nested_and_restored(capsys):
    assert console.tells() and not console.tells("verbose")
    with console.telling("silent"):
        console.say("no")
        console.note("no")
        with console.telling("verbose"):
            assert console.tells("verbose")
            console.say("a line")
            console.note("a note")
        assert not console.tells()
    assert console.tells() and not console.tells("verbose")
    assert capsys.readouterr() == ("a line\n", "a note\n")


def test_an_unknown_level():
    with pytest.raises(ValueError, match="expected one of silent, normal, verbose"):
        console.telling("loud").__enter__()
