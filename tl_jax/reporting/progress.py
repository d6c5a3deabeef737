"""How far a run has got: a bar on a terminal, a plain line now and then elsewhere."""

import collections
import datetime
import sys
import time
from collections.abc import Callable
from typing import Any, Self, TextIO

import numpy as np
import rich.console
import rich.progress

from tl_jax import console

_PLAIN_SECONDS = 10.0
_TERMINAL_SECONDS = 0.5
# The speed shown is that of the last few lines: it follows changes and forgets the compilation.
_MARKS = 20


class Progress:
    """Shows the step, images per second, the loss and the time left during a run.

    On a terminal this is a bar; anywhere else plain lines, one every ten seconds at most and one at
    the end; nothing in a silent process (`console.verbosity("silent")`). `update` may be
    called after every step: it looks at the loss, and so waits for the
    device, only when something is shown.

    Example:
        >>> with Progress(2, batch_size=8, stream=sys.stdout) as progress:
        ...     progress.update(2, 0.25)
        step 2/2 (100%)  loss 0.2500
    """

    def __init__(
        self,
        total_steps: int,
        *,
        initial_step: int = 0,
        batch_size: int = 1,
        unit: str = "step",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the display; it starts with the `with` block.

        Args:
            total_steps: the number of updates when the run is done.
            initial_step: the number of updates done already, by the run that this one resumes.
            batch_size: images per update, all devices together.
            unit: what is counted.
            stream: where to write; standard error by default.
            clock: returns seconds.
        """
        self._total_steps = total_steps
        self._batch_size = batch_size
        self._unit = unit
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._step = initial_step
        self._loss: Any = None
        self._validation = ""
        self._shown_step: int | None = None
        self._shown_seconds = -float("inf")
        self._marks: collections.deque[tuple[float, int]] = collections.deque(maxlen=_MARKS)
        terminal = rich.console.Console(file=self._stream)
        self._bar: rich.progress.Progress | None = None
        self._shows = console.shows()
        if self._shows and terminal.is_terminal and not terminal.is_dumb_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn(f"{unit} {{task.completed:.0f}}/{{task.total:.0f}}"),
                rich.progress.BarColumn(),
                rich.progress.TextColumn("{task.percentage:.0f}%"),
                rich.progress.TextColumn("{task.fields[details]}", markup=False),
                console=terminal,
            )
            self._task = self._bar.add_task(
                "train", total=total_steps, completed=initial_step, details=""
            )

    def update(self, step: int, loss: Any = None) -> None:
        """Notes that `step` updates are done, the last with `loss` (a number, or an array whose last it is)."""
        self._step, self._loss = step, loss
        now = self._clock()
        if not self._marks:
            self._marks.append((now, step))
        if not self._shows:
            return
        interval = _PLAIN_SECONDS if self._bar is None else _TERMINAL_SECONDS
        if now - self._shown_seconds >= interval:
            self._show(now)

    def validation(self, step: int, top1_accuracy: float, examples: int) -> None:
        """Shows a validation accuracy as soon as it is measured.

        On a terminal it stands in the bar until the next one; elsewhere it is a separate line.

        Args:
            step: completed updates.
            top1_accuracy: in [0, 1].
            examples: of the validation split.
        """
        if self._bar is None:
            self.print(
                f"{self._unit} {step}/{self._total_steps}  validation top-1 "
                f"{100 * top1_accuracy:.2f}% of {console.count(examples, 'image')}"
            )
        else:
            self._validation = f"validation {100 * top1_accuracy:.2f}%"

    def print(self, text: str) -> None:
        """Writes a separate line, above the bar if there is one."""
        if not self._shows:
            return
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def images_per_second(self) -> float | None:
        """Returns the speed over the last few lines shown; None before there is one."""
        if len(self._marks) < 2:
            return None
        (start_seconds, start_step), (end_seconds, end_step) = self._marks[0], self._marks[-1]
        if end_seconds <= start_seconds:
            return None
        return (end_step - start_step) * self._batch_size / (end_seconds - start_seconds)

    def _show(self, now: float) -> None:
        # Reading the loss waits for the device, so the time is taken again afterwards.
        loss = None if self._loss is None else float(np.ravel(self._loss)[-1])
        now = max(now, self._clock())
        if self._marks and self._step > self._marks[-1][1]:
            self._marks.append((now, self._step))
        self._shown_seconds, self._shown_step = now, self._step
        details = []
        if loss is not None:
            details.append(f"loss {loss:z.4f}")
        if self._validation:
            details.append(self._validation)
        speed = self.images_per_second()
        if speed:
            details.append(f"{speed:,.0f} images/s" if speed >= 10 else f"{speed:.2f} images/s")
            seconds_left = (self._total_steps - self._step) * self._batch_size / speed
            if seconds_left > 0:
                details.append(f"{datetime.timedelta(seconds=round(seconds_left))} left")
        if self._bar is None:
            percent = (
                f"{100 * self._step / self._total_steps:.0f}%" if self._total_steps else "100%"
            )
            self.print(
                "  ".join([f"{self._unit} {self._step}/{self._total_steps} ({percent})", *details])
            )
        else:
            self._bar.update(self._task, completed=self._step, details="  ".join(details))

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shows and self._shown_step != self._step and self._marks:
            self._show(self._clock())
        if self._bar is not None:
            self._bar.stop()
