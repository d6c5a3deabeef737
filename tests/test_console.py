"""How much is printed."""

import pytest

from tl_jax import console


def test_levels_are_nested_and_restored(capsys):
    assert console.shows() and not console.shows("verbose")
    with console.verbosity("silent"):
        console.say("no")
        console.note("no")
        with console.verbosity("verbose"):
            assert console.shows("verbose")
            console.say("a line")
            console.note("a note")
        assert not console.shows()
    assert console.shows() and not console.shows("verbose")
    assert capsys.readouterr() == ("a line\n", "a note\n")


def test_an_unknown_level():
    with pytest.raises(ValueError, match="expected one of silent, normal, verbose"):
        console.verbosity("loud").__enter__()


def test_one_and_several_things():
    counted = [
        console.count(number, noun) for number in (0, 1, 2000) for noun in ("image", "class")
    ]
    assert counted == [
        "0 images",
        "0 classes",
        "1 image",
        "1 class",
        "2,000 images",
        "2,000 classes",
    ]
