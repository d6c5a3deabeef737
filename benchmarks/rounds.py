"""Timed rounds in which cases take turns, and what is made of their turns; imports no framework."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

# Of one turn: mean seconds of a step and what the process used for it; see `turn`.
Turn = dict[str, float]


def interleave(
    take: Mapping[str, Callable[[int], Turn]], rounds: int, seconds: float
) -> dict[str, list[Turn]]:
    """Returns the turns of each case, one a round; the cases take turns at going first.

    Args:
        take: from a number of steps to a turn of so many, by case; such as `turn` on a case.
        rounds: turns of each case.
        seconds: of all turns together, about.
    """
    share = seconds / (rounds * len(take))
    repeats = {name: max(1, int(share / one(2)["seconds"])) for name, one in take.items()}
    turns: dict[str, list[Turn]] = {name: [] for name in take}
    order = list(take)
    for number in range(rounds):
        begin = number % len(order)
        for name in order[begin:] + order[:begin]:
            turns[name].append(take[name](repeats[name]))
    return turns


def turn(side: Any, repeats: int) -> Turn:
    """Returns what one step takes, in the mean over `repeats` steps that follow a first one.

    Args:
        side: with `step`, which begins a step, and `wait`, which returns when all that were begun are done.
        repeats: at least 1.
    """
    first = _measured(side, 1)["seconds"]
    total = _measured(side, repeats)
    return {"first_seconds": first} | {name: value / repeats for name, value in total.items()}


def summary(turns: list[Turn], batch_size: int) -> dict[str, Any]:
    """Returns the figures of a case; a step is on `batch_size` images."""
    seconds = [turn["seconds"] for turn in turns]
    median = statistics.median(seconds)
    return {
        "images_per_second_median": batch_size / median,
        "images_per_second_best": batch_size / min(seconds),
        "milliseconds_median": 1e3 * median,
        "milliseconds_of_rounds": [round(1e3 * value, 3) for value in seconds],
        "milliseconds_first_of_turn": [round(1e3 * turn["first_seconds"], 3) for turn in turns],
        "cpu_milliseconds_median": 1e3
        * statistics.median(turn["user_seconds"] + turn["system_seconds"] for turn in turns),
        "system_milliseconds_median": 1e3
        * statistics.median(turn["system_seconds"] for turn in turns),
        "page_faults_median": statistics.median(turn["page_faults"] for turn in turns),
    }


def _measured(side: Any, repeats: int) -> Turn:
    """Returns the wall time of some steps, and what this process used for them."""
    side.wait()
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    for _ in range(repeats):
        side.step()
    side.wait()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "user_seconds": after.ru_utime - before.ru_utime,
        "system_seconds": after.ru_stime - before.ru_stime,
        "page_faults": after.ru_minflt - before.ru_minflt,
    }
