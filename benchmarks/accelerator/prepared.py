"""What a process has prepared, by label: turns are timed on it, and it is dropped when its row is done."""

import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import record, rounds
from benchmarks.networks import Network

# Losses of so many updates, or the logits of so many images, are what sides are compared by.
LOSSES, IMAGES = 3, 8


class Prepared:
    """Sides with `step` and `wait`, see `rounds.turn`."""

    def __init__(self) -> None:
        self._sides: dict[str, Any] = {}

    def keep(self, label: str, side: Any) -> None:
        """Keeps a side under a label, in place of an earlier one."""
        self._sides[label] = side

    def turn(self, label: str, repeats: int) -> rounds.Turn:
        """Returns a turn, with the share of the cores that other programs took meanwhile."""
        began, others = time.perf_counter(), record.cpu_seconds_of_others()
        turn = rounds.turn(self._sides[label], repeats)
        others = record.cpu_seconds_of_others() - others
        # The clock of the system ticks a hundred times a second: less is not seen.
        busy = max(others, 0.0) / (time.perf_counter() - began) / (os.cpu_count() or 1)
        return {**turn, "busy_elsewhere": busy}

    def drop(self, label: str) -> None:
        """Forgets a side."""
        self._sides.pop(label, None)


def first_losses(side: Any, values: Any) -> list[float]:
    """Returns the losses of the first updates, which it makes.

    Args:
        side: that makes them.
        values: from what a step returns to a list of its losses.
    """

    def losses() -> Iterator[float]:
        while True:
            yield from values(side.step())

    return [loss for _, loss in zip(range(LOSSES), losses(), strict=False)]


def weights_file(scratch: pathlib.Path, network: Network) -> pathlib.Path:
    """Returns where the process of JAX leaves the weights of a network, under PyTorch's names."""
    return scratch / f"{network.model}-{network.stem}-{network.num_classes}.safetensors"
