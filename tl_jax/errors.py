"""Error messages about wrong input: what was given, what was expected, the nearest choice."""

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """The user's input is wrong; the message says all there is to say (exit code 2, no traceback)."""


def nearest(given: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Returns up to `count` of `choices` that look most like `given`, best first.

    Those that `given` begins come first: `resnet20` means `resnet20_cifar` rather than `resnet50`.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(given.lower(), by_lower, count, 0.5)
    begun = sorted(name for name in by_lower if given and name.startswith(given.lower()))
    return [by_lower[name] for name in dict.fromkeys([*begun, *close])][:count]


def unknown(
    kind: str, given: object, choices: Iterable[str], near: Sequence[str] = ()
) -> InputError:
    """Returns the error for a name that is not one of `choices`.

    Args:
        kind: what it names, such as "model".
        given: the name.
        choices: those that are known.
        near: the nearest of them, where the caller knows better than `nearest`.

    Example:
        >>> str(unknown("model", "resnet5O", ["resnet18", "resnet50"]))
        "unknown model 'resnet5O'; nearest: resnet50, resnet18; known: resnet18, resnet50"
    """
    choices = sorted(choices)
    near = near or nearest(str(given), choices)
    parts = [f"unknown {kind} {given!r}"]
    if near:
        parts.append("nearest: " + ", ".join(near))
    shown = choices if len(choices) <= 40 else [*choices[:40], f"and {len(choices) - 40} more"]
    parts.append("known: " + (", ".join(shown) or "none"))
    return InputError("; ".join(parts))


def taken(kind: str, name: str, *, ours: bool = False) -> InputError:
    """Returns the error for a name that is registered already.

    Args:
        kind: what it names, such as "network".
        name: that was given.
        ours: whether it came with this library, and thus stays.

    Example:
        >>> str(taken("network", "my_net"))
        "a network 'my_net' is registered already; expected another name, or replace=True to take its place"
    """
    instead = "" if ours else ", or replace=True to take its place"
    article = "an" if kind[0] in "aeiou" else "a"
    return InputError(
        f"{article} {kind} {name!r} is registered already; expected another name{instead}"
    )


def is_inside(value: float, interval: str) -> bool:
    """Returns whether a number is in an interval such as "[0, 1)"; NaN is in none."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = low <= value if interval[0] == "[" else low < value
    return above and (value <= high if interval[-1] == "]" else value < high)
