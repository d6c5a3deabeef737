"""What a user reads when the input is wrong."""

import pytest

from tl_jax import errors


@pytest.mark.parametrize(
    ("given", "choices", "message"),
    [
        pytest.param(
            "resnet5O",
            ["resnet18", "resnet50"],
            "unknown model 'resnet5O'; nearest: resnet50, resnet18; known: resnet18, resnet50",
            id="typo",
        ),
        pytest.param(
            "RESNET50",
            ["vgg", "ResNet50"],
            "unknown model 'RESNET50'; nearest: ResNet50; known: ResNet50, vgg",
            id="case",
        ),
        pytest.param("zzz", ["b", "a"], "unknown model 'zzz'; known: a, b", id="nothing near"),
        pytest.param("x", [], "unknown model 'x'; known: none", id="no choice at all"),
        pytest.param(None, ["a"], "unknown model None; known: a", id="no string"),
    ],
)
def test_unknown_names_what_was_given_what_is_near_and_what_is_known(given, choices, message):
    error = errors.unknown("model", given, choices)
    assert isinstance(error, errors.InputError)
    assert isinstance(error, ValueError)
    assert str(error) == message


def test_unknown_shows_at_most_forty_choices():
    message = str(errors.unknown("model", "?", [f"m{index:02}" for index in range(43)]))
    assert "m39" in message
    assert "m40" not in message
    assert message.endswith("and 3 more")


@pytest.mark.parametrize(
    ("given", "count", "expected"),
    [
        pytest.param("bicubik", 3, ["bicubic"], id="one"),
        pytest.param("stage", 2, ["stage1", "stage2"], id="no more than asked for"),
        pytest.param("qqqq", 3, [], id="none"),
    ],
)
def test_nearest(given, count, expected):
    found = errors.nearest(given, ["bicubic", "stage1", "stage2", "stage3"], count)
    assert len(found) == len(expected)
    if given != "stage":
        assert found == expected
